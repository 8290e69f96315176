"""Gradient-Blending."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Method, NoOp, Stage
from mmsearch.methods._base import unimodal_heads, unimodal_losses, with_unimodal_heads

JOINT = "head"
"""The key of the joint head among the weights, which cannot be a modality: it names the fusion's optimiser group."""

Losses = dict[str, list[float]]
"""Per head [L^T, L^V], its mean loss on clips trained on and on clips held out."""


def blend_weights(before: Losses, after: Losses, eps: float) -> dict[str, float]:
    """w_k ∝ max(ΔG_k, 0)/max(|ΔO_k|, ε)², adding up to 1; all equal where no head generalises any better.

    ΔG_k = L^V_N - L^V_{N+n} and ΔO_k = O_{N+n} - O_N, O = L^V - L^T; a head whose losses are not finite gets 0.
    """
    raw = {}
    for k in before:
        (L_T, L_V), (L_T_n, L_V_n) = before[k], after[k]
        dG, dO = L_V - L_V_n, (L_V_n - L_T_n) - (L_V - L_T)
        raw[k] = max(dG, 0.0) / max(abs(dO), eps) ** 2 if math.isfinite(dG + dO) else 0.0
    total = sum(raw.values())
    return {k: r / total if total > 0 else 1 / len(raw) for k, r in raw.items()}


@dataclasses.dataclass
class GradientBlending(Method):
    """G-Blend: weigh the losses of the unimodal heads and of the joint one by how each overfits when alone.

    The model is trained with L = Σ_k w_k·L_k over a head on every encoder and the joint one, which predicts. The
    weights are estimated by rehearsals on copies that are thrown away, each trained with one head alone: between
    its start N and its end N+n a head's generalisation gap O = L^V - L^T grows by ΔO while its held-out loss falls
    by ΔG, and w_k ∝ ΔG_k/ΔO_k². `offline`: once, from the initial weights over a whole training. `online`: before
    every super-epoch, from the weights of the moment. Losses are means over clips in evaluation mode, L^V over the
    held clips. Super-epochs are cut of equal length, the nearest to the knob, and no shorter than an epoch.

    w says how much a head gains for how much it overfits, not which modality dominates: where the strong one is soon
    learned by heart, the weak one may get the larger weight. So no signal is declared as measuring dominance.

    A head that generalises worse than before (ΔG < 0) weighs nothing; without absolute values, which would reward
    it. The formula is recalled from the paper, no official code computes it. The super-epoch is that of
    BalanceBenchmark, 10 of 30 epochs; the paper's is recalled as 10 epochs on Kinetics and 5 elsewhere. With one
    modality it is plain joint training.

    Source: What Makes Training Multi-Modal Classification Networks Hard? (CVPR 2020).
    """

    name: ClassVar[str] = "gradient_blending"
    summary: ClassVar[str] = "weighs unimodal and joint losses by overfitting measured in rehearsals of each alone"
    paper: ClassVar[str] = "What Makes Training Multi-Modal Classification Networks Hard? (CVPR 2020)"
    formula: ClassVar[str] = (
        "L = Σ_k w_k·L_k;  w_k ∝ ΔG_k/ΔO_k²,  ΔG = L^V_N - L^V_{N+n},  ΔO = O_{N+n} - O_N,  O = L^V - L^T"
    )
    earliest: ClassVar[float] = 1 / 3
    no_op: ClassVar[NoOp] = NoOp(None, reason="the weights are measured: no knob puts all of it on the joint head")

    mode: str = knob("online", "estimate the weights once, or before every super-epoch", choices=("offline", "online"))
    super_epoch: float = knob(
        1 / 3, "length of a super-epoch, share of training", low=0.06, high=0.7, when={"mode": "online"}
    )
    eps: float = knob(1e-3, "least overfitting |ΔO| a head is credited with", low=1e-6, high=1e-1, log=True)

    def __post_init__(self) -> None:
        self._modalities: list[str] = []
        self._epochs = 1
        self._w: dict[str, float] = {JOINT: 1.0}
        self._before: Losses = {}
        self._after: Losses = {}

    @property
    def needs_held(self) -> bool:
        """For L^V."""
        return True

    def stages(self) -> tuple[Stage, ...]:
        """Before every super-epoch (offline: once) a rehearsal of every head."""
        if len(self._modalities) < 2:
            return (Stage("blend"),)
        n = min(round(1 / self.super_epoch), self._epochs) if self.mode == "online" else 1
        n = max(n, 1)
        alone = [Stage(f"{u} alone", 1 / n, trains=(u, "unimodal_heads"), rehearsal=True) for u in self._modalities]
        joint = Stage("joint alone", 1 / n, trains=(JOINT, *self._modalities), rehearsal=True)
        return (*alone, joint, Stage("blend", 1 / n)) * n

    def build(self, model: Any) -> None:
        """Adds the unimodal heads."""
        unimodal_heads(model)
        self._modalities = list(model.widths)

    def on_run_start(self, ctx: Context) -> None:
        """Notes how many epochs there are."""
        self._epochs = ctx.epochs

    def predict(self, model: Any, out: Output) -> Output:
        """Joint logits of the fusion, unimodal logits of the separate heads."""
        return with_unimodal_heads(model, out)

    def on_stage_start(self, ctx: Context) -> None:
        """Measures where the rehearsals start, which is the same for all of a super-epoch."""
        if ctx.stage.rehearsal and not self._before:
            self._before = self._losses(ctx)

    def on_stage_end(self, ctx: Context) -> None:
        """Measures the head that was rehearsed, and after the last one takes its weights."""
        head = self._rehearsed(ctx)
        if not head:
            return
        self._after[head] = self._losses(ctx)[head]
        if head == JOINT:
            self._w = blend_weights(self._before, self._after, self.eps)
            self._before, self._after = {}, {}

    def on_epoch_start(self, ctx: Context) -> None:
        """Logs the weights."""
        if not ctx.stage.rehearsal:
            for u, w_u in self._w.items():
                ctx.log("w", w_u, u)

    def step(self, ctx: Context, batch: Batch) -> Tensor:
        """The plain step; a rehearsal of a unimodal head runs its encoder only, unless the encoders exchange maps."""
        head = self._rehearsed(ctx)
        mask = [head] if head in self._modalities and not ctx.model.kind.mixes else None
        _, loss = ctx.accumulate(batch, lambda out, part: self.compute_loss(ctx, out, part), mask)
        ctx.update()
        return loss

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """Σ_k w_k·L_k, or in a rehearsal L_k alone."""
        head = self._rehearsed(ctx)
        L = unimodal_losses(self.predict(ctx.model, out), batch) | {JOINT: F.cross_entropy(out.logits, batch.label)}
        w = {head: 1.0} if head else self._w
        return torch.stack([w_k * L[k] for k, w_k in w.items() if w_k > 0]).sum()

    def _rehearsed(self, ctx: Context) -> str:
        return ctx.stage.trains[0] if ctx.stage.rehearsal and ctx.stage.trains else ""

    def _losses(self, ctx: Context) -> Losses:
        """Mean losses of every head; clips without a modality do not count for its head."""
        means: Losses = {}
        for part in ("train", "held"):
            sums, counts = dict.fromkeys([*self._modalities, JOINT], 0.0), dict.fromkeys([*self._modalities, JOINT], 0)
            for out, batch in ctx.scan(part):
                for k, z in {**out.unimodal, JOINT: out.logits}.items():
                    here = batch.present.get(k, torch.ones_like(batch.label, dtype=torch.bool))
                    sums[k] += float(F.cross_entropy(z[here].double(), batch.label[here], reduction="sum"))
                    counts[k] += int(here.sum())
            for k, total in sums.items():
                means.setdefault(k, []).append(total / max(counts[k], 1))
        return means

    def state_dict(self) -> dict[str, Any]:
        """Weights, and what has been measured of the rehearsals under way."""
        return {"w": self._w, "before": self._before, "after": self._after}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._w, self._before, self._after = dict(state["w"]), dict(state["before"]), dict(state["after"])
