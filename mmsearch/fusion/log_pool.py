"""The logarithmic opinion pool."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._post_hoc import PostHocHead, fit_weights, log_product

LARGEST = 10.0
"""Of a weight: opinions that are right on every held clip would ask for ever more."""


class LogPoolHead(PostHocHead):
    """z = Σ_u w_u·log p_u."""

    w: Tensor

    def __init__(self, widths: dict[str, int], n_classes: int) -> None:
        super().__init__(widths, n_classes)
        self.register_buffer("w", torch.full((len(widths),), 1 / len(widths)))

    def fit_opinions(self, log_p: Tensor, here: Tensor, label: Tensor) -> None:
        """w = argmin NLL, w ≥ 0."""
        self.w.copy_(fit_weights(log_p, here, label, 0.0, LARGEST))

    def combine_opinions(self, log_p: Tensor, here: Tensor) -> Tensor:
        """The weighted sum of log-probabilities."""
        return log_product(log_p, here, self.w)


@dataclasses.dataclass
class LogPool(Fusion):
    """Trained as `sum`; then p ∝ Π_u p_u^{w_u} with w ≥ 0 of the least NLL on held-out clips.

    The weights need not add up to 1, as they do in the classical pool: their sum calibrates the pool, their ratio
    says whom to trust. w_u = 1 for all is the product rule. A modality that a clip lacks drops out of the product.

    Source: Combining Probability Distributions: A Critique and an Annotated Bibliography (Statistical Science 1986)
    for the pool (recalled); fitting w by NLL is the common form.
    """

    name: ClassVar[str] = "log_pool"
    summary: ClassVar[str] = "trained as sum; the weighted product of the modalities' probabilities"
    paper: ClassVar[str] = (
        "Combining Probability Distributions: A Critique and an Annotated Bibliography (Statistical Science 1986)"
    )
    formula: ClassVar[str] = "p ∝ Π_u p_u^{w_u},  w = argmin_{w≥0} NLL on held-out clips"
    decomposable: ClassVar[bool] = True
    post_hoc: ClassVar[bool] = True

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return LogPoolHead(widths, n_classes)
