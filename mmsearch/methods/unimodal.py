"""One modality alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import MODALITIES, knob
from mmsearch.methods import Method, NoOp


@dataclasses.dataclass
class Unimodal(Method):
    """One encoder with a linear head, trained on its modality alone; a baseline and the teacher of other methods."""

    name: ClassVar[str] = "unimodal"
    summary: ClassVar[str] = "one modality alone: its encoder with a linear head"
    paper: ClassVar[str] = "the common baseline"
    formula: ClassVar[str] = "L = CE(z_u, y), z_u = W_u h_u + b"
    no_op: ClassVar[NoOp] = NoOp(None, reason="trains another model")

    modality: str = knob("", "which modality", choices=MODALITIES)

    @property
    def own_fusion(self) -> bool:
        """There is nothing to fuse."""
        return True

    def modalities(self, available: Sequence[str]) -> list[str]:
        """The one modality.

        Raises:
            MMSearchError: the dataset has no such modality.
        """
        if self.modality not in available:
            raise MMSearchError(
                f"method unimodal: unknown modality {self.modality!r}{nearest(self.modality, available)}"
            )
        return [self.modality]
