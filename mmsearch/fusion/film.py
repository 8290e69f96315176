"""Feature-wise linear modulation: one modality scales and shifts the features of the others."""

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


class FilmHead(Head):
    """[γ; β] = W_f·h_a + b_f; z = W_o·(γ ⊙ h_v + β) + b, for every pair (a, v).

    Args:
        widths: D_u.
        n_classes: C.
        pairs: (what conditions, what is conditioned), each a list of modalities whose features are concatenated.
    """

    def __init__(self, widths: dict[str, int], n_classes: int, pairs: Sequence[tuple[list[str], list[str]]]) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.pairs = list(pairs)
        sizes = [(sum(widths[u] for u in a), sum(widths[u] for u in v)) for a, v in pairs]
        self.film = nn.ModuleList(nn.Linear(d_a, 2 * d_v) for d_a, d_v in sizes)
        self.out = nn.Linear(sum(d_v for _, d_v in sizes), n_classes)

    def modulated(self, features: dict[str, Tensor]) -> Tensor:
        """γ ⊙ h_v + β of every pair, side by side."""
        h = filled(features, self.widths)
        blocks = []
        for (a, v), film in zip(self.pairs, self.film, strict=True):
            gamma, beta = film(torch.cat([h[u] for u in a], dim=1)).chunk(2, dim=1)
            blocks.append(gamma * torch.cat([h[u] for u in v], dim=1) + beta)
        return torch.cat(blocks, dim=1)

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        return self.out(self.modulated(features))


@dataclasses.dataclass
class Film(Fusion):
    """FiLM: scale and shift of the other modalities' features are linear in the conditioning modality's.

    The source conditions vision on language; the balanced-learning papers condition one of two modalities on the
    other. With more than two, the conditioned feature is the concatenation of all others; in the symmetric form
    every modality is conditioned on the concatenation of the others, and one linear layer reads all of them.

    Source: FiLM: Visual Reasoning with a General Conditioning Layer (AAAI 2018); the symmetric form is that of
    MMCosine (ICASSP 2023).
    """

    name: ClassVar[str] = "film"
    summary: ClassVar[str] = "one modality scales and shifts the features of the others"
    paper: ClassVar[str] = "FiLM: Visual Reasoning with a General Conditioning Layer (AAAI 2018)"
    formula: ClassVar[str] = "[γ; β] = W_f·h_a + b_f;  z = W_o·(γ ⊙ h_v + β) + b"

    symmetric: bool = knob(False, "every modality conditions the others")
    conditioner: str = knob(
        "", "which modality conditions; empty: the first", choices=MODALITIES, when={"symmetric": False}
    )

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        if self.symmetric:
            return FilmHead(widths, n_classes, [([j for j in widths if j != u], [u]) for u in widths])
        a = self.conditioner or next(iter(widths))
        return FilmHead(widths, n_classes, [([a], [u for u in widths if u != a])])

    def refuses(self, modalities: Sequence[str], encoders: Mapping[str, Any]) -> str:
        """One modality has nothing to condition; the conditioning one must exist."""
        if len(modalities) < 2:
            return "one modality conditions another, and there is only one"
        if self.conditioner and self.conditioner not in modalities:
            return f"unknown modality {self.conditioner!r} as conditioner{nearest(self.conditioner, modalities)}"
        return ""
