"""Shapley shares of modalities, exact, and how unequal they are."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def subsets(modalities: Sequence[str]) -> list[frozenset[str]]:
    """Every non-empty subset, the smallest first and the whole set last."""
    return [frozenset(S) for n in range(1, len(modalities) + 1) for S in itertools.combinations(modalities, n)]


def shapley(v: Mapping[frozenset[str], Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    """φ_u = Σ_{S⊆U∖u} |S|!·(M - |S| - 1)!/M!·(v(S∪u) - v(S)) per modality; Σ_u φ_u = v(U) - v(∅).

    Args:
        v: the value of every subset, tensors of one shape; without one for the empty set, v(∅) = 0.
        modalities: U.
    """
    M = len(modalities)
    v = {frozenset(): torch.zeros_like(v[frozenset(modalities)]), **v}
    phi = {}
    for u in modalities:
        total = torch.zeros_like(v[frozenset(modalities)])
        for S in subsets(modalities):
            if u in S:
                weight = math.factorial(len(S) - 1) * math.factorial(M - len(S)) / math.factorial(M)
                total = total + weight * (v[S] - v[S - {u}])
        phi[u] = total
    return phi


@dataclasses.dataclass(frozen=True)
class Imbalance:
    """How unequal the shares φ_u of modalities are; 0 is equal.

    No publication fixes one figure; these three are this project's own, to be read beside the shares.

    Attributes:
        absolute: max φ - min φ, in the unit of the shares.
        relative: the same over Σ_u |φ_u|; None where that is zero.
        entropy: 1 - H(φ⁺/Σφ⁺)/ln M with φ⁺ = max(φ, 0), in [0, 1]; None where no share is positive or M is 1.
    """

    absolute: float
    relative: float | None
    entropy: float | None


def imbalance(phi: Mapping[str, float]) -> Imbalance:
    """The figures of shares φ_u."""
    shares = list(phi.values())
    absolute, size = max(shares) - min(shares), sum(map(abs, shares))
    positive = [s for s in shares if s > 0]
    H = -sum(s / sum(positive) * math.log(s / sum(positive)) for s in positive)
    even = math.log(len(shares))
    return Imbalance(absolute, absolute / size if size else None, 1 - H / even if positive and even else None)
