"""Balanced multimodal learning by conditional learning speed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmsearch.batch import Batch, Output
from mmsearch.fusion import Fusion
from mmsearch.knobs import knob
from mmsearch.methods import Context, Method, NoOp


def speed(parameters: Sequence[nn.Parameter]) -> float:
    """‖g‖²/‖w‖² over all of them; one without a gradient adds to ‖w‖² alone."""
    g = torch.stack([torch.zeros_like(p).sum() if p.grad is None else p.grad.square().sum() for p in parameters])
    w = torch.stack([p.detach().square().sum() for p in parameters])
    return float(g.sum() / w.sum())


def bdr(bypass: float, main: float) -> float:
    """BDR_u = log10(Σ_t bypass_u / Σ_t main_u), the speed at which a branch learns from the other one."""
    return math.log10(max(bypass, 1e-30) / max(main, 1e-30))


@dataclasses.dataclass
class Greedy(Method):
    """Greedy: where one branch learns mostly from the other, its gates are frozen for a while at their average.

    Between the encoders' stages stand the gates of the fusion `mmtm`. After every backward pass outside of curation
    the speed ‖g‖²/‖w‖² of the bypass of each modality (its gates and the squeeze both share) and of its main branch
    (encoder and linear head) is added up; BDR_u = log10(Σ bypass_u / Σ main_u), d = BDR_0 - BDR_1. If |d| > ε, the
    next `window` steps are curated: the modality with the larger BDR has its gates replaced by their running average
    over the steps so far, so that it hears nothing of the other one and has to learn from its own input; the other
    one keeps its gates. Nothing is added up meanwhile. Evaluation always uses the gates themselves.

    The released code updates the average of the second gate from the first one's output, and both in evaluation
    too; here each has its own and sees training alone. A curated step uses the average of the steps before it. The
    released code adds up the cross-entropies of the branches; here the loss is that of plain joint training, so that
    nothing but the curation tells the two apart.

    The BDR says which branch leans on the other one, not which modality is the stronger.

    Source: Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural Networks
    (ICML 2022), after its released code; the paper itself was not read again.
    """

    name: ClassVar[str] = "greedy"
    summary: ClassVar[str] = "cuts off for a few steps the branch that learns mostly from the other modality"
    paper: ClassVar[str] = (
        "Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural Networks (ICML 2022)"
    )
    formula: ClassVar[str] = (
        "BDR_u = log10(Σ_t ‖g_bypass‖²/‖w_bypass‖² / Σ_t ‖g_main‖²/‖w_main‖²);  d = BDR_0 - BDR_1;  "
        "if |d| > ε: gate_u ← its running average for `window` steps, u = 0 if d > 0 else 1"
    )
    no_op: ClassVar[NoOp] = NoOp("joint", {"start": 1.0})

    eps: float = knob(
        0.01, "ε: difference of the speeds from which on a branch is curated", low=1e-4, high=0.1, log=True
    )
    window: int = knob(5, "steps a curation lasts", low=1, high=50)
    start: float = knob(
        0.007, "before this share of training nothing is curated", low=0.0, high=0.2, also=(1.0,), search=False
    )

    def __post_init__(self) -> None:
        self._bypass = [0.0, 0.0]
        self._main = [0.0, 0.0]
        self._average: dict[str, list[Tensor]] = {}
        self._averaged: dict[str, int] = {}
        self._left = 0
        self._caring = 0
        self._step: dict[str, list[Tensor]] = {}

    def refuses(self, fusion: Fusion, modalities: Sequence[str]) -> str:
        """It works on the gates of `mmtm`, between two modalities."""
        if fusion.name != "mmtm":
            return "it curates the gates between the encoders' stages, which only the fusion mmtm has"
        if len(modalities) != 2:
            return f"it is defined for two modalities, here are {len(modalities)}"
        return ""

    def kind(self, ctx: Context) -> str:
        """A curated step leaves gates out of the backward pass."""
        return "curated" if self._left else ""

    def step(self, ctx: Context, batch: Batch) -> Tensor:
        """A step with the gates of the cared-for modality frozen while curating."""
        self._step = {}
        if self._left:
            u = ctx.modalities[self._caring]
            ctx.model.fusion.fixed = {u: [a.to(ctx.device) for a in self._average[u]]}
        loss = super().step(ctx, batch)
        ctx.model.fusion.fixed = {}
        return loss

    def modify_features(self, ctx: Context, features: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Adds up the gates of the micro-batch, of the clips that have the modality."""
        for u, gates in ctx.model.fusion.gates.items():
            sums = [(gate.float() * batch.present[u][:, None]).sum(0) for gate in gates]
            self._step[u] = [a + b for a, b in zip(self._step[u], sums, strict=True)] if u in self._step else sums
        return features

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Averages the gates; adds up the speeds and decides about the next steps, unless curating."""
        self._remember(ctx, batch)
        for i, u in enumerate(ctx.modalities):
            ctx.log("curated", float(self._left > 0 and self._caring == i), u)
        if self._left:
            self._left -= 1
            return
        head = ctx.model.fusion
        for i, u in enumerate(ctx.modalities):
            self._bypass[i] += speed(head.bypass(u))
            self._main[i] += speed([*ctx.parameters(u), *head.linear[u].parameters()])
            ctx.log("bdr", bdr(self._bypass[i], self._main[i]), u)
        d = self.difference()
        if ctx.progress >= self.start and abs(d) > self.eps and len(self._average) == 2:
            self._left = self.window
            self._caring = 0 if d > 0 else 1

    def difference(self) -> float:
        """d = BDR_0 - BDR_1."""
        return bdr(self._bypass[0], self._main[0]) - bdr(self._bypass[1], self._main[1])

    def _remember(self, ctx: Context, batch: Batch) -> None:
        for u, sums in self._step.items():
            clips = int(batch.present[u].sum())
            if clips == 0:
                continue
            n = self._averaged.get(u, 0)
            new = [ctx.summed(s) / clips for s in sums]
            old = self._average.get(u, new)
            self._average[u] = [(a.to(b) * n + b) / (n + 1) for a, b in zip(old, new, strict=True)]
            self._averaged[u] = n + 1

    def state_dict(self) -> dict[str, Any]:
        """Speeds added up, averages of the gates, and where a curation stands."""
        return {
            "bypass": list(self._bypass),
            "main": list(self._main),
            "average": {u: list(a) for u, a in self._average.items()},
            "averaged": dict(self._averaged),
            "left": self._left,
            "caring": self._caring,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._bypass, self._main = list(state["bypass"]), list(state["main"])
        self._average = {u: list(a) for u, a in state["average"].items()}
        self._averaged = dict(state["averaged"])
        self._left, self._caring = state["left"], state["caring"]
