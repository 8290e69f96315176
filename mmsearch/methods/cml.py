"""Calibrating multimodal learning: confidence must not rise when a modality is taken away."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.fusion import Fusion
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp


def chain(unimodal: dict[str, Tensor], order: Sequence[str]) -> list[Tensor]:
    """z(S_0), …, z(S_{M-1}), each `[B, C]`: S_0 is every modality, S_k lacks the first k of `order`."""
    z = torch.stack([unimodal[u] for u in reversed(order)]).cumsum(0)
    return list(z.flip(0))


def confidence(z: Tensor) -> Tensor:
    """conf = max_c softmax(z)_c, `[B]`."""
    return F.softmax(z, dim=1).amax(1)


def chain_losses(out: Output, batch: Batch, order: Sequence[str]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(1/M)·Σ_k CE(z(S_k), y), Σ_k mean_i max(0, conf_i(S_k) - conf_i(S_{k-1})), and what each removal costs.

    A clip counts in CE(z(S_k)) if it has a modality of S_k, and in the hinge if it has the removed one too.
    """
    L, above = F.cross_entropy(out.logits, batch.label), confidence(out.logits)
    hinge, drops = torch.zeros_like(L), {}
    for k, z in enumerate(chain(out.unimodal, order)[1:], start=1):
        u = order[k - 1]
        left = torch.stack([batch.present[v] for v in order[k:]]).any(0)
        conf = confidence(z)
        rise = (conf - above) * (left & batch.present[u])
        L = L + (F.cross_entropy(z, batch.label, reduction="none") * left).mean()
        hinge = hinge + F.relu(rise).mean()
        drops[u] = -rise.detach().mean()
        above = conf
    return L / len(order), hinge, drops


@dataclasses.dataclass
class CML(Method):
    """CML: train every subset of a random chain, and penalise a subset that is surer than its superset.

    Each step draws an order and removes one modality at a time, U = S_0 ⊃ S_1 ⊃ … ⊃ S_{M-1}; the logits of a
    subset are those of the whole less the z_u (with its share of the bias) of what was removed.
    L = (1/M)·Σ_k CE(z(S_k), y) + λ·Σ_k mean_i max(0, conf_i(S_k) - conf_i(S_{k-1})).

    The hinge is per clip, as recalled from the paper; BalanceBenchmark, the only code read, takes it of the sum over
    the batch, where clips cancel.

    Source: Calibrating Multimodal Learning (ICML 2023); the form of the loss from BalanceBenchmark.
    """

    name: ClassVar[str] = "cml"
    summary: ClassVar[str] = "trains subsets of the modalities; a subset must not be surer than its superset"
    paper: ClassVar[str] = "Calibrating Multimodal Learning (ICML 2023)"
    formula: ClassVar[str] = (
        "U = S_0 ⊃ S_1 ⊃ … in random order;  z(S) = Σ_{u∈S} z_u;  "
        "L = (1/M)·Σ_k CE(z(S_k), y) + λ·Σ_k mean_i max(0, conf_i(S_k) - conf_i(S_{k-1}))"
    )
    no_op: ClassVar[NoOp] = NoOp(None, reason="without the hinge the cross-entropy of every subset remains")
    dominance: ClassVar[Dominance] = Dominance("drop", "high")

    lam: float = knob(0.1, "weight λ of the hinge", low=1e-3, high=1.0, log=True)

    def refuses(self, fusion: Fusion, modalities: Sequence[str]) -> str:
        """Subsets need logits that add up."""
        return (
            "" if fusion.decomposable else "the logits of a subset need unimodal logits that add up to the joint ones"
        )

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """The mean loss of the subsets and the hinge along the chain."""
        generator = ctx.generator()
        order = torch.randperm(len(out.unimodal), generator=generator, device=generator.device).tolist()
        L, hinge, drops = chain_losses(out, batch, [list(out.unimodal)[i] for i in order])
        ctx.log("hinge", hinge.detach())
        for u, drop in drops.items():
            ctx.log("drop", drop, u)
        return L + self.lam * hinge
