"""Spectrograms: the papers' shapes and values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchaudio
from torchaudio.compliance import kaldi

from mmsearch.batch import Modality
from mmsearch.encoders import ENCODERS
from mmsearch.encoders._fronts import Fbank


def front(name: str, rate: int, **knobs: Any) -> Any:
    encoder = ENCODERS.create({"name": "spectrogram", "front": name, **knobs})
    return encoder.build(Modality("x", "sound", (rate * 3,), float(rate))).eval().front  # type: ignore[union-attr]


def waves(rate: int, *seconds: float) -> torch.Tensor:
    """Noise and a tone of these lengths, padded with zeros to the longest of them and 3 s."""
    longest = round(rate * max(3.0, *seconds))
    x = torch.zeros(len(seconds), longest)
    generator = torch.Generator().manual_seed(0)
    for i, s in enumerate(seconds):
        n = round(rate * s)
        t = torch.arange(n) / rate
        x[i, :n] = 0.05 + 0.4 * (6.28 * 330 * t).sin() + 0.1 * torch.randn(n, generator=generator)
    return x


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize(
    ("name", "knobs", "shape"),
    [
        ("ogm_code", {}, (257, 188)),
        ("ogm_paper", {}, (257, 299)),
        ("ogm_paper", {"seconds": 10.0}, (257, 1004)),
        ("fbank", {}, (1024, 128)),
    ],
)
def test_the_papers_shapes(name: str, knobs: dict, shape: tuple[int, int], rate: int) -> None:
    net = front(name, rate, **knobs)
    for x in (waves(rate, 3.0, 0.7), waves(rate, 11.0)):
        picture = net(x)
        assert picture.shape == (len(x), *shape)
        assert torch.isfinite(picture).all()


def test_the_usual_front_has_its_mel_bands() -> None:
    assert front("mel", 16000, n_mels=64, hop_ms=10.0)(waves(16000, 3.0)).shape == (1, 64, 301)


def test_ogm_code_is_the_logarithm_of_the_spectrum_of_the_repeated_clip() -> None:
    x = waves(22050, 1.3) * 3
    clip = x[0, : round(22050 * 1.3)]
    wave = clip.repeat(3)[: 3 * 22050].clamp(-1, 1)
    spectrum = torch.stft(wave, 512, 353, window=torch.hann_window(512), return_complex=True)
    torch.testing.assert_close(front("ogm_code", 22050)(x)[0], (spectrum.abs() + 1e-7).log())


def test_ogm_paper_has_windows_of_512_that_overlap_by_353() -> None:
    x = waves(16000, 3.0)
    windows = x[0].clamp(-1, 1).unfold(0, 512, 512 - 353) * torch.hann_window(512)
    expected = (torch.fft.rfft(windows).abs() + 1e-7).log().T
    torch.testing.assert_close(front("ogm_paper", 16000)(x)[0], expected, rtol=1e-4, atol=1e-4)


def kaldi_fbank(wave: torch.Tensor) -> torch.Tensor:
    """The protocol as the authors' script has it, one clip of 16 kHz `[1, T]`."""
    banks = kaldi.fbank(
        wave - wave.mean(),
        htk_compat=True,
        sample_frequency=16000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
        frame_shift=10,
    )
    banks = F.pad(banks[:1024], (0, 0, 0, max(0, 1024 - len(banks))))
    return (banks + 4.503877) / (2 * 5.141276)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_fbank_is_kaldis_clip_by_clip(rate: int) -> None:
    seconds = (3.0, 10.0, 10.6, 1.234, 0.025, 0.04)
    x = waves(rate, *seconds)
    picture = front("fbank", rate)(x)
    for i, s in enumerate(seconds):
        wave = torchaudio.functional.resample(x[i : i + 1, : round(rate * s)], rate, 16000)
        torch.testing.assert_close(picture[i], kaldi_fbank(wave), rtol=0, atol=1e-4)


def test_fbank_of_many_clips_is_that_of_each() -> None:
    x = waves(16000, *(0.5 + 0.25 * i for i in range(2 * Fbank.AT_ONCE + 1)))
    net = front("fbank", 16000)
    torch.testing.assert_close(net(x), torch.cat([net(clip) for clip in x.split(1)]))


def test_too_short_and_silent_clips_are_padding_to_fbank() -> None:
    x = torch.zeros(2, 16000)
    x[0, :399] = 0.1
    padding = torch.full((1024, 128), 4.503877 / (2 * 5.141276))
    torch.testing.assert_close(front("fbank", 16000)(x), padding.expand(2, -1, -1))


@pytest.mark.parametrize(
    ("name", "seconds", "frames"),
    [("mel", 1.0, 51), ("ogm_code", 1.0, 188), ("ogm_paper", 1.0, 299), ("fbank", 1.0, 98), ("fbank", 11.0, 1024)],
)
def test_a_front_knows_which_frames_are_the_clips_own(name: str, seconds: float, frames: int) -> None:
    assert front(name, 16000).frames(waves(16000, seconds)).tolist() == [frames]


@pytest.mark.parametrize("name", ["ogm_code", "ogm_paper", "fbank"])
def test_the_papers_fronts_are_float32_under_bf16_and_alike_in_any_batch(name: str) -> None:
    net, x = front(name, 16000).train(), waves(16000, 1.0, 2.0, 3.0)
    plain = net(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(net(x), plain)
    torch.testing.assert_close(net(x[1:2])[0], plain[1])


def test_only_the_usual_front_has_mel_knobs() -> None:
    document = ENCODERS.document(ENCODERS.create({"name": "spectrogram", "front": "fbank"}))
    assert not {"n_fft", "hop_ms", "n_mels", "f_min"} & document.keys()
    assert "n_mels" in ENCODERS.document(ENCODERS.create({"name": "spectrogram"}))
