"""The interface of a fusion."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor, nn


class Head(nn.Module):
    """A fusion head: features of any subset of its modalities to joint logits.

    A modality that is absent from `features` counts as a zero feature.
    """

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """Joint logits `[B, C]` from features `[B, D_u]`."""
        raise NotImplementedError

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """z_u `[B, C]` for the modalities given; over all modalities they add up to the joint logits."""
        raise NotImplementedError


@dataclasses.dataclass
class Fusion:
    """Base of all fusions; fields made with :func:`mmsearch.knobs.knob` are its knobs.

    Attributes:
        name: in documents and on the command line.
        summary: one line of what it does.
        formula: joint logits z from features h_u.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    formula: ClassVar[str]

    def build(self, widths: dict[str, int], n_classes: int) -> Head:
        """The head for features of these widths D_u."""
        raise NotImplementedError
