"""What modalities contribute to right predictions, clip by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmsearch.diagnostics.shapley import shapley


def accuracy_shares(hits: Mapping[frozenset[str], Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    """φ_u of every clip for v(S) = [ŷ(S) = y], float64 `[n]`; their means are the shares of the accuracy.

    Σ_u mean φ_u is the accuracy with all modalities minus that with none.

    Args:
        hits: bool `[n]`, whether a clip is predicted right from the modalities of every subset, the empty one included.
        modalities: U.
    """
    return shapley({S: hit.double() for S, hit in hits.items()}, modalities)


def clip_values(
    hits: Mapping[frozenset[str], Tensor], present: Mapping[str, Tensor], modalities: Sequence[str]
) -> dict[str, Tensor]:
    """φ_u of every clip for v(S) = |S|·[ŷ(S) = y], float64 `[n]`; for two modalities one of -0.5, 0, 0.5, 1, 1.5.

    A modality that a clip lacks counts neither in |S| nor for anything.

    Source: Enhancing Multimodal Cooperation via Sample-level Modality Valuation (CVPR 2024).

    Args:
        hits: bool `[n]`, whether a clip is predicted right from the modalities of every subset.
        present: bool `[n]` per modality.
        modalities: U.
    """
    v = {S: hit.double() * torch.stack([present[u] for u in S]).sum(0) for S, hit in hits.items() if S}
    return shapley(v, modalities)
