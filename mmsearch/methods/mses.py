"""Modality-specific early stopping."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch.nn.functional as F

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Method, NoOp
from mmsearch.methods._base import collect


def smoothed(previous: float | None, current: float) -> float:
    """ℓ = 0.6·previous + 0.4·current of two epochs' losses; of the first epoch its own."""
    return current if previous is None else 0.6 * previous + 0.4 * current


@dataclasses.dataclass
class MSES(Method):
    """MSES: a modality whose held-out loss no longer falls goes back to its best epoch and stays there.

    After every epoch ℓ_u = 0.6·previous + 0.4·current of the loss of modality u's own logits on the held clips. Where
    the best ℓ_u is more than `patience` ago, the whole model and its optimisers return to that epoch and encoder u
    moves no more; the rest goes on. With all encoders stopped the head stops as well. As it is the whole model that
    returns, it takes along what the others have learned since, and encoders that stopped before.

    A loss is compared with that modality's own past alone, never with another's, so none is declared as measuring
    dominance.

    The form is that of the AGM repository, which takes losses on test; here it is the held clips. There the
    gradient of a stopped modality is multiplied by 0, under which momentum and weight decay still move it.

    Source: Modality-Specific Learning Rate Control for Multimodal Classification (ACPR 2019), as in the repository
    of Boosting Multi-modal Model Performance with Adaptive Gradient Modulation (ICCV 2023).
    """

    name: ClassVar[str] = "mses"
    summary: ClassVar[str] = "stops an encoder at its own best epoch while the others go on"
    paper: ClassVar[str] = "Modality-Specific Learning Rate Control for Multimodal Classification (ACPR 2019)"
    formula: ClassVar[str] = "ℓ_u = 0.6·previous + 0.4·current;  if e - argmin ℓ_u > patience: θ ← θ(argmin), k_u = 0"
    no_op: ClassVar[NoOp] = NoOp("joint", {"patience": 1.0})

    patience: float = knob(0.8, "how long a loss may fail to improve, share of training", low=0.2, high=1.0)

    def __post_init__(self) -> None:
        self._loss: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._best_epoch: dict[str, int] = {}
        self._snapshots: dict[str, Any] = {}
        self._stopped: list[str] = []

    @property
    def needs_held(self) -> bool:
        """For the losses."""
        return True

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Keeps what has stopped where it is."""
        still = [*self._stopped, *(["head"] if len(self._stopped) == len(ctx.modalities) else [])]
        for u in still:
            ctx.scale(u, 0.0, apply_to="lr")

    def on_epoch_end(self, ctx: Context) -> None:
        """Follows the losses; notes a best epoch, or returns to it."""
        out, batch = collect(ctx.scan("held"))
        snapshot = None
        for u in [u for u in ctx.modalities if u not in self._stopped]:
            here = batch.present[u]
            total = F.cross_entropy(out.unimodal[u][here], batch.label[here], reduction="sum")
            loss = float(total / here.sum().clamp(min=1))
            l_u = smoothed(self._loss.get(u), loss)
            self._loss[u] = loss
            ctx.log("loss", l_u, u)
            if l_u < self._best.get(u, math.inf):
                snapshot = ctx.snapshot() if snapshot is None else snapshot
                self._best[u], self._best_epoch[u], self._snapshots[u] = l_u, ctx.epoch, snapshot
        patience = max(round(self.patience * ctx.epochs), 1)
        for u in ctx.modalities:
            if u not in self._stopped and u in self._best and ctx.epoch - self._best_epoch[u] > patience:
                ctx.rollback(self._snapshots.pop(u))
                self._stopped.append(u)
            ctx.log("stopped", float(u in self._stopped), u)

    def state_dict(self) -> dict[str, Any]:
        """Losses, best epochs with their weights, and what has stopped."""
        return {
            "loss": self._loss,
            "best": self._best,
            "best_epoch": self._best_epoch,
            "snapshots": self._snapshots,
            "stopped": self._stopped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._loss, self._best = dict(state["loss"]), dict(state["best"])
        self._best_epoch = dict(state["best_epoch"])
        self._snapshots, self._stopped = dict(state["snapshots"]), list(state["stopped"])
