"""The interface of an encoder."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from mmsearch.batch import Modality, View


@dataclasses.dataclass
class Encoded:
    """What an encoder says of a batch.

    Attributes:
        pooled: `[B, D]`.
        tokens: `[B, N, D]`, where asked for.
        maps: the maps of the network's stages `[B, C_s, H_s, W_s]`, where asked for.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    maps: list[Tensor] = dataclasses.field(default_factory=list)


class EncoderModule(nn.Module):
    """A network from one modality's input to features of width `width`."""

    width: int

    def forward(self, x: Tensor, detail: bool = False) -> Encoded:
        """Encodes `x`; with `detail` also tokens and stage maps."""
        raise NotImplementedError


@dataclasses.dataclass
class Encoder:
    """Base of all encoders; fields made with :func:`mmsearch.knobs.knob` are its knobs.

    Attributes:
        name: in documents and on the command line.
        kind: the kind of modality it reads.
        summary: one line of what it is.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    summary: ClassVar[str]

    def build(self, modality: Modality) -> EncoderModule:
        """The network, freshly initialised from the global random stream."""
        raise NotImplementedError

    def view(self, training: bool) -> View:
        """Which part of a stored clip it wants."""
        return View()
