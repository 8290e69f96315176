"""Video frames into a timm image network."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Modality, View
from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.encoders._timm import SMALL, Backbone, unfolded, with_stages
from mmsearch.knobs import knob

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageEncoder(EncoderModule):
    """A timm network on every frame; pooled features are averaged over frames, tokens are strung together."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, size: int) -> None:
        super().__init__()
        self.size = size
        self.backbone = Backbone(backbone, in_chans=3)
        self.width = self.backbone.width
        self.stage_widths = self.backbone.stage_widths
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1) * 255, persistent=False)

    def forward(self, x: Tensor, detail: bool = False) -> Encoded:
        """uint8 `[B, F, 3, H, W]` to features `[B, D]`."""
        clips = x.shape[:2]
        out = self.backbone(self._images(x), detail)
        pooled = out.pooled.unflatten(0, clips).mean(1)
        return Encoded(pooled, None if out.tokens is None else out.tokens.unflatten(0, clips).flatten(1, 2))

    def staged(self, x: Tensor) -> Generator[Tensor, Tensor, Encoded]:
        """The maps of the frames' stages, `[B, F, C_s, H, W]`."""
        clips = x.shape[:2]
        net = self.backbone.staged(self._images(x))
        pooled = yield from unfolded(net, clips)
        return Encoded(pooled.unflatten(0, clips).mean(1))

    def _images(self, x: Tensor) -> Tensor:
        images = x.flatten(0, 1).float()
        if self.size and images.shape[-1] != self.size:
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        return (images - self.mean) / self.std


@dataclasses.dataclass
class Frames(Encoder):
    """A timm network on a few frames of a clip, averaged over time: the protocol of the balanced-learning papers."""

    name: ClassVar[str] = "frames"
    kind: ClassVar[str] = "frames"
    summary: ClassVar[str] = "a timm network on a few frames, averaged over time"

    backbone: str = knob(SMALL, "`small`, `resnet18` as in the papers, or any timm network", search=False)
    size: int = knob(0, "side of the network's input, pixels; 0: as stored", low=0, high=512, search=False)
    train_frames: int = knob(
        1, "random frames a clip while training, one of each equal segment", low=1, high=32, search=False
    )
    eval_frames: int = knob(
        3, "frames a clip in evaluation, the middles of equal segments", low=1, high=32, search=False
    )

    def build(self, modality: Modality) -> EncoderModule:
        """The network."""
        return ImageEncoder(self.backbone, self.size)

    @property
    def stages(self) -> int:
        """Those of the network."""
        return with_stages(self.backbone)

    def view(self, training: bool) -> View:
        """Random frames in training, fixed ones in evaluation."""
        return View(frames=self.train_frames if training else self.eval_frames, random=training)
