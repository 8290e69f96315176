"""Sound as a log-mel spectrogram into a timm network."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import ClassVar

import torchaudio
from torch import Tensor, nn

from mmsearch.batch import Modality, View
from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.encoders._timm import SMALL, Backbone, unfolded, with_stages
from mmsearch.knobs import knob


class SpectrogramEncoder(EncoderModule):
    """log(mel + 1e-4), standardised over the batch per channel, then a timm network with one input channel."""

    def __init__(self, rate: float, knobs: Spectrogram) -> None:
        super().__init__()
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=int(rate),
            n_fft=knobs.n_fft,
            hop_length=max(1, round(rate * knobs.hop_ms / 1000)),
            n_mels=knobs.n_mels,
            f_min=knobs.f_min,
        )
        self.standardise = nn.BatchNorm2d(1, affine=False)
        self.backbone = Backbone(knobs.backbone, in_chans=1)
        self.width = self.backbone.width
        self.stage_widths = self.backbone.stage_widths

    def forward(self, x: Tensor, detail: bool = False) -> Encoded:
        """Waveform `[B, T]` to features `[B, D]`."""
        return self.backbone(self._picture(x), detail)

    def staged(self, x: Tensor) -> Generator[Tensor, Tensor, Encoded]:
        """The maps of the network's stages, `[B, 1, C_s, mels, time]`."""
        pooled = yield from unfolded(self.backbone.staged(self._picture(x)), (len(x), 1))
        return Encoded(pooled)

    def _picture(self, x: Tensor) -> Tensor:
        log_mel = (self.mel(x.float()) + 1e-4).log()
        return self.standardise(log_mel[:, None])


@dataclasses.dataclass
class Spectrogram(Encoder):
    """A log-mel spectrogram (torchaudio) into a timm network with one input channel."""

    name: ClassVar[str] = "spectrogram"
    kind: ClassVar[str] = "sound"
    summary: ClassVar[str] = "log-mel spectrogram into a timm network"

    backbone: str = knob(SMALL, "`small`, `resnet18` as in the papers, or any timm network", search=False)
    n_fft: int = knob(512, "window, samples", low=64, high=4096, search=False)
    hop_ms: float = knob(20.0, "step, milliseconds", low=2.0, high=100.0, search=False)
    n_mels: int = knob(40, "mel bands", low=8, high=256, search=False)
    f_min: float = knob(60.0, "lowest frequency, Hz", low=0.0, high=2000.0, search=False)
    seconds: float = knob(
        0.0, "random crop of this length while training; 0: whole clips", low=0.0, high=60.0, search=False
    )

    def build(self, modality: Modality) -> EncoderModule:
        """The network for the modality's sampling rate."""
        return SpectrogramEncoder(modality.rate, self)

    @property
    def stages(self) -> int:
        """Those of the network."""
        return with_stages(self.backbone)

    def view(self, training: bool) -> View:
        """Whole clips, or a crop."""
        return View(seconds=self.seconds or None, random=training)
