"""Means, paired differences and their intervals over seeds and clips; the price of looking often and of many rivals.

**The model.** On seed s finalist a is right (1) or wrong (0) on clip c of that seed's select part. The difference of
two finalists is d_sc = δ + S_s + C_c + e_sc, with seeds and clips as crossed random effects: an interval speaks of
repeating the comparison on fresh seeds, fresh splits and other clips of the same kind. δ is estimated by the mean over
seeds of the mean over clips; its variance by the method of moments:

    V = s²/K + σ_C²·A·K/(K−1),  A = Σ_{s≠t} n_st / (K²·n_s·n_t)

s² is the variance of the K seeds' differences. It holds all there is of seeds, of noise, and of clips that one seed
alone saw; n_s clips of seed s and n_st clips that seeds s and t share make up for what shared clips hide, since they
are the same in every seed. σ_C² is the mean product of the deviations of one clip on two seeds. Degrees of freedom are
Satterthwaite's.

**Few seeds.** s² on three or five seeds says little (at three, Student's interval is 4.3 standard errors to each
side). The finalists of a confirmation are like one another, so s² is moderated: drawn towards the variance pooled over
all finalists, as strongly as their variances agree with one another (an empirical Bayes estimate of the prior's
degrees of freedom). A finalist noisier than the rest keeps its own noise.

Sources: G. K. Smyth, "Linear models and empirical Bayes methods for assessing differential expression", 2004 (moderated
t); F. E. Satterthwaite, "An approximate distribution of estimates of variance components", 1946; K. K. G. Lan and
D. L. DeMets, "Discrete sequential boundaries for clinical trials", 1983 (spending); S. Holm, 1979.
`scripts/bench_confirmation.py` measures coverage and false winners.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from mmsearch.search.blocks import fit
from mmsearch.search.finalists import FEW_SEEDS

LEVEL = 0.95
"""The coverage of every interval."""

Right = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""By seed the clips (rows of the dataset, ascending) and whether the finalist was right on each."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its Student-t interval.

    Attributes:
        mean: of the values.
        low, high: the bounds; None where one value alone gives no interval.
        p: two-sided p-value of "the mean is zero" (differences only; 1 without an interval).
        values: one a seed.
        freedom: degrees of freedom; 0 without an interval.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    values: tuple[float, ...]
    freedom: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there is an interval at all (two seeds or more)."""
        return self.low is not None

    def to_dict(self) -> dict[str, Any]:
        """As JSON: `{"mean", "ci95": [low, high], "values"}`; the bounds are null with one seed."""
        return {"mean": self.mean, "ci95": [self.low, self.high], "values": list(self.values)}


@dataclasses.dataclass(frozen=True)
class Noise:
    """What all finalists together say of the variance of a paired difference on one seed.

    Attributes:
        variance: of the difference of two finalists on the same seed.
        freedom: how many degrees of freedom that is worth beside a difference's own; infinite where nothing but
            chance sets the finalists' own variances apart.
    """

    variance: float
    freedom: float

    def moderated(self, variance: float, freedom: float) -> tuple[float, float]:
        """A difference's own variance drawn towards this one, and the degrees of freedom of the result."""
        if math.isinf(self.freedom):
            return self.variance, self.freedom
        total = freedom + self.freedom
        return (freedom * variance + self.freedom * self.variance) / total, total


def pooled_noise(scores: Sequence[Mapping[int, float]]) -> Noise | None:
    """The noise of a paired difference, from all finalists.

    The variance is that of the residuals of a randomised block design (:func:`mmsearch.search.blocks.fit`). How much
    it is worth is seen from the variances of all pairs of finalists: were they one and the same, the logarithms of
    their estimates would scatter by ψ'(d/2), with d degrees of freedom each; what they scatter beyond that is ψ'(d₀/2)
    of a prior with d₀ degrees of freedom, at most those of the residuals.

    Args:
        scores: per finalist the value of each seed that it has.

    Returns:
        None unless there are two finalists or more and FEW_SEEDS seeds or more.
    """
    if len(scores) < 2 or len(set().union(*scores)) < FEW_SEEDS:
        return None
    blocks = fit(scores)
    if blocks is None:
        return None
    most = float(blocks.freedom)
    own = []
    for a in range(len(scores)):
        rest = [s for b, s in enumerate(scores) if b != a and len(scores[a].keys() & s.keys()) > 1]
        own += [_variance_beside(scores[a], rest)] if rest else []
    own = [(v, d) for v, d in own if v > 0]
    if len(own) < 3:
        return Noise(2 * blocks.variance, most)
    return Noise(2 * blocks.variance, min(most, _prior_freedom(own)))


def _variance_beside(own: Mapping[int, float], rest: Sequence[Mapping[int, float]]) -> tuple[float, float]:
    """The variance over seeds of a finalist less the mean of others, and its degrees of freedom."""
    seeds = [s for s in own if any(s in other for other in rest)]
    d = [own[s] - float(np.mean([other[s] for other in rest if s in other])) for s in seeds]
    return (float(np.var(d, ddof=1)), len(d) - 1.0) if len(d) > 1 else (0.0, 0.0)


def _prior_freedom(own: Sequence[tuple[float, float]]) -> float:
    """Smyth's d₀ from estimates of a variance and their degrees of freedom."""
    half = np.array([d / 2 for _, d in own])
    e = np.log([v for v, _ in own]) - special.digamma(half) + np.log(half)
    beyond = float(e.var(ddof=1) - special.polygamma(1, half).mean())
    if beyond <= 0:
        return math.inf
    low, high = 1e-3, 1e6
    if beyond >= special.polygamma(1, low):
        return 2 * low
    if beyond <= special.polygamma(1, high):
        return math.inf
    return 2 * float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - beyond, low, high))


def mean_interval(
    values: Sequence[float],
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    resolution: float = 0.0,
    noise: Noise | None = None,
    shared: tuple[float, float] = (0.0, math.inf),
) -> Interval:
    """Mean and 95 % Student-t interval of values over seeds.

    Args:
        values: one a seed, at least one.
        bounds: what the quantity cannot leave (0 and 1 for an accuracy); the interval is cut there.
        resolution: the smallest step between two values (one clip over all clips). Equal values on few seeds would
            otherwise give an interval of width zero; the variance is never taken below the rounding noise of a
            difference of two such values, `resolution**2 / 6`.
        noise: of such a value, by which its variance is moderated.
        shared: variance of the mean that the seeds share and so do not show, with its degrees of freedom.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    x = np.asarray(values, dtype=float)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"an interval needs finite values, got {list(values)}")
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, None, None, 1.0, (mean,))
    variance, freedom = float(x.var(ddof=1)), x.size - 1.0
    if noise is not None:
        variance, freedom = noise.moderated(variance, freedom)
    parts = [(max(variance, resolution**2 / 6) / x.size, freedom), shared]
    total = sum(v for v, _ in parts)
    freedom = satterthwaite(parts)
    error = math.sqrt(total)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    nothing = 1.0 if mean == 0 else 0.0
    p = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error > 0 else nothing
    low, high = np.clip([mean - half, mean + half], *bounds)
    return Interval(mean, float(low), float(high), p, tuple(map(float, x)), freedom)


def satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variance estimates, given each with its own."""
    total = sum(v for v, _ in parts)
    weight = sum(v**2 / d for v, d in parts if v > 0)
    return total**2 / weight if weight > 0 else max(d for _, d in parts)


def paired_interval(
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    resolution: float = 0.0,
    noise: Noise | None = None,
    right: tuple[Right, Right] | None = None,
) -> Interval | None:
    """The difference a - b, paired by seed, over the seeds that both have.

    Args:
        a, b: value of each seed.
        resolution, noise: as in :func:`mean_interval`.
        right: of both, by seed and clip; None: clips are not known apart, and the interval speaks of these clips only.

    Returns:
        None where no seed is shared.
    """
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    known = right is not None and all(s in right[0] and s in right[1] for s in seeds)
    shared = shared_clips(*right, seeds) if right and known else (0.0, math.inf)
    return mean_interval([a[s] - b[s] for s in seeds], resolution=resolution, noise=noise, shared=shared)


def shared_clips(a: Right, b: Right, seeds: Sequence[int]) -> tuple[float, float]:
    """What clips that several seeds share add to the variance of a mean difference, with its degrees of freedom."""
    k = len(seeds)
    deviations = []
    for seed in seeds:
        (rows, ours), (others, theirs) = a[seed], b[seed]
        if not np.array_equal(rows, others):
            raise ValueError(f"seed {seed}: two finalists were judged on different clips")
        d = ours.astype(float) - theirs
        deviations.append((rows, d - d.mean()))
    overlap, products, seen = 0.0, [], []
    for (s, x), (t, y) in itertools.combinations(deviations, 2):
        both, i, j = np.intersect1d(s, t, assume_unique=True, return_indices=True)
        overlap += 2 * len(both) / (k**2 * len(s) * len(t))
        products.append(x[i] * y[j])
        seen.append(both)
    clips = len(np.unique(np.concatenate(seen))) if seen else 0
    if clips < 2:
        return 0.0, math.inf
    return max(0.0, float(np.concatenate(products).mean())) * overlap * k / (k - 1), clips - 1.0


def spent(looks: int, planned: int, level: float) -> float:
    """What a test may use of its level at the last of so many looks, of so many planned.

    The differences of Lan and DeMets' spending function of O'Brien and Fleming's shape, α*(t) = 2 − 2Φ(z_{α/2}/√t),
    with t the share of the planned seeds. Taken as they are, without account of how the looks depend on one another,
    they hold the level whatever the dependence is.

    Args:
        looks: seeds so far; before FEW_SEEDS nobody looks.
        planned: seeds at most.
        level: of the whole.
    """

    def used(seeds: int) -> float:
        if seeds < min(FEW_SEEDS, planned):
            return 0.0
        return float(2 * stats.norm.sf(stats.norm.isf(level / 2) / math.sqrt(min(1.0, seeds / planned))))

    return used(looks) - used(looks - 1)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = np.argsort(p, kind="stable")
    adjusted = [0.0] * len(p)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted
