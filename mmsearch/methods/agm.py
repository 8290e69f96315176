"""Adaptive Gradient Modulation: gradients follow each modality's share of the logits."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.diagnostics.shapley import shapley, subsets
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp


def losses(attribution: Tensor, label: Tensor) -> Tensor:
    """-log max(softmax(Φ_u)_{i,y_i}, 1e-8), `[M, B]`; Φ `[M, B, C]`."""
    p = F.softmax(attribution, dim=2).gather(2, label.expand(len(attribution), -1)[..., None])[..., 0]
    return -p.clamp(min=1e-8).log()


def ratios(s: Tensor) -> Tensor:
    """r_u = exp(M/(M - 1)·(mean_j s_j - s_u)), `[M]`: above 1 for a modality whose loss s_u is below the mean."""
    return torch.exp(len(s) / (len(s) - 1) * (s.mean() - s))


def scaled_gradient(x: Tensor, k: Tensor) -> Tensor:
    """x, whose gradient is multiplied by k on the way back."""
    x = x.view_as(x)
    if x.requires_grad:
        x.register_hook(lambda g: g * k)
    return x


@dataclasses.dataclass
class AGM(Method):
    """AGM: the gradient into a modality's share of the logits is scaled by how it does against its own history.

    Φ_u is the Shapley share of modality u in the joint logits, with z(S) the logits of a forward pass in which the
    modalities outside S are zero and z(∅) = 0; Σ_u Φ_u = z. s_u = mean_i -log softmax(Φ_u)_{i,y_i} (lower is better),
    r_u = exp(M/(M-1)·(s̄ - s_u)) and τ_u the same of the means ŝ_u over all earlier steps. In the backward pass of
    CE(Σ_u Φ_u, y) the gradient into Φ_u is multiplied by κ_u = exp(α·min(τ_u - r_u, cap)): a modality that does worse
    than it used to is sped up. The first step has no history, so that κ_u = 1. Where an element of the gradient of the
    head's weights exceeds 1, all gradients are clipped to a total norm.

    What is zero outside S are features, which costs heads and no encoder. The released code zeroes inputs, 2^M - 2
    more passes with gradient, the encoders in evaluation mode (`mask_level: input`). With batch norm that form can
    break the model: κ_a < κ_v turns the gradient into z(a) around, and a network in evaluation mode learns to be wrong
    while the same network in training mode learns to be right. BalanceBenchmark's form, which has the sign of
    s̄ - s_u reversed and drops z(u), is not offered. Clips without modality u do not count in s_u.

    Source: Boosting Multi-modal Model Performance with Adaptive Gradient Modulation (ICCV 2023).
    """

    name: ClassVar[str] = "agm"
    summary: ClassVar[str] = "speeds up the modality whose share of the logits does worse than it used to"
    paper: ClassVar[str] = "Boosting Multi-modal Model Performance with Adaptive Gradient Modulation (ICCV 2023)"
    formula: ClassVar[str] = (
        "Φ_a = (z(av) - z(v) + z(a))/2;  s_u = mean_i -log softmax(Φ_u)_{i,y_i};  r_u = exp(M/(M-1)·(s̄ - s_u));  "
        "κ_u = exp(α·min(τ_u - r_u, cap)) on the gradient into Φ_u,  τ_u = r_u of the running means ŝ_u"
    )
    no_op: ClassVar[NoOp] = NoOp("joint", {"end": 0.0})
    dominance: ClassVar[Dominance] = Dominance("score", "low")

    alpha: float = knob(1.0, "strength α of the modulation", low=0.05, high=5.0, log=True, also=(0.0,))
    cap: float = knob(10.0, "largest lead of history over the present", choices=(5.0, 7.0, 10.0))
    end: float = knob(1.0, "where modulation ends, share of training", low=0.3, high=1.0, also=(0.0,))
    mask_level: str = knob(
        "feature", "what is zero of the modalities outside S", choices=("feature", "input"), search=False
    )
    clip: float = knob(1.0, "total norm to which gradients are clipped", low=0.1, high=10.0, search=False)

    def __post_init__(self) -> None:
        self._mean: Tensor | None = None
        self._steps = 0
        self._s: Tensor | None = None

    def active(self, ctx: Context) -> bool:
        """Whether this moment of training is inside the window."""
        return ctx.progress < self.end and len(ctx.modalities) > 1

    def kind(self, ctx: Context) -> str:
        """Inside the window a step costs more."""
        return "attribution" if self.active(ctx) else ""

    def coefficients(self, s: Tensor) -> Tensor:
        """κ_u `[M]` from this step's s_u `[M]` and the means so far."""
        if self._mean is None:
            return torch.ones_like(s)
        return torch.exp(self.alpha * (ratios(self._mean.to(s)) - ratios(s)).clamp(max=self.cap))

    def remember(self, s: Tensor) -> None:
        """ŝ ← ŝ·(t - 1)/t + s/t."""
        self._steps += 1
        t = self._steps
        self._mean = s / t if self._mean is None else self._mean.to(s) * ((t - 1) / t) + s / t

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """CE(Σ_u Φ_u, y), with the gradients into Φ_u scaled; the scores are those of the whole batch."""
        if not self.active(ctx):
            return super().compute_loss(ctx, out, batch)
        attribution = self._attribution(ctx, out, batch)
        if self._s is None:
            self._s = self._scores(ctx, attribution.detach(), batch)
        kappa = self.coefficients(self._s)
        return F.cross_entropy(scaled_gradient(attribution, kappa[:, None, None]).sum(0), batch.label)

    def _attribution(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """Φ `[M, B, C]`."""
        *some, everything = subsets(ctx.modalities)
        z = {S: self._masked(ctx, out, batch, S) for S in some} | {everything: out.logits}
        return torch.stack(list(shapley(z, ctx.modalities).values()))

    def _masked(self, ctx: Context, out: Output, batch: Batch, S: frozenset[str]) -> Tensor:
        """z(S) `[B, C]`."""
        if self.mask_level == "input":
            return ctx.forward(batch, S, level="input", statistics=False).logits
        features = {u: h for u, h in out.features.items() if u in S}
        tokens = {u: t.to(out.features[u]) for u, t in out.tokens.items() if u in S}
        return ctx.model.fuse(features, tokens).logits

    def _scores(self, ctx: Context, attribution: Tensor, batch: Batch) -> Tensor:
        """s_u `[M]` over the clips of the whole batch that have u; where none has, the mean of the others."""

        def sums(attribution: Tensor, part: Batch) -> Tensor:
            there = torch.stack([part.present[u] for u in ctx.modalities])
            return torch.stack([losses(attribution, part.label) * there, there.to(attribution)]).mean(2)

        total, share = ctx.average(
            batch, sums(attribution, batch), lambda out, part: sums(self._attribution(ctx, out, part), part)
        )
        s = total / share.clamp(min=1e-12)
        return torch.where(share > 0, s, s.sum() / (share > 0).sum().clamp(min=1))

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Remembers the scores; clips where the head's gradient is large."""
        if self._s is None:
            return
        for u, s_u, kappa_u in zip(ctx.modalities, self._s, self.coefficients(self._s), strict=True):
            ctx.log("score", s_u, u)
            ctx.log("kappa", kappa_u, u)
        self.remember(self._s)
        self._s = None
        largest = [p.grad.abs().max() for p in ctx.parameters("head") if p.grad is not None and p.ndim > 1]
        if largest and float(torch.stack(largest).max()) > 1:
            groups = [*ctx.modalities, "head"]
            torch.nn.utils.clip_grad_norm_([p for g in groups for p in ctx.parameters(g)], self.clip)

    def state_dict(self) -> dict[str, Any]:
        """The means ŝ and the number of steps in them."""
        return {"mean": self._mean, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._mean, self._steps = state["mean"], state["steps"]
