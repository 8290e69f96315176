"""The sum of one linear layer per modality."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmsearch.fusion import Fusion, Head


class SumHead(Head):
    """z = Σ_u z_u, z_u = W_u·h_u + b_u."""

    def __init__(self, widths: dict[str, int], n_classes: int) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({u: nn.Linear(d, n_classes) for u, d in widths.items()})
        self.widths = dict(widths)

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`; an absent modality still adds its bias, as a zero feature does."""
        some = next(iter(features.values()))
        zero = {u: some.new_zeros(len(some), d) for u, d in self.widths.items() if u not in features}
        return torch.stack([self.linear[u](h) for u, h in {**zero, **features}.items()]).sum(0)

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """z_u `[B, C]`."""
        return {u: self.linear[u](h) for u, h in features.items()}


@dataclasses.dataclass
class Sum(Fusion):
    """The sum of per-modality logits; decomposable. Differs from concat in initialisation and bias only."""

    name: ClassVar[str] = "sum"
    summary: ClassVar[str] = "the sum of one linear layer per modality"
    formula: ClassVar[str] = "z = Σ_u (W_u·h_u + b_u)"
    decomposable: ClassVar[bool] = True

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return SumHead(widths, n_classes)
