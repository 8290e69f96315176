"""A fusion head trained on frozen unimodal encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mmsearch.fusion import Fusion
from mmsearch.methods import Context, Method, NoOp, Stage
from mmsearch.methods._base import start_from_teachers


@dataclasses.dataclass
class FrozenProbe(Method):
    """The fusion head alone is trained, on the frozen encoders of the unimodal teachers.

    min_ψ CE(ψ(h_1^T, …, h_M^T), y). What it wins over the ensemble of the teachers the modalities say together
    only; what joint training wins over it the encoders learn from each other.
    """

    name: ClassVar[str] = "frozen_probe"
    summary: ClassVar[str] = "trains the fusion head alone, on the frozen encoders of unimodal models"
    paper: ClassVar[str] = "On Uni-Modal Feature Learning in Supervised Multi-Modal Learning (ICML 2023)"
    formula: ClassVar[str] = "min_ψ CE(ψ(h_1^T, …, h_M^T), y),  θ_u = θ_u^T frozen"
    no_op: ClassVar[NoOp] = NoOp(None, reason="it has no knob: its encoders never move")

    @property
    def needs_teachers(self) -> bool:
        """Their encoders are the model's."""
        return True

    def refuses(self, fusion: Fusion, modalities: Sequence[str]) -> str:
        """The teachers' encoders have exchanged nothing."""
        return "the encoders it freezes were trained apart, with nothing mixed in" if fusion.mixes else ""

    def stages(self) -> tuple[Stage, ...]:
        """One, in which only the head moves."""
        return (Stage("probe", trains=("head",)),)

    def on_run_start(self, ctx: Context) -> None:
        """Copies the teachers' encoders."""
        start_from_teachers(ctx)
