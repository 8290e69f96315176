"""Multimodal Learning with Alternating unimodal adaptation."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Method, NoOp
from mmsearch.methods._base import to_one_width


class SharedHead(nn.Module):
    """One linear head W for all modalities; encoders of other widths get a linear projector first."""

    def __init__(self, widths: dict[str, int], n_classes: int) -> None:
        super().__init__()
        self.projectors = to_one_width(widths)
        self.linear = nn.Linear(max(widths.values()), n_classes)

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """z_u = W·h_u + b per modality, `[B, C]`."""
        return {u: self.linear(self.projectors[u](h)) for u, h in features.items()}

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """The mean of the unimodal logits, `[B, C]`."""
        return torch.stack(list(self.unimodal(features).values())).mean(0)


def entropy_weights(unimodal: dict[str, Tensor]) -> dict[str, Tensor]:
    """w_u ∝ exp(max_j e_j - e_u) per clip, `[B]`, e_u the entropy of softmax(z_u); z_u `[B, C]`."""
    e = torch.stack([-(F.softmax(z, 1) * F.log_softmax(z, 1)).sum(1) for z in unimodal.values()])
    w = F.softmax(e.max(0).values - e, dim=0)
    return dict(zip(unimodal, w, strict=True))


def project(P: Tensor, r: Tensor, alpha_t: float, normalise: bool) -> Tensor:
    """P ← P - k·kᵀ/(α_t + r·k), k = P·rᵀ; P `[d, d]` symmetric, r `[d]` the mean feature of the batch."""
    k = P @ r
    P = P - torch.outer(k, k) / (alpha_t + r @ k)
    return P / P.norm() if normalise else P


@dataclasses.dataclass
class MLA(Method):
    """MLA: modalities take turns on one shared head, whose gradient is kept off the others' directions.

    Per batch and modality, in fixed order: L_u = CE(W·h_u + b, y), backward (it reaches encoder u and the
    head only), ∇W ← ∇W·Pᵀ, one optimiser step. P follows the mean features seen so far (recursive least
    squares); the very first update leaves the gradient alone. At test time the unimodal logits are weighted
    per clip by their entropy, or by fixed equal weights.

    The released code never applies the projection and takes entropies over the batch; this is the paper's form.

    Source: Multimodal Representation Learning by Alternating Unimodal Adaptation (CVPR 2024), equations 4 to 9.
    """

    name: ClassVar[str] = "mla"
    summary: ClassVar[str] = "modalities alternate on a shared head with gradient projection; entropy-weighted fusion"
    paper: ClassVar[str] = "Multimodal Representation Learning by Alternating Unimodal Adaptation (CVPR 2024)"
    formula: ClassVar[str] = (
        "k = P·rᵀ;  P ← P - k·kᵀ/(α_t + r·k);  ∇W ← ∇W·Pᵀ;  α_t = α₀^(1 + j/J);  "
        "z = Σ_u w_u·z_u,  w_u ∝ exp(max_j e_j - e_u)"
    )
    no_op: ClassVar[NoOp] = NoOp(None, reason="another architecture: one head shared by all modalities")

    alpha0: float = knob(0.1, "base of the schedule α_t", low=0.01, high=1.0, log=True, when={"projection": True})
    projection: bool = knob(True, "project the head's gradient")
    normalise: bool = knob(True, "keep P at unit Frobenius norm", when={"projection": True})
    weighting: str = knob("entropy", "test-time weights of the modalities", choices=("entropy", "equal"))

    def __post_init__(self) -> None:
        self._P: Tensor | None = None
        self._updates = 0

    @property
    def own_fusion(self) -> bool:
        """The shared head is the method's own."""
        return True

    def build(self, model: Any) -> None:
        """Replaces the head by the shared one."""
        model.fusion = SharedHead(model.widths, model.n_classes)

    def predict(self, model: Any, out: Output) -> Output:
        """z = Σ_u w_u·z_u."""
        if self.weighting == "equal":
            return out
        w = entropy_weights(out.unimodal)
        z = torch.stack([w[u][:, None] * z_u for u, z_u in out.unimodal.items()]).sum(0)
        return dataclasses.replace(out, logits=z)

    def step(self, ctx: Context, batch: Batch) -> Tensor:
        """One optimiser step a modality."""
        total = torch.zeros((), device=batch.label.device)
        for u in ctx.modalities:
            here = batch.present[u]
            share = len(batch) / here.sum().clamp(min=1)

            def loss(out: Output, part: Batch, u: str = u, share: Tensor = share) -> Tensor:
                L_i = F.cross_entropy(out.unimodal[u], part.label, reduction="none")
                return (L_i * part.present[u]).mean() * share

            out, L_u = ctx.accumulate(batch, loss, mask=[u])
            total += L_u
            if self.projection:
                with torch.no_grad():
                    h = ctx.model.fusion.projectors[u](out.features[u])
                self._project_gradient(ctx, (h.float() * here[:, None]).sum(0) / here.sum().clamp(min=1))
            ctx.update([u, "head"])
        return total / len(ctx.modalities)

    def _project_gradient(self, ctx: Context, r: Tensor) -> None:
        W = ctx.model.fusion.linear.weight
        if self._P is None:
            self._P = torch.eye(r.shape[0], device=r.device)
        if self._updates > 0:
            alpha_t = self.alpha0 ** (1 + ctx.epoch_progress)
            self._P = project(self._P.to(r.device), r, alpha_t, self.normalise)
            W.grad = W.grad @ self._P.T.to(W.grad.dtype)
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """P and the number of updates."""
        return {"updates": self._updates} | ({} if self._P is None else {"P": self._P})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._P = state.get("P")
        self._updates = state["updates"]
