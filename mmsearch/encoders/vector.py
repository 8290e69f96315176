"""Feature vectors into a small multilayer perceptron."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from mmsearch.batch import Modality
from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.knobs import knob


class MLP(EncoderModule):
    """Batch norm, linear, ReLU, linear, ReLU."""

    def __init__(self, d_in: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.net = nn.Sequential(
            nn.BatchNorm1d(d_in), nn.Linear(d_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )

    def forward(self, x: Tensor, detail: bool = False) -> Encoded:
        """`[B, D_in]` to `[B, D]`; the vector is its own single token."""
        h = self.net(x)
        return Encoded(h, h[:, None]) if detail else Encoded(h)


@dataclasses.dataclass
class Vector(Encoder):
    """A two-layer perceptron on standardised feature vectors."""

    name: ClassVar[str] = "vector"
    kind: ClassVar[str] = "vector"
    summary: ClassVar[str] = "a two-layer perceptron on feature vectors"

    width: int = knob(64, "width of both layers", low=4, high=2048, search=False)

    def build(self, modality: Modality) -> EncoderModule:
        """The network for the modality's length."""
        return MLP(modality.shape[0], self.width)
