"""Feature vectors into a small multilayer perceptron."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import ClassVar

from torch import Tensor, nn

from mmsearch.batch import Modality
from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.knobs import knob


class MLP(EncoderModule):
    """Batch norm (where asked for), linear, ReLU, linear, ReLU; its one stage ends after the first ReLU."""

    def __init__(self, d_in: int, width: int, normalise: bool) -> None:
        super().__init__()
        self.width = width
        self.stage_widths = (width,)
        norm = nn.BatchNorm1d(d_in) if normalise else nn.Identity()
        self.net = nn.Sequential(norm, nn.Linear(d_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor, detail: bool = False, draws: Tensor | None = None) -> Encoded:
        """`[B, D_in]` to `[B, D]`; the vector is its own single token."""
        h = self.net(x)
        return Encoded(h, h[:, None]) if detail else Encoded(h)

    def staged(self, x: Tensor, draws: Tensor | None = None) -> Generator[Tensor, Tensor, Encoded]:
        """The first layer is the stage; its map is `[B, 1, D, 1, 1]`."""
        mixed = yield self.net[:3](x)[:, None, :, None, None]
        return Encoded(self.net[3:](mixed[:, 0, :, 0, 0]))


@dataclasses.dataclass
class Vector(Encoder):
    """A two-layer perceptron on standardised feature vectors."""

    name: ClassVar[str] = "vector"
    kind: ClassVar[str] = "vector"
    summary: ClassVar[str] = "a two-layer perceptron on feature vectors"

    @property
    def stages(self) -> int:
        """One."""
        return 1

    width: int = knob(64, "width of both layers", low=4, high=2048, search=False)
    normalise: bool = knob(True, "batch norm on the vectors", search=False)

    def build(self, modality: Modality) -> EncoderModule:
        """The network for the modality's length."""
        return MLP(modality.shape[0], self.width, self.normalise)
