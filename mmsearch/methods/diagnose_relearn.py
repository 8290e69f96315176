"""Diagnosing and re-learning: encoders go back towards their initial weights by their train/held-out gap."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmsearch.diagnostics.separability import separability
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp

CLIPS = 20_000
"""At most that many clips of a part are clustered, spread evenly over it."""


def relearn(theta: Tensor, theta_0: Tensor, a: float) -> None:
    """θ ← (1 - a)·θ + a·θ⁰, in place."""
    theta.lerp_(theta_0.to(theta), a)


@dataclasses.dataclass
class DiagnoseRelearn(Method):
    """D&R: every N epochs pull each encoder towards its initial weights, the more the wider its train/held-out gap.

    After epoch e with e > 0 and e mod N = 0, at most R times: P_u is the purity of the K-means clusters of h_u, on
    training clips without augmentation and on clips held out of training (the published splits of most datasets take
    the test part for that); g_u = |P_u^train - P_u^held|, a_u = tanh(λ·g_u), θ_u ← (1 - a_u)·θ_u + a_u·θ_u⁰ for every
    parameter of encoder u. Statistics of batch norm and the head stay; so does the optimiser's momentum, as published,
    unless `reset_optimizer`. Nothing is re-learned after the last epoch, from which no epoch would recover.

    Clips without modality u do not count in P_u.

    Source: Diagnosing and Re-learning for Balanced Multimodal Learning (ECCV 2024).
    """

    name: ClassVar[str] = "diagnose_relearn"
    summary: ClassVar[str] = "pulls encoders back to their initial weights by the gap of separability on held-out clips"
    paper: ClassVar[str] = "Diagnosing and Re-learning for Balanced Multimodal Learning (ECCV 2024)"
    formula: ClassVar[str] = (
        "P = (1/n)·Σ_k max_c |cluster k ∩ class c|;  a_u = tanh(λ·|P_u^train - P_u^held|);  "
        "θ_u ← (1 - a_u)·θ_u + a_u·θ_u⁰ every N epochs, R times"
    )
    earliest: ClassVar[float] = 0.7
    no_op: ClassVar[NoOp] = NoOp("joint", {"strength": 0.0})
    dominance: ClassVar[Dominance] = Dominance("held_purity", "high")

    strength: float = knob(
        3.0, "strength λ: how far a gap pulls an encoder back", low=0.5, high=10.0, log=True, also=(0.0,)
    )
    period: float = knob(20 / 90, "time N between diagnoses, share of training", low=5 / 90, high=30 / 90)
    R: int = knob(3, "how often at most", low=1, high=6, also=(0,))
    reset_optimizer: bool = knob(False, "forget the encoders' momentum as well")

    def __post_init__(self) -> None:
        self._initial: dict[str, list[Tensor]] = {}
        self._done = 0

    @property
    def needs_held(self) -> bool:
        """For the second purity."""
        return True

    def on_run_start(self, ctx: Context) -> None:
        """Keeps θ⁰."""
        self._initial = {u: [p.detach().clone() for p in ctx.parameters(u)] for u in ctx.modalities}

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether encoders are diagnosed after this epoch (0-based)."""
        N = max(1, round(self.period * epochs))
        return epoch > 0 and epoch % N == 0 and epoch + 1 < epochs and self._done < self.R

    @torch.no_grad()
    def on_epoch_end(self, ctx: Context) -> None:
        """Diagnoses and, where due, re-learns."""
        if not self.due(ctx.epoch, ctx.epochs) or len(ctx.modalities) < 2:
            return
        P_train, P_held = (self._purities(ctx, part) for part in ("train", "held"))
        for u in ctx.modalities:
            a = math.tanh(self.strength * abs(P_train[u] - P_held[u]))
            for signal, value in (("purity", P_train[u]), ("held_purity", P_held[u]), ("a", a)):
                ctx.log(signal, value, u)
            for theta, theta_0 in zip(ctx.parameters(u), self._initial[u], strict=True):
                relearn(theta, theta_0, a)
        if self.reset_optimizer:
            state = ctx.snapshot()
            for u in ctx.modalities:
                state["optimizers"][u]["state"] = {}
            ctx.rollback(state)
        self._done += 1

    def _purities(self, ctx: Context, part: str) -> dict[str, float]:
        rows = ctx.rows[:: math.ceil(len(ctx.rows) / CLIPS)] if part == "train" else None
        h: dict[str, list[Tensor]] = {u: [] for u in ctx.modalities}
        y: dict[str, list[Tensor]] = {u: [] for u in ctx.modalities}
        for out, batch in ctx.scan(part, rows):
            for u in ctx.modalities:
                h[u].append(out.features[u][batch.present[u]].cpu())
                y[u].append(batch.label[batch.present[u]].cpu())
        found = {}
        for u in ctx.modalities:
            features, label = torch.cat(h[u]).numpy(), torch.cat(y[u]).numpy()
            few = slice(None, None, max(1, math.ceil(len(label) / CLIPS)))
            found[u] = separability(features[few], label[few], ctx.model.n_classes) if len(label) else 0.0
        return found

    def state_dict(self) -> dict[str, Any]:
        """θ⁰ and how often encoders were re-learned."""
        return {"initial": self._initial, "done": self._done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._initial, self._done = state["initial"], state["done"]
