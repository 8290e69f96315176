"""ReconBoost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.batch import Batch, Output
from mmsearch.fusion._base import filled
from mmsearch.knobs import knob
from mmsearch.methods import Context, Method, NoOp, Stage
from mmsearch.methods._base import start_from_teachers, to_one_width

HIDDEN = 256
"""Width of the shared head."""


class BoostHead(nn.Module):
    """F = Σ_u f_u, f_u = MLP(h_u) with one MLP d → 256 → C for all; encoders of other widths get a projector."""

    def __init__(self, widths: dict[str, int], n_classes: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.projectors = to_one_width(widths)
        self.mlp = nn.Sequential(nn.Linear(max(widths.values()), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_classes))

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """f_u per modality, `[B, C]`."""
        return {u: self.mlp(self.projectors[u](h)) for u, h in features.items()}

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """F, `[B, C]`; an absent modality counts as a zero feature."""
        return torch.stack(list(self.unimodal(filled(features, self.widths)).values())).sum(0)


def boosting_losses(f_u: Tensor, F_others: Tensor, y: Tensor, w1: float, w2: float) -> Tensor:
    """L_i = -(w₁ - w₂·p(F_{-u})_y)/C · log p(f_u)_y per clip, `[B]`; logits `[B, C]`, labels `[B]`."""
    p_y = F.softmax(F_others.detach(), dim=1).gather(1, y[:, None])[:, 0]
    return (w1 - w2 * p_y) * F.cross_entropy(f_u, y, reduction="none") / f_u.shape[1]


def agreement_losses(f_u: Tensor, f_previous: Tensor) -> Tensor:
    """GA_i = mean over classes of (p(f_u) - sg(p(f_previous)))², `[B]`."""
    return (F.softmax(f_u, dim=1) - F.softmax(f_previous.detach(), dim=1)).square().mean(1)


@dataclasses.dataclass
class ReconBoost(Method):
    """ReconBoost: modalities learn in turn what the others have not yet, as in gradient boosting.

    The joint logits are F = Σ_u f_u, with one MLP shared by all modalities. In the stage of a modality u its encoder
    and the head learn
    L = -w₁/C·log p(f_u)_y + w₂/C·p(F_{-u})_y·log p(f_u)_y + α·MSE(p(f_u), p(f_v)),
    where F_{-u}, the sum of the others' logits, discounts what they are sure of, and v is the modality before u; then
    everything learns CE(F, y) for as long (rectification). Stages are cut of equal length, the nearest to the
    knob, each at least an epoch where there are enough. Encoders start from unimodal models (the teachers), which
    the source does for stability.

    The official code detaches both sides of the last term, so that it has no gradient; here, as in the paper, it
    pulls on the learner. The code's learnable boosting rate is left out. Its best checkpoint is picked on test
    after hundreds of stages; the stage here is that of BalanceBenchmark, 1 of 30 epochs.
    With one modality only the rectification is left.

    Source: ReconBoost: Boosting Can Achieve Modality Reconcilement (ICML 2024).
    """

    name: ClassVar[str] = "reconboost"
    summary: ClassVar[str] = (
        "modalities take turns at fitting what the others leave, each turn followed by joint training"
    )
    paper: ClassVar[str] = "ReconBoost: Boosting Can Achieve Modality Reconcilement (ICML 2024)"
    formula: ClassVar[str] = (
        "L_i = -(w₁ - w₂·p(F_{-u})_y)/C · log p(f_u)_y + α·MSE(p(f_u), sg(p(f_v)));  then CE(Σ_u f_u, y)"
    )
    earliest: ClassVar[float] = 1 / 3
    no_op: ClassVar[NoOp] = NoOp(None, reason="another architecture: the sum of one head shared by all modalities")

    w1: float = knob(5.0, "weight w₁ of the truth", low=1.0, high=10.0, log=True)
    w2: float = knob(1.0, "weight w₂ of the discount for what the others know", low=0.1, high=5.0, log=True)
    alpha: float = knob(0.5, "weight α of the agreement with the modality before", low=0.0, high=1.0)
    stage: float = knob(1 / 30, "length of a modality's turn, share of training", low=0.02, high=0.25)
    init: str = knob("teacher", "where the encoders start", choices=("teacher", "scratch"))

    def __post_init__(self) -> None:
        self._modalities: list[str] = []
        self._epochs = 1

    @property
    def own_fusion(self) -> bool:
        """The additive head is the method's own."""
        return True

    @property
    def needs_teachers(self) -> bool:
        """Where the encoders start from them."""
        return self.init == "teacher"

    def stages(self) -> tuple[Stage, ...]:
        """Per round every modality's turn, each followed by rectification."""
        M = len(self._modalities)
        if M < 2:
            return (Stage("rectify"),)
        rounds = max(min(round(1 / (2 * M * self.stage)), self._epochs // (2 * M)), 1)
        share = 1 / (2 * M * rounds)
        turns = [(Stage(f"boost {u}", share, trains=(u, "head")), Stage("rectify", share)) for u in self._modalities]
        return tuple(s for turn in turns for s in turn) * rounds

    def build(self, model: Any) -> None:
        """Replaces the head."""
        model.fusion = BoostHead(model.widths, model.n_classes)
        self._modalities = list(model.widths)

    def on_run_start(self, ctx: Context) -> None:
        """Copies the teachers' encoders."""
        self._epochs = ctx.epochs
        start_from_teachers(ctx)

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """In a modality's turn the boosting loss over the clips that have it, else CE(F, y)."""
        if ctx.stage.trains is None:
            return F.cross_entropy(out.logits, batch.label)
        u = ctx.stage.trains[0]
        v = previous(u, self._modalities)
        f_u, here = out.unimodal[u], batch.present[u]
        L = boosting_losses(f_u, out.logits - f_u, batch.label, self.w1, self.w2)
        GA = agreement_losses(f_u, out.unimodal[v]) * batch.present[v]
        ctx.log("boosting", (L * here).mean(), u)
        ctx.log("agreement", (GA * here).mean(), u)
        return ((L + self.alpha * GA) * here).mean()


def previous(u: str, modalities: Sequence[str]) -> str:
    """The modality whose turn was before that of u."""
    return modalities[list(modalities).index(u) - 1]
