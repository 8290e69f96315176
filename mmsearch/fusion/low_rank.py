"""Low-rank multimodal fusion: a product of all features whose weight tensor has a low rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._base import filled
from mmsearch.knobs import knob


class LowRankHead(Head):
    """z = Σ_k w_k ⊙_u ([1; h_u]ᵀ·F_u^(k)) + b, with F_u `[r, 1 + D_u, C]`.

    The rows of the appended one start at 1, so that the product starts near a sum however many modalities it has.
    """

    def __init__(self, widths: dict[str, int], n_classes: int, rank: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.factors = nn.ParameterDict()
        for u, d in widths.items():
            factor = torch.empty(rank, 1 + d, n_classes).uniform_(-(d**-0.5), d**-0.5)
            factor[:, 0] = 1.0
            self.factors[u] = nn.Parameter(factor)
        self.weight = nn.Parameter(torch.empty(rank).normal_(std=rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        product: Tensor | float = 1.0
        for u, h in filled(features, self.widths).items():
            product = product * torch.einsum("bd,rdc->brc", F.pad(h, (1, 0), value=1.0), self.factors[u])
        return torch.einsum("r,brc->bc", self.weight, product) + self.bias


@dataclasses.dataclass
class LowRank(Fusion):
    """LMF: the outer product of all features (each with a one appended) against a weight tensor of rank r.

    The product is never formed; its size grows with the number of modalities only as the sum of their widths.

    Source: Efficient Low-rank Multimodal Fusion with Modality-Specific Factors (ACL 2018).
    """

    name: ClassVar[str] = "low_rank"
    summary: ClassVar[str] = "products of all features under a weight tensor of low rank"
    paper: ClassVar[str] = "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors (ACL 2018)"
    formula: ClassVar[str] = "z = Σ_{k≤r} w_k ⊙_u ([1; h_u]ᵀ·F_u^(k)) + b"

    rank: int = knob(4, "rank r of the weight tensor", low=1, high=16, log=True)

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return LowRankHead(widths, n_classes, self.rank)
