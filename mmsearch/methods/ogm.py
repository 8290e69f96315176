"""On-the-fly Gradient Modulation, with and without generalisation enhancement."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp
from mmsearch.methods._base import true_class_score


@dataclasses.dataclass
class OGM(Method):
    """OGM and OGM-GE: throttle the encoder whose own logits already score the truth better.

    For a modality with ρ_u > 1 every gradient of its encoder is scaled by k_u = 1 - tanh(α·ρ_u); the others
    keep k_u = 1. The argument is ρ, not ρ - 1, so the map jumps at ρ = 1. A tie modulates nobody. GE adds to
    both encoders Gaussian noise with the spread of the unscaled gradient, one standard deviation a tensor.

    With more than two modalities the published rules disagree; here ρ_u compares s_u with the mean of the
    others, which is the paper's for two (`ratio_rule: mean_others`); `to_min` compares with the weakest.

    Adam-type optimisers nearly cancel a factor on the gradient; `apply_to: lr` puts it on the encoder's learning
    rate instead.

    Source: Balanced Multimodal Learning via On-the-fly Gradient Modulation (CVPR 2022), equations 8 to 11.
    """

    name: ClassVar[str] = "ogm"
    summary: ClassVar[str] = "throttles the gradient of the leading encoder; GE adds noise of the gradient's own spread"
    paper: ClassVar[str] = "Balanced Multimodal Learning via On-the-fly Gradient Modulation (CVPR 2022)"
    formula: ClassVar[str] = (
        "s_u = Σ_i softmax(z_u)_{i,y_i};  ρ_u = s_u / mean_{j≠u} s_j;  k_u = 1 - tanh(α·ρ_u) if ρ_u > 1 else 1;  "
        "g ← k_u·g (+ ε, ε ~ N(0, std(g)²) with GE)"
    )
    no_op: ClassVar[NoOp] = NoOp("joint", {"end": 0.0})
    dominance: ClassVar[Dominance] = Dominance("k", "low")

    alpha: float = knob(0.3, "strength of the modulation", low=0.05, high=3.0, log=True)
    ge: bool = knob(True, "generalisation enhancement: add noise to both encoders' gradients")
    start: float = knob(0.0, "where modulation starts, share of training", low=0.0, high=0.2)
    end: float = knob(0.5, "where modulation ends, share of training", low=0.3, high=1.0, also=(0.0,))
    tensors: str = knob(
        "matrices", "modulated tensors: all of two or more dimensions, or convolutions", choices=("matrices", "conv")
    )

    ratio_rule: str = knob(
        "mean_others",
        "with more than two modalities, what a score is compared with",
        choices=("mean_others", "to_min"),
        search=False,
    )
    apply_to: str = knob("grad", "scale the encoder's gradient or its learning rate", choices=("grad", "lr"))

    def active(self, progress: float) -> bool:
        """Whether this moment of training is inside the window."""
        return self.start <= progress < self.end

    def coefficients(self, scores: dict[str, Tensor]) -> dict[str, Tensor]:
        """k_u per modality from the scores s_u (scalars)."""
        if len(scores) < 2:
            return {u: torch.ones_like(s) for u, s in scores.items()}
        total, least = sum(scores.values()), torch.stack(list(scores.values())).min()
        k = {}
        for u, s_u in scores.items():
            rho = s_u / (least if self.ratio_rule == "to_min" else (total - s_u) / (len(scores) - 1))
            k[u] = torch.where(rho > 1, 1 - torch.tanh(self.alpha * rho), torch.ones_like(rho))
        return k

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Scales and, with GE, perturbs the gradients of every encoder."""
        if not self.active(ctx.progress) or len(ctx.modalities) < 2:
            return
        scores = {u: true_class_score(z, batch.label) for u, z in out.unimodal.items()}
        generator = ctx.generator() if self.ge else None
        for u, k in self.coefficients(scores).items():
            ctx.log("k", k, u)
            grads = [p.grad for p in ctx.parameters(u) if p.grad is not None and self._modulated(p)]
            noise = [] if generator is None else [gaussian(g, generator) for g in grads]
            ctx.scale(u, k, apply_to=self.apply_to, where=self._modulated)
            if noise:
                torch._foreach_add_(grads, noise)

    def _modulated(self, p: Tensor) -> bool:
        return p.ndim >= (4 if self.tensors == "conv" else 2)


def gaussian(g: Tensor, generator: torch.Generator) -> Tensor:
    """ε ~ N(0, std(g)²) of the shape of g."""
    return torch.empty_like(g).normal_(generator=generator) * (g.std() + 1e-8)
