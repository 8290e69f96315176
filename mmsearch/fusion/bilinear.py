"""Compact bilinear fusion: the outer product of the features, sketched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._base import filled
from mmsearch.knobs import knob


def count_sketch(x: Tensor, bins: Tensor, signs: Tensor, n: int) -> Tensor:
    """Ψ(x)_j = Σ_{i: bins_i = j} signs_i·x_i, `[B, n]`; x `[B, D]`, bins int64 `[D]` below n, signs ±1 `[D]`."""
    return x.new_zeros(len(x), n).index_add(1, bins, x * signs)


class BilinearHead(Head):
    """z = W·φ/‖φ‖ + b, φ = Ψ(⊗_u [h_u; 1]); the sketch of an outer product is the circular convolution of the sketches.

    Bins and signs are drawn once and are buffers. The bins of a modality are spread evenly, so that there are no
    two features in one as long as there are enough of them.
    """

    def __init__(self, widths: dict[str, int], n_classes: int, n: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.n = n
        for i, d in enumerate(widths.values()):
            bins = torch.randperm(math.ceil((d + 1) / n) * n)[: d + 1] % n
            self.register_buffer(f"bins_{i}", bins)
            self.register_buffer(f"signs_{i}", 2.0 * torch.randint(2, (d + 1,)) - 1)
        self.linear = nn.Linear(n, n_classes)

    def product(self, features: dict[str, Tensor]) -> Tensor:
        """φ = Ψ(⊗_u [h_u; 1]), `[B, n]`, in float32 at least."""
        spectrum: Tensor | float = 1.0
        for i, h in enumerate(filled(features, self.widths).values()):
            fine = h if h.dtype == torch.float64 else h.float()
            bins, signs = self.get_buffer(f"bins_{i}"), self.get_buffer(f"signs_{i}")
            spectrum = spectrum * torch.fft.rfft(count_sketch(F.pad(fine, (0, 1), value=1.0), bins, signs, self.n))
        return torch.fft.irfft(spectrum, n=self.n)

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        return self.linear(F.normalize(self.product(features), dim=1))


@dataclasses.dataclass
class Bilinear(Fusion):
    """Multimodal compact bilinear pooling: a linear layer on a count sketch of the outer product of all features.

    A one is appended to every feature, so that the product holds the features themselves beside their products. The
    exact layer has C·Π_u (1 + D_u) weights, this one C·n. As in the source the sketch is brought to norm 1, without
    which products of several features outgrow any learning rate; the signed square root that the source takes before
    is left out, for its slope is infinite at zero, where the empty bins are.

    Source: Multimodal Compact Bilinear Pooling for Visual Question Answering and Visual Grounding (EMNLP 2016).
    """

    name: ClassVar[str] = "bilinear"
    summary: ClassVar[str] = "one linear layer on a sketch of the outer product of the features"
    paper: ClassVar[str] = (
        "Multimodal Compact Bilinear Pooling for Visual Question Answering and Visual Grounding (EMNLP 2016)"
    )
    formula: ClassVar[str] = "φ = Ψ(⊗_u [h_u; 1]);  z = W·φ/‖φ‖ + b;  Ψ(x ⊗ y) = FFT⁻¹(FFT(Ψ_x(x)) ⊙ FFT(Ψ_y(y)))"

    n: int = knob(8192, "length of the sketch", low=512, high=16384, log=True, search=False)

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return BilinearHead(widths, n_classes, self.n)
