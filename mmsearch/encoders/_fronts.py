"""From sound to the spectrogram that a network sees: log-mel, those of the papers, one computed beforehand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from torchaudio.compliance import kaldi

from mmsearch.encoders._steps import length_of

SECONDS = 3.0
"""Of sound in a picture of the `ogm` fronts, unless told otherwise."""


class Front(nn.Module):
    """From what is stored to spectrograms.

    Attributes:
        time: which dimension of the spectrograms `[B, H, W]` is time, 1 or 2.
    """

    time = 2

    def forward(self, x: Tensor) -> Tensor:
        """Waveforms `[B, T]` in [-1, 1], or what else is stored, to spectrograms `[B, H, W]`."""
        raise NotImplementedError

    def frames(self, x: Tensor) -> Tensor:
        """How many steps of time in the spectrograms are a clip's own, int64 `[B]`."""
        raise NotImplementedError


class Stored(Front):
    """Spectrograms `[B, T, D]` as they are, standardised over the batch where asked for."""

    time = 1

    def __init__(self, normalise: bool) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm2d(1, affine=False) if normalise else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, D]`."""
        return self.standardise(x.float()[:, None])[:, 0]

    def frames(self, x: Tensor) -> Tensor:
        """Up to the last that is not zero."""
        return length_of(x)


class LogMel(Front):
    """log(mel + 1e-4), standardised over the batch."""

    def __init__(self, rate: float, n_fft: int, hop_ms: float, n_mels: int, f_min: float) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=int(rate),
            n_fft=n_fft,
            hop_length=max(1, round(rate * hop_ms / 1000)),
            n_mels=n_mels,
            f_min=f_min,
        )
        self.standardise = nn.BatchNorm2d(1, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, n_mels, time]`."""
        log_mel = (self.mel(x.float()) + 1e-4).log()
        return self.standardise(log_mel[:, None])[:, 0]

    def frames(self, x: Tensor) -> Tensor:
        """One a hop, and one."""
        return 1 + length_of(x) // self.mel.hop_length


class Resampled(Front):
    """A front that hears sound at its own rate.

    Args:
        stored: rate of the waveforms, samples a second.
        rate: its own.
    """

    def __init__(self, stored: float, rate: int) -> None:
        super().__init__()
        self.stored, self.rate = int(stored), rate
        self.resample = torchaudio.transforms.Resample(self.stored, rate)

    def lengths(self, x: Tensor) -> Tensor:
        """Samples of the clips at the front's rate, int64 `[B]`."""
        return -(-length_of(x) * self.rate // self.stored)

    def forward(self, x: Tensor) -> Tensor:
        """In float32 whatever the precision."""
        with torch.autocast(x.device.type, enabled=False):
            return self.picture(self.resample(x.float()), self.lengths(x))

    def picture(self, x: Tensor, length: Tensor) -> Tensor:
        """Waveforms at the front's rate, of these lengths, to spectrograms."""
        raise NotImplementedError


class Ogm(Resampled):
    """log(|STFT| + 1e-7) of the first seconds, a shorter clip repeated, window 512.

    Source: OGM-GE (CVPR 2022). The paper has 16 kHz and an overlap of 353, that is hop 159, which gives 257 x 299
    for 3 s; its code has 22.05 kHz, a hop of 353 and frames centred on their time, which gives 257 x 188.

    Args:
        stored: rate of the waveforms.
        rate, hop: of the spectrogram.
        centred: whether the first frame is centred on the first sample (the clip is reflected) or begins there.
        seconds: of sound.
    """

    window: Tensor

    def __init__(self, stored: float, rate: int, hop: int, centred: bool, seconds: float) -> None:
        super().__init__(stored, rate)
        self.samples, self.hop, self.centred = round(seconds * rate), hop, centred
        self.register_buffer("window", torch.hann_window(512), persistent=False)

    def picture(self, x: Tensor, length: Tensor) -> Tensor:
        """`[B, 257, time]`."""
        place = torch.arange(self.samples, device=x.device) % length.clamp(min=1)[:, None]
        wave = x.gather(1, place).clamp(-1, 1)
        spectrum = torch.stft(
            wave, len(self.window), self.hop, window=self.window, center=self.centred, return_complex=True
        )
        return (spectrum.abs() + 1e-7).log()

    def frames(self, x: Tensor) -> Tensor:
        """All of them."""
        whole = self.samples if self.centred else self.samples - len(self.window)
        return torch.full((len(x),), 1 + whole // self.hop, device=x.device)


class Fbank(Resampled):
    """Kaldi filter banks of 16 kHz sound less its mean, standardised by the figures of AudioSet.

    128 mel bands from 20 Hz, Hann windows of 25 ms every 10 ms, pre-emphasis 0.97, no dither, no energy: what
    `torchaudio.compliance.kaldi.fbank` gives clip by clip. Cut or padded with zeros to 1024 frames, then
    (x + 4.503877) / (2·5.141276).
    """

    time = 1
    mel: Tensor
    window: Tensor

    RATE, FRAMES, BANDS, WINDOW, HOP, FFT = 16000, 1024, 128, 400, 160, 512
    PREEMPHASIS = 0.97
    MEAN, STD = -4.503877, 5.141276
    AT_ONCE = 4
    """Clips: what the cache of a processor holds; all at once take twice as long."""

    def __init__(self, stored: float) -> None:
        super().__init__(stored, self.RATE)
        mel, _ = kaldi.get_mel_banks(self.BANDS, self.FFT, self.RATE, 20.0, 0.0, 100.0, -500.0, 1.0)
        self.register_buffer("mel", F.pad(mel, (0, 1)).T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.WINDOW, periodic=False), persistent=False)

    def picture(self, x: Tensor, length: Tensor) -> Tensor:
        """`[B, 1024, 128]`."""
        some = zip(x.split(self.AT_ONCE), length.split(self.AT_ONCE), strict=True)
        return torch.cat([self._picture(clips, samples) for clips, samples in some])

    def _picture(self, x: Tensor, length: Tensor) -> Tensor:
        own = torch.arange(x.shape[1], device=x.device) < length[:, None]
        x = torch.where(own, x, torch.zeros_like(x))
        x = torch.where(own, x - x.sum(1, keepdim=True) / length.clamp(min=1)[:, None], x)
        samples = (self.FRAMES - 1) * self.HOP + self.WINDOW
        frames = F.pad(x, (0, max(0, samples - x.shape[1]))).unfold(1, self.WINDOW, self.HOP)[:, : self.FRAMES]
        banks = self._banks(frames)
        whole = torch.arange(self.FRAMES, device=x.device) < self._frames(length)[:, None]
        banks = torch.where(whole[..., None], banks, torch.zeros_like(banks))
        return (banks - self.MEAN) / (2 * self.STD)

    def _banks(self, frames: Tensor) -> Tensor:
        """The logarithms of the filter banks of windows `[B, N, 400]`."""
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        spectrum = torch.fft.rfft((frames - self.PREEMPHASIS * before) * self.window, n=self.FFT)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.mel).clamp(min=torch.finfo(power.dtype).eps).log()

    def frames(self, x: Tensor) -> Tensor:
        """The whole windows within a clip."""
        return self._frames(self.lengths(x))

    def _frames(self, length: Tensor) -> Tensor:
        return ((length - self.WINDOW) // self.HOP + 1).clamp(0, self.FRAMES)
