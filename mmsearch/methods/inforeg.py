"""InfoReg: regulates the modality that is ahead while the prime learning window is open."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp
from mmsearch.methods._base import true_class_score, unimodal_heads, unimodal_losses, with_unimodal_heads

_FISHER = {"window_rule": "fisher"}


def rate(traces: Sequence[float], T: int, padded: bool) -> float:
    """k_e = (A_e - A'_e)/A_e: how much the mean trace of the last T epochs has grown since the epoch before.

    Args:
        traces: Tr_0 … Tr_{e-1}, one an epoch.
        T: epochs of the moving mean; where there are fewer, those there are.
        padded: T zeros stand before the first trace, so that k_e > 0 for at least T epochs whatever the data.

    Returns:
        k_e; 1 while there is nothing to compare.
    """
    history = [0.0] * T + list(traces) if padded else list(traces)
    T = min(T, len(history) - 1)
    if not traces or T < 1:
        return 1.0
    A, before = sum(history[-T:]) / T, sum(history[-T - 1 : -1]) / T
    return (A - before) / A if A > 0 else 0.0


def leads(s: Tensor) -> Tensor:
    """gap_u = mean_{j: s_j < s_u} (s_u - s_j), 0 for the weakest; s and gap `[M]`."""
    ahead = F.relu(s[:, None] - s[None])
    return ahead.sum(1) / (ahead > 0).sum(1).clamp(min=1)


def trace(gradients: Sequence[Tensor], fisher: str) -> Tensor:
    """A step's share of Tr: squared gradients, summed (`batch_trace`) or averaged a tensor (`batch_mean_layermean`)."""
    squares = torch._foreach_pow(torch._foreach_norm(list(gradients)), 2)
    if fisher == "batch_mean_layermean":
        torch._foreach_div_(squares, [float(g.numel()) for g in gradients])
    return torch.stack(list(squares)).sum()


@torch.no_grad()
def pull(theta: Sequence[Tensor], start: Sequence[Tensor], beta: float) -> None:
    """g ← g + β·(θ - θ^start) for every parameter that has a gradient."""
    moved = [(p.grad, p - p0) for p, p0 in zip(theta, start, strict=True) if p.grad is not None]
    if moved:
        torch._foreach_add_([g for g, _ in moved], [d for _, d in moved], alpha=beta)


@dataclasses.dataclass
class InfoReg(Method):
    """InfoReg: early in training, pull the modality that is ahead back to its weights at the start of the epoch.

    The loss is L = L_mm + Σ_u L_u, with z_u from the slices of the joint head (or heads of their own, which a fusion
    that is not decomposable always gets). While the prime learning window is open, every modality with a lead
    gap_u = mean_{j: s_j < s_u} (s_u - s_j) gets g ← g + β_u·(θ_u - θ_u^start), θ_u^start its weights at the start of
    the epoch; with two modalities that is the stronger one. The pull is one pass over the weights, no backward pass.

    The window is open in epoch e while k_e = (A_e - A'_e)/A_e > K, A_e the mean of the dominant modality's Fisher
    traces of the last T epochs and A'_e that of one epoch earlier, and never beyond `window`. The released code pads
    the history with T zeros, which keeps the window open for T epochs whatever the data (`padded`). It always reads
    the trace of the sound; here it is the trace of the modality with the highest score in the epoch before. It squares
    the gradient after adding the pull; here before. A trace of single clips would need a backward pass a clip and is
    not offered.

    β_u is the released code's β₀·exp(tanh(gap_u)) with scores summed over the batch (at 64 clips the tanh
    saturates), the same with mean scores, or β₀·tanh(gap_u) with mean scores, which vanishes with the lead; the last
    is the paper's as recalled, its full text was not at hand. The code's lower β₀ for the picture is left out.

    Source: Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition (CVPR 2025).
    """

    name: ClassVar[str] = "inforeg"
    summary: ClassVar[str] = "pulls the leading encoder to its weights at the start of the epoch, early in training"
    paper: ClassVar[str] = "Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition (CVPR 2025)"
    formula: ClassVar[str] = (
        "L = L_mm + Σ_u L_u;  while k_e = (A_e - A'_e)/A_e > K:  g_u ← g_u + β_u·(θ_u - θ_u^start),  "
        "β_u = β₀·exp(tanh(gap_u)) if gap_u > 0 else 0,  gap_u = mean_{j: s_j<s_u} (s_u - s_j)"
    )
    earliest: ClassVar[float] = 0.25
    no_op: ClassVar[NoOp] = NoOp("uniform", {"window": 0.0, "heads": "own"})
    dominance: ClassVar[Dominance] = Dominance("score", "high")

    beta0: float = knob(0.95, "strength β₀ of the pull", low=0.1, high=5.0, log=True)
    coef: str = knob(
        "exp_tanh_sum",
        "how β_u follows the lead of the scores",
        choices=("exp_tanh_sum", "exp_tanh_mean", "beta_times_gap"),
    )
    window_rule: str = knob("fisher", "the window ends by the Fisher traces, or is fixed", choices=("fisher", "fixed"))
    window: float = knob(
        0.5, "length of the window (Fisher: at most), share of training", low=0.1, high=1.0, also=(0.0,)
    )
    K: float = knob(0.05, "growth rate below which the window is closed", low=0.005, high=0.2, log=True, when=_FISHER)
    T: float = knob(0.2, "length of the mean over traces, share of training", low=0.06, high=0.2, when=_FISHER)
    fisher: str = knob(
        "batch_mean_layermean",
        "squared gradients of the batch: layer means summed, or all summed",
        choices=("batch_mean_layermean", "batch_trace"),
        when=_FISHER,
    )
    padded: bool = knob(False, "begin the history of traces with T zeros", when=_FISHER, search=False)
    heads: str = knob(
        "slice", "z_u from slices of the joint head or heads of their own", choices=("slice", "own"), search=False
    )

    def __post_init__(self) -> None:
        self._traces: dict[str, list[float]] = {}
        self._dominant = ""
        self._start: dict[str, list[Tensor]] = {}
        self._sums: dict[str, Tensor] = {}

    def build(self, model: Any) -> None:
        """Adds heads g_u where the joint head gives no z_u."""
        if self.heads == "own" or not model.kind.decomposable:
            unimodal_heads(model)

    def predict(self, model: Any, out: Output) -> Output:
        """The unimodal logits are those of the heads that are trained."""
        return with_unimodal_heads(model, out) if "unimodal_heads" in model.extra else out

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """L_mm + Σ_u L_u."""
        L_mm = F.cross_entropy(out.logits, batch.label)
        L_u = unimodal_losses(self.predict(ctx.model, out), batch)
        return L_mm + sum(L_u.values())

    def coefficients(self, s: Tensor, clips: int) -> Tensor:
        """β_u `[M]` from the scores s_u `[M]`, sums over a batch of `clips`."""
        gap = leads(s if self.coef == "exp_tanh_sum" else s / clips)
        if self.coef == "beta_times_gap":
            return self.beta0 * torch.tanh(gap)
        return torch.where(gap > 0, self.beta0 * torch.exp(torch.tanh(gap)), torch.zeros_like(gap))

    def on_epoch_start(self, ctx: Context) -> None:
        """Opens or closes the window; keeps θ^start."""
        self._start, self._sums = {}, {}
        k = rate(self._traces.get(self._dominant, []), max(1, round(self.T * ctx.epochs)), self.padded)
        within = ctx.progress < self.window and len(ctx.modalities) > 1
        opened = within and (self.window_rule == "fixed" or k > self.K)
        ctx.log("window", float(opened))
        if within and self.window_rule == "fisher":
            ctx.log("k", k)
        if opened:
            self._start = {u: [p.detach().clone() for p in ctx.parameters(u)] for u in ctx.modalities}

    @torch.no_grad()
    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Adds to the traces; pulls while the window is open."""
        z = self.predict(ctx.model, out).unimodal
        s = torch.stack([true_class_score(z[u], batch.label) for u in ctx.modalities])
        for u, s_u in zip(ctx.modalities, s, strict=True):
            ctx.log("score", s_u / len(batch), u)
            self._add(f"score/{u}", s_u)
            if self.window_rule == "fisher" and ctx.progress < self.window:
                everything = self.fisher == "batch_trace"
                grads = [p.grad for p in ctx.parameters(u) if p.grad is not None and (everything or p.ndim > 1)]
                if grads:
                    self._add(f"trace/{u}", trace(grads, self.fisher))
        if not self._start:
            return
        for u, beta in zip(ctx.modalities, self.coefficients(s, len(batch)).tolist(), strict=True):
            ctx.log("beta", beta, u)
            if beta > 0:
                pull(ctx.parameters(u), self._start[u], beta)

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def on_epoch_end(self, ctx: Context) -> None:
        """Appends Tr_e; the dominant modality is the one of the highest score."""
        scores = {u: float(self._sums[f"score/{u}"]) for u in ctx.modalities}
        self._dominant = max(scores, key=lambda u: scores[u])
        for u in ctx.modalities:
            if f"trace/{u}" in self._sums:
                Tr = float(self._sums[f"trace/{u}"])
                ctx.log("trace", Tr, u)
                self._traces.setdefault(u, []).append(Tr)

    def state_dict(self) -> dict[str, Any]:
        """The traces of every epoch and the dominant modality of the last one."""
        return {"traces": self._traces, "dominant": self._dominant}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._traces, self._dominant = state["traces"], state["dominant"]
