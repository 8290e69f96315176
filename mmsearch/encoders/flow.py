"""Optical flow into a timm image network."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch

from mmsearch.batch import Modality
from mmsearch.encoders import EncoderModule
from mmsearch.encoders._pictures import PictureEncoder
from mmsearch.encoders.frames import Frames
from mmsearch.knobs import knob

STILL = 128.0
"""The level of no motion."""


@dataclasses.dataclass
class Flow(Frames):
    """A timm network with two input channels, motion to the right and motion down, on a few frames of flow.

    A mirrored clip moves the other way: its first channel changes sign.
    """

    name: ClassVar[str] = "flow"
    kind: ClassVar[str] = "flow"
    summary: ClassVar[str] = "a timm network on a few frames of optical flow, averaged over time"

    scale: float = knob(128.0, "levels that count as 1; 128 is no motion", low=1.0, high=255.0, search=False)

    def build(self, modality: Modality) -> EncoderModule:
        """The network."""
        still, scale = torch.full((2,), STILL), torch.full((2,), self.scale)
        return PictureEncoder(self, still, scale, torch.tensor([-1.0, 1.0]))
