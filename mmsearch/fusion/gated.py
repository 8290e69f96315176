"""Gated fusion: one modality opens and closes the features of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmsearch.errors import nearest
from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._base import filled
from mmsearch.knobs import MODALITIES, knob


class GatedHead(Head):
    """z = W_o·(σ(W_a·h_a + b_a) ⊙ (W_v·h_v + b_v)) + b; all projections are as wide as the widest feature.

    Args:
        widths: D_u.
        n_classes: C.
        streams: lists of modalities whose features are concatenated and projected; the first one gates the second.
        symmetric: every stream is gated by the mean gate of all others.
    """

    def __init__(self, widths: dict[str, int], n_classes: int, streams: list[list[str]], symmetric: bool) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.streams = streams
        self.symmetric = symmetric
        d = max(widths.values())
        self.project = nn.ModuleList(nn.Linear(sum(widths[u] for u in s), d) for s in streams)
        self.out = nn.Linear(d * len(streams) if symmetric else d, n_classes)

    def gated(self, features: dict[str, Tensor]) -> Tensor:
        """What the gates let through, `[B, d]`, or side by side for all streams."""
        h = filled(features, self.widths)
        x = [p(torch.cat([h[u] for u in s], dim=1)) for s, p in zip(self.streams, self.project, strict=True)]
        if not self.symmetric:
            return torch.sigmoid(x[0]) * x[1]
        gates = [torch.sigmoid(x_u) for x_u in x]
        others = [torch.stack(gates[:i] + gates[i + 1 :]).mean(0) for i in range(len(x))]
        return torch.cat([g * x_u for g, x_u in zip(others, x, strict=True)], dim=1)

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        return self.out(self.gated(features))


@dataclasses.dataclass
class Gated(Fusion):
    """A sigmoid of one modality's projection multiplies the projection of the other.

    With more than two modalities, what is gated is a projection of the concatenation of all others; in the
    symmetric form the projection of every modality is multiplied by the mean gate of the others, and one linear
    layer reads all of them. A projection serves as gate and as value alike there.

    Source: Efficient Large-Scale Multi-Modal Classification (AAAI 2018), as the balanced-learning papers use it;
    the symmetric form is that of MMCosine (ICASSP 2023).
    """

    name: ClassVar[str] = "gated"
    summary: ClassVar[str] = "one modality gates the features of the others"
    paper: ClassVar[str] = "Efficient Large-Scale Multi-Modal Classification (AAAI 2018)"
    formula: ClassVar[str] = "z = W_o·(σ(W_a·h_a + b_a) ⊙ (W_v·h_v + b_v)) + b"

    symmetric: bool = knob(False, "every modality gates the others")
    gate: str = knob("", "which modality is the gate; empty: the first", choices=MODALITIES, when={"symmetric": False})

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        if self.symmetric:
            return GatedHead(widths, n_classes, [[u] for u in widths], symmetric=True)
        a = self.gate or next(iter(widths))
        return GatedHead(widths, n_classes, [[a], [u for u in widths if u != a]], symmetric=False)

    def refuses(self, modalities: Sequence[str], encoders: Mapping[str, Any]) -> str:
        """One modality has nothing to gate; the gate must exist."""
        if len(modalities) < 2:
            return "one modality gates another, and there is only one"
        if self.gate and self.gate not in modalities:
            return f"unknown modality {self.gate!r} as gate{nearest(self.gate, modalities)}"
        return ""
