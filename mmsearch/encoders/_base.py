"""The interface of an encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import ClassVar

from torch import Tensor, nn

from mmsearch.batch import Modality, View


@dataclasses.dataclass
class Encoded:
    """What an encoder says of a batch.

    Attributes:
        pooled: `[B, D]`.
        tokens: `[B, N, D]`, where asked for; zero where a clip has no such step or word.
    """

    pooled: Tensor
    tokens: Tensor | None = None


class EncoderModule(nn.Module):
    """A network from one modality's input to features.

    Attributes:
        width: D, of the pooled feature and of a token.
        stage_widths: channels of the maps of :meth:`staged`; empty where the network has no stages.
    """

    width: int
    stage_widths: tuple[int, ...] = ()

    def forward(self, x: Tensor, detail: bool = False, draws: Tensor | None = None) -> Encoded:
        """Encodes `x`.

        Args:
            x: the input, as in :class:`mmsearch.batch.Batch`.
            detail: also give tokens.
            draws: uniform numbers `[B, K]` from which `x` is augmented, clip by clip; None: as it is.
        """
        raise NotImplementedError

    def staged(self, x: Tensor, draws: Tensor | None = None) -> Generator[Tensor, Tensor, Encoded]:
        """The same, stage by stage: yields the map `[B, F, C_s, H, W]` of a stage and goes on with what is sent."""
        raise NotImplementedError


@dataclasses.dataclass
class Encoder:
    """Base of all encoders; fields made with :func:`mmsearch.knobs.knob` are its knobs.

    Attributes:
        name: in documents and on the command line.
        kind: the kind of modality it reads.
        summary: one line of what it is.
        default: whether it reads its kind where nobody names an encoder.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    summary: ClassVar[str]
    default: ClassVar[bool] = True

    def build(self, modality: Modality) -> EncoderModule:
        """The network, freshly initialised from the global random stream."""
        raise NotImplementedError

    @property
    def stages(self) -> int:
        """How many stages its network has between which other modalities may speak; 0 for none."""
        return 0

    def view(self, training: bool) -> View:
        """Which part of a stored clip it wants, and how many draws its augmentation needs."""
        return View()
