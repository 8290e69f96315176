"""How fair stopping is to each method, measured: how well the order at a rung predicts the order at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau

from mmsearch.search.stopping import SHARES, Halving
from mmsearch.search.trials import TrialRecord

RESAMPLES = 2000
"""Bootstrap resamples of a method's trials."""


class Agreement(NamedTuple):
    """How the order of trials at a rung agrees with their order at the end.

    Attributes:
        tau: Kendall's τ-b, 1 for the same order, 0 for none in common; None where it is not defined.
        low, high: 95 % bootstrap interval over trials; None with `tau`.
        n: trials.
    """

    tau: float | None
    low: float | None
    high: float | None
    n: int


def rank_agreement(
    curves: Mapping[str, Sequence[Sequence[float]]],
    shares: Sequence[float] = SHARES,
    earliest: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
) -> dict[str, dict[int, Agreement]]:
    """Per method and rung, Kendall's τ between the score at the rung and the final score.

    Args:
        curves: per method the learning curves of trials that ran to their end, a score an epoch, of one length.
        shares: the rungs.
        earliest: per method the share of training before which it is not judged; 0 where it is not named.
        seed: of the bootstrap.

    Returns:
        Per method, the epoch of each rung -> its agreement.
    """
    halving = Halving(shares=tuple(shares))
    found: dict[str, dict[int, Agreement]] = {}
    for method, trials in curves.items():
        if len(trials):
            scores = np.array(trials, dtype=float)
            rungs = halving.rungs(scores.shape[1], (earliest or {}).get(method, 0.0)).values()
            found[method] = {e: _agreement(scores[:, e - 1], scores[:, -1], seed) for e in rungs}
    return found


def full_curves(records: Iterable[TrialRecord]) -> dict[str, list[list[float]]]:
    """Per method the curves of the search's trials that ran to their end with a score at every epoch.

    Where stopping was at work they are survivors only.
    """
    found: dict[str, list[list[float]]] = {}
    for r in records:
        if r.searched and r.state == "complete" and [e for e, _ in r.curve] == list(range(1, r.epochs + 1)):
            found.setdefault(r.method, []).append([score for _, score in r.curve])
    return found


def _agreement(early: np.ndarray, final: np.ndarray, seed: int) -> Agreement:
    """τ-b and its interval: a resample is a count of each trial, and a pair weighs the product of its counts."""
    n = len(early)
    tau = kendalltau(early, final).statistic if n > 1 else np.nan
    if np.isnan(tau):
        return Agreement(None, None, None, n)
    x, y = (np.sign(s[:, None] - s[None, :]) for s in (early, final))
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    both, ties_x, ties_y = (((counts @ pairs) * counts).sum(1) for pairs in (x * y, x * x, y * y))
    spread = np.sqrt(ties_x * ties_y)
    taus = both[spread > 0] / spread[spread > 0]
    low, high = np.quantile(taus, [0.025, 0.975])
    return Agreement(float(tau), float(low), float(high), n)
