"""What encoders of pictures share: frames, images and flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Modality, View
from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.encoders._augment import PICTURE_DRAWS, crop_knob, cropped, flip_knob, flipped, random_boxes
from mmsearch.encoders._timm import SMALL, Backbone, unfolded, with_stages
from mmsearch.knobs import knob

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PictureEncoder(EncoderModule):
    """A timm network on every picture; pooled features are averaged over pictures, tokens are strung together.

    Args:
        knobs: of the encoder.
        mean, std: of every channel, in levels of 0 to 255, `[C]`.
        sign: by which the channels of a mirrored picture are multiplied, `[C]`.
    """

    mean: Tensor
    std: Tensor
    sign: Tensor

    def __init__(self, knobs: Pictures, mean: Tensor, std: Tensor, sign: Tensor) -> None:
        super().__init__()
        self.size, self.crop, self.flip = knobs.size, knobs.crop, knobs.flip
        self.backbone = Backbone(knobs.backbone, in_chans=len(mean))
        self.width = self.backbone.width
        self.stage_widths = self.backbone.stage_widths
        self.register_buffer("mean", mean.view(-1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(-1, 1, 1), persistent=False)
        self.register_buffer("sign", sign, persistent=False)

    def forward(self, x: Tensor, detail: bool = False, draws: Tensor | None = None) -> Encoded:
        """uint8 `[B, F, C, H, W]` to features `[B, D]`."""
        clips = x.shape[:2]
        out = self.backbone(self.pictures(x, draws).flatten(0, 1), detail)
        pooled = out.pooled.unflatten(0, clips).mean(1)
        return Encoded(pooled, None if out.tokens is None else out.tokens.unflatten(0, clips).flatten(1, 2))

    def staged(self, x: Tensor, draws: Tensor | None = None) -> Generator[Tensor, Tensor, Encoded]:
        """The maps of the pictures' stages, `[B, F, C_s, H, W]`."""
        clips = x.shape[:2]
        net = self.backbone.staged(self.pictures(x, draws).flatten(0, 1))
        pooled = yield from unfolded(net, clips)
        return Encoded(pooled.unflatten(0, clips).mean(1))

    def pictures(self, x: Tensor, draws: Tensor | None = None) -> Tensor:
        """What the network sees, float32 `[B, F, C, size, size]`: cropped or resized, standardised, mirrored."""
        stored = x.shape[-2], x.shape[-1]
        size = (self.size, self.size) if self.size else stored
        if draws is not None and self.crop < 1:
            x = cropped(x.float(), random_boxes(draws[:, :4], self.crop, *stored), size)
        elif size != stored:
            clips = x.shape[:2]
            x = F.interpolate(x.flatten(0, 1).float(), size=size, mode="bilinear", antialias=True).unflatten(0, clips)
        x = (x.float() - self.mean) / self.std
        return flipped(x, draws[:, 4], self.sign) if draws is not None and self.flip else x


@dataclasses.dataclass
class Pictures(Encoder):
    """Base of the encoders of pictures.

    A crop and a flip are drawn once a clip, for all its pictures.
    """

    backbone: str = knob(SMALL, "`small`, `resnet18` as in the papers, or any timm network", search=False)
    size: int = knob(0, "side of the network's input, pixels; 0: as stored", low=0, high=512, search=False)
    crop: float = crop_knob()
    flip: bool = flip_knob()

    def build(self, modality: Modality) -> EncoderModule:
        """The network."""
        return PictureEncoder(self, torch.tensor(MEAN) * 255, torch.tensor(STD) * 255, torch.ones(3))

    @property
    def stages(self) -> int:
        """Those of the network."""
        return with_stages(self.backbone)

    @property
    def draws(self) -> int:
        """Random numbers a clip while training."""
        return PICTURE_DRAWS if self.crop < 1 or self.flip else 0

    def view(self, training: bool) -> View:
        """All pictures."""
        return View(draws=self.draws if training else 0)
