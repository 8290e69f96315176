"""What encoders of spectrograms share: of sound, and as a dataset stores them."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

from torch import Tensor

from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.encoders._augment import TIME_DRAWS, mask_knob, shift_knob, shifted, spec_masked
from mmsearch.encoders._fronts import Front
from mmsearch.encoders._timm import SMALL, Backbone, unfolded, with_stages
from mmsearch.knobs import knob


class SpectrumEncoder(EncoderModule):
    """A spectrogram, then a timm network with one input channel.

    Args:
        front: from the input to spectrograms.
        knobs: of the encoder.
    """

    def __init__(self, front: Front, knobs: Spectra) -> None:
        super().__init__()
        self.shift, self.time_mask, self.freq_mask = knobs.shift, knobs.time_mask, knobs.freq_mask
        self.front = front
        self.backbone = Backbone(knobs.backbone, in_chans=1)
        self.width = self.backbone.width
        self.stage_widths = self.backbone.stage_widths

    def forward(self, x: Tensor, detail: bool = False, draws: Tensor | None = None) -> Encoded:
        """What the front reads to features `[B, D]`."""
        return self.backbone(self.picture(x, draws), detail)

    def staged(self, x: Tensor, draws: Tensor | None = None) -> Generator[Tensor, Tensor, Encoded]:
        """The maps of the network's stages, `[B, 1, C_s, H, W]`."""
        pooled = yield from unfolded(self.backbone.staged(self.picture(x, draws)), (len(x), 1))
        return Encoded(pooled)

    def picture(self, x: Tensor, draws: Tensor | None = None) -> Tensor:
        """What the network sees, `[B, 1, H, W]`: the input is shifted, its spectrogram masked."""
        if draws is not None and self.shift:
            x = shifted(x, self.shift, draws[:, 0])
        picture = self.front(x)
        if draws is not None and (self.time_mask or self.freq_mask):
            frames = self.front.frames(x)
            picture = spec_masked(picture, frames, self.front.time, self.time_mask, self.freq_mask, draws[:, 1:])
        return picture[:, None]


@dataclasses.dataclass
class Spectra(Encoder):
    """Base of the encoders of spectrograms."""

    backbone: str = knob(SMALL, "`small`, `resnet18` as in the papers, or any timm network", search=False)
    shift: float = shift_knob()
    time_mask: float = mask_knob("steps of time")
    freq_mask: float = mask_knob("frequencies")

    @property
    def stages(self) -> int:
        """Those of the network."""
        return with_stages(self.backbone)

    @property
    def draws(self) -> int:
        """Random numbers a clip while training."""
        return TIME_DRAWS if self.shift or self.time_mask or self.freq_mask else 0
