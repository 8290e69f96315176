"""A weighted mean of the modalities' own logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion.sum import SumHead
from mmsearch.knobs import knob


def negative_entropy(z: Tensor) -> Tensor:
    """-H(softmax(z)) over the last dimension."""
    return (F.softmax(z, -1) * F.log_softmax(z, -1)).sum(-1)


def simplex(score: Tensor, here: Tensor) -> Tensor:
    """w_u ∝ exp(score_u) over the modalities that are here, both `[M, B]`; 0 for the others."""
    return F.softmax(score.masked_fill(~here, torch.finfo(score.dtype).min), dim=0) * here


class LateLogitsHead(SumHead):
    """z = Σ_u w_u·z_u, z_u = W_u·h_u + b_u."""

    def __init__(self, widths: dict[str, int], n_classes: int, weights: str, tau: float) -> None:
        super().__init__(widths, n_classes)
        self.weights, self.tau = weights, tau
        if weights == "learned":
            self.score = nn.Parameter(torch.zeros(len(widths)))

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`; zero for a clip without any modality."""
        z = torch.stack(list(self.unimodal(features).values()))
        z = z if z.dtype == torch.float64 else z.float()
        here = torch.stack([(h != 0).any(1) for h in features.values()])
        return (simplex(self._score(z, list(features)), here)[..., None] * z).sum(0)

    def _score(self, z: Tensor, names: list[str]) -> Tensor:
        if self.weights == "learned":
            places = [list(self.widths).index(u) for u in names]
            return self.score[places, None].to(z).expand(z.shape[:2])
        if self.weights == "entropy":
            return negative_entropy(z.detach())
        if self.weights == "energy":
            return torch.logsumexp(z.detach(), 2) / self.tau
        return torch.zeros_like(z[..., 0])


@dataclasses.dataclass
class LateLogits(Fusion):
    """Every modality has its own linear head; the joint logits are their weighted mean, w on the simplex.

    - fixed: w_u = 1/M;
    - learned: w = softmax(a), a a parameter that starts at zero;
    - entropy: per clip w_u ∝ exp(-H(softmax(z_u))), as MLA weighs at test time;
    - energy: per clip w_u ∝ exp(logsumexp(z_u)/τ). QMF takes c_u = logsumexp(z_u)/τ itself as the weight; here it is
      put on the simplex.

    No gradient flows through the weights of a clip. A modality that a clip lacks is left out and the others' weights
    add up to 1, so that the logits are no sum of functions of one modality each.

    Source: the common form; entropy as in Multimodal Representation Learning by Alternating Unimodal Adaptation
    (CVPR 2024), energy after Provable Dynamic Fusion for Low-Quality Multimodal Data (ICML 2023).
    """

    name: ClassVar[str] = "late_logits"
    summary: ClassVar[str] = "a weighted mean of the modalities' own logits: equal, learned or confidence weights"
    paper: ClassVar[str] = (
        "the common form; entropy weights as in MLA (CVPR 2024), "
        "energy after Provable Dynamic Fusion for Low-Quality Multimodal Data (ICML 2023)"
    )
    formula: ClassVar[str] = (
        "z = Σ_u w_u·z_u, z_u = W_u·h_u + b_u;  w_u = 1/M | softmax(a)_u | ∝ exp(-H(softmax(z_u))) | "
        "∝ exp(logsumexp(z_u)/τ)"
    )

    weights: str = knob("learned", "where the weights come from", choices=("fixed", "learned", "entropy", "energy"))
    tau: float = knob(10.0, "temperature of the energy", low=1.0, high=30.0, log=True, when={"weights": "energy"})

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return LateLogitsHead(widths, n_classes, self.weights, self.tau)
