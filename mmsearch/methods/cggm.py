"""Classifier-guided gradient modulation."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp
from mmsearch.methods._base import unimodal_heads, unimodal_losses, with_unimodal_heads


def balance(delta: Tensor) -> Tensor:
    """B_u = (ΣΔ - Δ_u)/(ΣΔ + 1e-8) within [0, 2]; Δ `[M]`, the gain of each classifier since the step before."""
    return ((delta.sum() - delta) / (delta.sum() + 1e-8)).clamp(0, 2)


def direction_loss(B: Tensor, cos: Tensor) -> Tensor:
    """L_gm = (Σ|B_u| - Σ B_u·cos_u)/M; both `[M]`."""
    return (B.abs() - B * cos).sum() / len(B)


def head_gradient(z: Tensor, label: Tensor, h: Tensor) -> Tensor:
    """∂CE(z, y)/∂W of a linear layer W on h, `[C, D]`: mean_i (softmax(z_i) - onehot(y_i))·h_iᵀ."""
    return (F.softmax(z, 1) - F.one_hot(label, z.shape[1])).T @ h / len(h)


def alignment(g: Tensor, G: Tensor, G_part: Tensor) -> Tensor:
    """cos(g, G), with the gradient that it has through `G_part`, of which G is the mean over the parts of a batch."""
    with torch.enable_grad():
        whole = G.detach().requires_grad_()
        cos = F.cosine_similarity(g.flatten(), whole.flatten(), dim=0)
        (slope,) = torch.autograd.grad(cos, whole)
    through = (slope * G_part).sum()
    return cos.detach() + through - through.detach()


@dataclasses.dataclass
class CGGM(Method):
    """CGGM: classifiers on the encoders say who learns fast; size and direction of the gradients follow.

    A linear classifier g_u on sg(h_u) per modality, trained along, never moves its encoder. From its accuracy in
    every step, Δ_u = acc_u(t) - acc_u(t-1) and B_u = (ΣΔ - Δ_u)/(ΣΔ + 1e-8); the encoder's gradients are scaled by
    ρ·B_u. In the next step λ·L_gm joins the loss, L_gm = (Σ|B_u| - Σ B_u·cos(∇W_{g_u}, ∇W_u))/M: the gradient of
    u's block W_u of the joint head is drawn towards that of the classifier, which counts as a constant. The first
    step of all changes nothing. For a linear head on concatenated or summed features ∇W_u = mean_i (p_i - y_i)·h_uᵀ;
    that is taken for any fusion.

    ΣΔ may vanish or be negative, hence B is held within [0, 2], this project's choice. The released code takes the
    cosines between weights in place of gradients, clips gradients to 0.8 and gives the classifiers a learning
    rate of their own; here cosines are the paper's and the optimiser is the trial's.

    Source: Classifier-guided Gradient Modulation for Enhanced Multimodal Learning (NeurIPS 2024).
    """

    name: ClassVar[str] = "cggm"
    summary: ClassVar[str] = (
        "scales and directs the encoders' gradients by the progress of classifiers on their features"
    )
    paper: ClassVar[str] = "Classifier-guided Gradient Modulation for Enhanced Multimodal Learning (NeurIPS 2024)"
    formula: ClassVar[str] = (
        "Δ_u = acc_u(t) - acc_u(t-1);  B_u = (ΣΔ - Δ_u)/(ΣΔ + 1e-8) in [0, 2];  ∇θ_u ← ρ·B_u·∇θ_u;  "
        "L = L_mm + λ·L_gm,  L_gm = (Σ_u |B_u| - Σ_u B_u·cos(∇W_{g_u}, ∇W_u))/M"
    )
    no_op: ClassVar[NoOp] = NoOp(None, reason="the coefficients B_u vary under every ρ")
    dominance: ClassVar[Dominance] = Dominance("accuracy", "high")

    rho: float = knob(1.3, "scale ρ of the modulation", low=0.5, high=2.0)
    lam: float = knob(0.2, "weight λ of the direction loss", low=0.01, high=1.0, log=True)
    apply_to: str = knob("grad", "scale the encoder's gradient or its learning rate", choices=("grad", "lr"))

    def __post_init__(self) -> None:
        self._accuracy: dict[str, Tensor] = {}
        self._B: dict[str, Tensor] = {}
        self._g: dict[str, Tensor] = {}

    def kind(self, ctx: Context) -> str:
        """The direction loss comes with the third step."""
        return "directed" if self._B else ""

    def build(self, model: Any) -> None:
        """Adds the classifiers g_u."""
        unimodal_heads(model)

    def predict(self, model: Any, out: Output) -> Output:
        """Joint logits of the fusion, unimodal logits of the classifiers."""
        return with_unimodal_heads(model, out)

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """L_mm + λ·L_gm, and the classifiers' own losses."""
        still = dataclasses.replace(out, features={u: h.detach() for u, h in out.features.items()})
        L = F.cross_entropy(out.logits, batch.label)
        L = L + sum(unimodal_losses(self.predict(ctx.model, still), batch).values())
        return L + self.lam * self._direction_loss(ctx, out, batch) if self._B else L

    def _direction_loss(self, ctx: Context, out: Output, part: Batch) -> Tensor:
        whole, batch = ctx.whole(out.features, part)
        cos = []
        for u, g in self._g.items():
            G = head_gradient(whole.logits, batch.label, whole.features[u])
            cos.append(alignment(g.to(G), G, head_gradient(out.logits, part.label, out.features[u])))
            ctx.log("cosine", cos[-1].detach(), u)
        B = torch.stack([B_u.to(cos[0]) for B_u in self._B.values()])
        return direction_loss(B, torch.stack(cos))

    @torch.no_grad()
    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Measures the classifiers and scales the gradients of every encoder."""
        if len(ctx.modalities) < 2:
            return
        before, self._accuracy = self._accuracy, {}
        for u, z_u in self.predict(ctx.model, out).unimodal.items():
            there = batch.present[u]
            accuracy = ((z_u.argmax(1) == batch.label) & there).sum() / there.sum().clamp(min=1)
            if u in before:
                accuracy = torch.where(there.any(), accuracy, before[u].to(accuracy))
            self._accuracy[u] = accuracy
            self._g[u] = head_gradient(z_u, batch.label, out.features[u])
            ctx.log("accuracy", accuracy, u)
        if not before:
            return
        delta = torch.stack([a - before[u].to(a) for u, a in self._accuracy.items()])
        self._B = dict(zip(self._accuracy, balance(delta), strict=True))
        for u, B_u in self._B.items():
            ctx.log("B", B_u, u)
            ctx.scale(u, self.rho * B_u, apply_to=self.apply_to)

    def state_dict(self) -> dict[str, Any]:
        """The classifiers' last accuracies and gradients, and the last B."""
        return {"accuracy": dict(self._accuracy), "B": dict(self._B), "g": dict(self._g)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._accuracy, self._B, self._g = dict(state["accuracy"]), dict(state["B"]), dict(state["g"])
