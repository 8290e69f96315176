"""Shapley shares of modalities, exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def subsets(modalities: Sequence[str]) -> list[frozenset[str]]:
    """Every non-empty subset, the smallest first and the whole set last."""
    return [frozenset(S) for n in range(1, len(modalities) + 1) for S in itertools.combinations(modalities, n)]


def shapley(v: Mapping[frozenset[str], Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    """φ_u = Σ_{S⊆U∖u} |S|!·(M - |S| - 1)!/M!·(v(S∪u) - v(S)) per modality, with v(∅) = 0; Σ_u φ_u = v(U).

    Args:
        v: the value of every non-empty subset, tensors of one shape.
        modalities: U.
    """
    M = len(modalities)
    phi = {}
    for u in modalities:
        total = torch.zeros_like(v[frozenset(modalities)])
        for S in subsets(modalities):
            if u in S:
                weight = math.factorial(len(S) - 1) * math.factorial(M - len(S)) / math.factorial(M)
                total = total + weight * (v[S] - v[S - {u}] if len(S) > 1 else v[S])
        phi[u] = total
    return phi
