"""Still images into a timm image network."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mmsearch.batch import Modality
from mmsearch.encoders import Encoder, EncoderModule
from mmsearch.encoders._timm import SMALL, with_stages
from mmsearch.encoders.frames import ImageEncoder
from mmsearch.knobs import knob


@dataclasses.dataclass
class Image(Encoder):
    """A timm network on one picture a clip."""

    name: ClassVar[str] = "image"
    kind: ClassVar[str] = "image"
    summary: ClassVar[str] = "a timm network on a still image"

    backbone: str = knob(SMALL, "`small`, `resnet18` as in the papers, or any timm network", search=False)
    size: int = knob(0, "side of the network's input, pixels; 0: as stored", low=0, high=512, search=False)

    @property
    def stages(self) -> int:
        """Those of the network."""
        return with_stages(self.backbone)

    def build(self, modality: Modality) -> EncoderModule:
        """The network."""
        return ImageEncoder(self.backbone, self.size)
