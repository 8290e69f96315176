"""Learning the modality gap: from aligning the modalities to classifying with them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmsearch.batch import Batch, Output
from mmsearch.fusion.sum import SumHead
from mmsearch.knobs import knob
from mmsearch.methods import Context, Method, NoOp

FITTED = (2.04623704e-01, 3.35472727e-03, 1.22989557e-04, -2.92947416e-06, 2.23835486e-08, -5.39717505e-11)
"""Coefficients of κ_cls in the epoch, of 200."""

LEAST, MOST = 0.05, 0.95
"""Bounds of the learned κ_align, which starts at the upper one; the linear schedule runs between them."""


class MeanHead(SumHead):
    """z = Σ_u z_u / M, z_u = W_u·h_u + b_u."""

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        return super().forward(features) / len(self.widths)


def fitted(progress: float) -> float:
    """κ_cls of the fitted schedule at a share of training."""
    e = 200 * progress
    return min(sum(c * e**i for i, c in enumerate(FITTED)), 1.0)


def divergence(z_u: Tensor, z_v: Tensor, alignment: str) -> Tensor:
    """How far two predictions are apart, per clip, `[B]`; logits `[B, C]`.

    Args:
        z_u: of one modality.
        z_v: of another.
        alignment: `mixture`: (KL(m‖p) + KL(m‖q))/2, or `js`: (KL(p‖m) + KL(q‖m))/2, m = (p + q)/2.
    """
    log_p, log_q = F.log_softmax(z_u, dim=1), F.log_softmax(z_v, dim=1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    if alignment == "mixture":
        return (log_m.exp() * (log_m - (log_p + log_q) / 2)).sum(1)
    return (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1) / 2


def hessian_vector_product(loss: Tensor, v_loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The entries of H_loss·∇v_loss that belong to the first parameter; H and ∇ are over all of them."""
    g = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    v = torch.autograd.grad(v_loss, parameters, retain_graph=True, materialize_grads=True)
    product = torch.stack([(a * b).sum() for a, b in zip(g, v, strict=True)]).sum()
    return torch.autograd.grad(product, parameters[0])[0]


@dataclasses.dataclass
class LFM(Method):
    """LFM: first draw the modalities' predictions together, then, ever more, classify with their mean.

    L = 2·(κ_cls·CE(Σ_u z_u/M, y) + κ_align·A) with κ_cls + κ_align = 1, a linear head on every encoder and A the
    mean divergence of the predictions of all pairs of modalities, over the clips that have both. κ_cls rises with
    the epochs: along the polynomial that the authors fitted to what they had learned (`fitted`), in a line (`linear`,
    from 0.05 to 0.95, which is this project's own), or learned: from κ_align = 0.95, once an epoch
    κ_align ← clip(κ_align - η·G, 0.05, 0.95), where G is the mean entry, in the first parameter tensor, of the
    Hessian of κ_cls·CE + κ_align·A times ∇CE on eight held clips; η halves every tenth of the training.

    The paper describes A as contrastive matching, for which there was no formula at hand; `mixture` is the official
    code's, a Jensen-Shannon divergence with its arguments exchanged, `js` the true one. The official code selects on
    test. With one modality it is plain joint training.

    Source: Facilitating Multimodal Classification via Dynamically Learning Modality Gap (NeurIPS 2024).
    """

    name: ClassVar[str] = "lfm"
    summary: ClassVar[str] = "from aligning the modalities' predictions to classifying with their mean, by a schedule"
    paper: ClassVar[str] = "Facilitating Multimodal Classification via Dynamically Learning Modality Gap (NeurIPS 2024)"
    formula: ClassVar[str] = (
        "L = 2·(κ_cls·CE(Σ_u z_u/M, y) + κ_align·A);  A = (KL(m‖p_u) + KL(m‖p_v))/2, m = (p_u + p_v)/2"
    )
    earliest: ClassVar[float] = 0.3
    no_op: ClassVar[NoOp] = NoOp(None, reason="another architecture: the mean of the unimodal logits, its loss doubled")

    schedule: str = knob("fitted", "how κ_cls rises", choices=("fitted", "learned", "linear"))
    eta: float = knob(1e-4, "learning rate η of κ_align", low=1e-5, high=1e-2, log=True, when={"schedule": "learned"})
    alignment: str = knob("mixture", "divergence from the mixture, or Jensen-Shannon", choices=("mixture", "js"))

    def __post_init__(self) -> None:
        self._learned = MOST

    @property
    def own_fusion(self) -> bool:
        """The mean of the unimodal logits is the method's own."""
        return True

    @property
    def needs_held(self) -> bool:
        """Where κ is learned."""
        return self.schedule == "learned"

    def build(self, model: Any) -> None:
        """Replaces the head."""
        model.fusion = MeanHead(model.widths, model.n_classes)

    def kappa_cls(self, epoch: int, epochs: int) -> float:
        """κ_cls of an epoch; κ_align is the rest."""
        if self.schedule == "learned":
            return 1 - self._learned
        progress = epoch / epochs
        return fitted(progress) if self.schedule == "fitted" else LEAST + (MOST - LEAST) * progress

    def kind(self, ctx: Context) -> str:
        """The first step of an epoch may learn κ."""
        return "kappa" if self._learns(ctx) else ""

    def step(self, ctx: Context, batch: Batch) -> Tensor:
        """The plain step, where κ is learned after an update of κ once an epoch."""
        if self._learns(ctx):
            self._learn(ctx)
        return super().step(ctx, batch)

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """2·(κ_cls·CE + κ_align·A)."""
        CE = F.cross_entropy(out.logits, batch.label)
        if len(ctx.modalities) < 2:
            return CE
        A = self._alignment(out, batch)
        kappa_cls = self.kappa_cls(ctx.epoch, ctx.epochs)
        ctx.log("kappa_cls", kappa_cls)
        ctx.log("alignment", A)
        return 2 * (kappa_cls * CE + (1 - kappa_cls) * A)

    def _alignment(self, out: Output, batch: Batch) -> Tensor:
        pairs = [
            (divergence(out.unimodal[u], out.unimodal[v], self.alignment) * batch.present[u] * batch.present[v]).mean()
            for u, v in itertools.combinations(out.unimodal, 2)
        ]
        return torch.stack(pairs).mean()

    def _learns(self, ctx: Context) -> bool:
        return self.schedule == "learned" and ctx.epoch_progress == 0 and len(ctx.modalities) > 1

    def _learn(self, ctx: Context) -> None:
        clips = ctx.sample("held", 8)
        with sdpa_kernel(SDPBackend.MATH):  # the others cannot be differentiated twice
            out = ctx.forward(clips, statistics=False)
            CE = F.cross_entropy(out.logits, clips.label)
            kappa_cls = 1 - self._learned
            L = kappa_cls * CE + (1 - kappa_cls) * self._alignment(out, clips)
            parameters = [p for g in (*ctx.modalities, "head") for p in ctx.parameters(g)]
            G = hessian_vector_product(L, CE, parameters).mean()
        eta = self.eta / 2 ** (10 * ctx.epoch // ctx.epochs)
        ctx.log("G", G)
        self._learned = min(max(self._learned - eta * float(G), LEAST), MOST)

    def state_dict(self) -> dict[str, Any]:
        """The learned κ_align."""
        return {"kappa_align": self._learned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._learned = state["kappa_align"]
