"""Concatenation and one linear layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmsearch.fusion import Fusion, Head


class ConcatHead(Head):
    """z = W·[h_1; …; h_M] + b with W = [W_1 | … | W_M]; z_u = W_u·h_u + b/M."""

    def __init__(self, widths: dict[str, int], n_classes: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.linear = nn.Linear(sum(widths.values()), n_classes)

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        some = next(iter(features.values()))
        blocks = [features.get(u, some.new_zeros(len(some), d)) for u, d in self.widths.items()]
        return self.linear(torch.cat(blocks, dim=1))

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """z_u `[B, C]`."""
        W = dict(zip(self.widths, self.linear.weight.split(list(self.widths.values()), dim=1), strict=True))
        share = self.linear.bias / len(self.widths)
        return {u: h @ W[u].T + share for u, h in features.items()}


@dataclasses.dataclass
class Concat(Fusion):
    """One linear layer on the concatenated features; decomposable."""

    name: ClassVar[str] = "concat"
    summary: ClassVar[str] = "one linear layer on the concatenated features"
    formula: ClassVar[str] = "z = W·[h_1; …; h_M] + b"
    decomposable: ClassVar[bool] = True

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return ConcatHead(widths, n_classes)
