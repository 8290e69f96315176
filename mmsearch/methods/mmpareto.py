"""MMPareto: Pareto integration of multimodal and unimodal gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.fusion import Fusion
from mmsearch.knobs import knob
from mmsearch.methods import Context, Method, NoOp
from mmsearch.methods._base import unimodal_heads, unimodal_losses, with_unimodal_heads


def products(g_m: Sequence[Tensor], g_u: Sequence[Tensor]) -> Tensor:
    """|g_m|², |g_u|² and g_m·g_u of every tensor, float64 `[3, T]`."""
    pairs = []
    for a, b in zip(g_m, g_u, strict=True):
        as_stored = sorted(range(a.ndim), key=a.stride, reverse=True)
        pairs.append((a.permute(as_stored).flatten(), b.permute(as_stored).flatten()))
    return torch.stack([torch.stack([a @ a, b @ b, a @ b]) for a, b in pairs], dim=1).double()


def alpha_m(m: Tensor, u: Tensor, dot: Tensor) -> tuple[Tensor, Tensor]:
    """α_m and cos β from m = |g_m|², u = |g_u|² and the product of the two.

    ½ where they do not conflict (cos β ≥ 0, or one of them is zero); else the least norm of α_m·g_m + α_u·g_u with
    α_m + α_u = 1: α_m = (|g_u|² - g_m·g_u) / (|g_m|² + |g_u|² - 2·g_m·g_u), which lies inside (0, 1).
    """
    cos = dot / (m * u).sqrt().clamp(min=torch.finfo(dot.dtype).tiny)
    conflict = (u - dot) / (m + u - 2 * dot)
    return torch.where(dot < 0, conflict, torch.full_like(dot, 0.5)), cos


def magnitude(alpha: Tensor, m: Tensor, u: Tensor, dot: Tensor) -> Tensor:
    """λ = max(1, |g_m + g_u| / |h|); 1 where the gradients are opposite and nothing but rounding is left of h."""
    h = 4 * (alpha**2 * m + 2 * alpha * (1 - alpha) * dot + (1 - alpha) ** 2 * u)
    n = m + u + 2 * dot
    return torch.where(h > 1e-12 * (m + u), n / h, torch.ones_like(n)).clamp(min=1).sqrt()


def integrated(
    g_m: list[Tensor], g_u: list[Tensor], variant: str, gamma: float = 1.0
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """The integrated gradient of an encoder, tensor by tensor; it takes the place of `g_m`.

    Returns:
        γ·h, h = 2·α_m·g_m + 2·α_u·g_u, times λ (`official`: times each tensor's own λ); the encoder's λ; α_m; cos β.
    """
    each = products(g_m, g_u)
    alpha, cos = alpha_m(*each.sum(1))
    scale = magnitude(alpha, *each.sum(1))
    factors = magnitude(alpha, *each) if variant == "official" else scale.expand(each.shape[1])
    torch._foreach_lerp_(g_m, g_u, float(1 - alpha))
    torch._foreach_mul_(g_m, list((2 * gamma * factors).to(g_m[0])))
    return g_m, scale, alpha, cos


@dataclasses.dataclass
class MMPareto(Method):
    """MMPareto: an encoder's multimodal and unimodal gradients are combined without conflict, then made longer.

    Encoder u receives g_m = ∇L_mm and g_u = ∇L_u, each flat over all its parameters. Without conflict
    (cos β ≥ 0) α_m = α_u = ½; else α is the min-norm point between them. h = 2·α_m·g_m + 2·α_u·g_u, and the final
    gradient is γ·λ·h with λ = max(1, |g_m + g_u| / |h|): never shorter than the plain sum, for the noise of SGD.
    The heads get the plain sum. γ acts without conflict too; it is in part a learning rate of the encoders.

    The released code takes λ tensor by tensor, which turns the gradient (`variant: official`). Adam-type optimisers
    nearly cancel γ·λ on the gradient; `apply_to: lr` puts γ and the encoder's λ on its learning rate instead.

    Source: MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance (ICML 2024).
    """

    name: ClassVar[str] = "mmpareto"
    summary: ClassVar[str] = "combines multimodal and unimodal gradients of an encoder without conflict"
    paper: ClassVar[str] = "MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance (ICML 2024)"
    formula: ClassVar[str] = (
        "α_m = (|g_u|² - g_m·g_u) / |g_m - g_u|² if g_m·g_u < 0 else ½;  h = 2·α_m·g_m + 2·(1 - α_m)·g_u;  "
        "g ← γ·max(1, |g_m + g_u| / |h|)·h"
    )
    no_op: ClassVar[NoOp] = NoOp(None, reason="it is uniform only at γ = 1 and as long as no gradients conflict")

    gamma: float = knob(1.5, "rescaling γ of every encoder's gradient", low=1.0, high=3.0, log=True)
    variant: str = knob("paper", "λ of the whole encoder or of each tensor", choices=("paper", "official"))
    heads: str = knob(
        "separate", "unimodal logits: of heads of their own, or of the joint head", choices=("separate", "slices")
    )
    apply_to: str = knob("grad", "scale the encoder's gradient or its learning rate", choices=("grad", "lr"))

    def refuses(self, fusion: Fusion, modalities: Sequence[str]) -> str:
        """Two tasks an encoder; slices of a head that can be cut."""
        if fusion.mixes:
            return "an encoder that speaks to others has a part in their losses; it combines two losses an encoder"
        if self.heads == "slices" and not fusion.decomposable:
            return "its head cannot be cut into unimodal ones; choose heads: separate"
        return ""

    def build(self, model: Any) -> None:
        """Adds the heads g_u."""
        if self.heads == "separate":
            unimodal_heads(model)

    def predict(self, model: Any, out: Output) -> Output:
        """Joint logits of the fusion, unimodal logits of the heads."""
        return with_unimodal_heads(model, out) if self.heads == "separate" else out

    def step(self, ctx: Context, batch: Batch) -> Tensor:
        """Two backward passes; encoders get the integrated gradient, heads the sum."""

        def losses(out: Output, part: Batch) -> dict[str, Tensor]:
            L_u = unimodal_losses(self.predict(ctx.model, out), part)
            return {"m": F.cross_entropy(out.logits, part.label), "u": torch.stack(list(L_u.values())).sum()}

        heads = ["head", *(["unimodal_heads"] if self.heads == "separate" else [])]
        _, L, g = ctx.gradients(batch, losses, of=[*ctx.modalities, *heads])
        ctx.assign({k: [a + b for a, b in zip(g["m"][k], g["u"][k], strict=True)] for k in heads})
        for u in ctx.modalities:
            h, scale, alpha, cos = integrated(g["m"][u], g["u"][u], self.variant, self.gamma)
            ctx.assign({u: h})
            if self.apply_to == "lr":
                factor = self.gamma * (scale if self.variant == "paper" else torch.ones_like(scale))
                ctx.scale(u, 1 / factor)
                ctx.scale(u, factor, apply_to="lr")
            ctx.log("cos", cos, u)
            ctx.log("alpha_m", alpha, u)
            ctx.log("lambda", scale, u)
        ctx.update()
        return L["m"] + L["u"]
