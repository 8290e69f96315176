"""Means, paired differences and their 95 % intervals over seeds; Holm's correction.

The unit is the seed: confirmation seed i redraws train, val and select inside development, and all
finalists share the draw of seed i. An interval therefore speaks of repeating the training on fresh seeds
and fresh splits of *these* clips. It does not speak of other clips; the test part gives a hint of those.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
"""The coverage of every interval; a difference is beyond the noise at 1 - LEVEL after Holm's correction."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its Student-t interval.

    Attributes:
        mean: of the values.
        low, high: the bounds; None where one value alone gives no interval.
        p: two-sided p-value of "the mean is zero" (differences only; 1 without an interval).
        values: one a seed.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    values: tuple[float, ...]

    @property
    def known(self) -> bool:
        """Whether there is an interval at all (two seeds or more)."""
        return self.low is not None

    def to_dict(self) -> dict[str, Any]:
        """As JSON: `{"mean", "ci95": [low, high], "values"}`; the bounds are null with one seed."""
        return {"mean": self.mean, "ci95": [self.low, self.high], "values": list(self.values)}


def mean_interval(
    values: Sequence[float], *, bounds: tuple[float, float] = (-math.inf, math.inf), resolution: float = 0.0
) -> Interval:
    """Mean and 95 % Student-t interval of values over seeds.

    Args:
        values: one a seed, at least one.
        bounds: what the quantity cannot leave (0 and 1 for an accuracy); the interval is cut there.
        resolution: the smallest step between two values (one clip over all clips). Equal values on few seeds would
            otherwise give an interval of width zero; the standard deviation is never taken below the rounding
            noise of a difference of two such values, `resolution / sqrt(6)`.

    Raises:
        ValueError: no value, or one that is not finite.
    """
    x = np.asarray(values, dtype=float)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"an interval needs finite values, got {list(values)}")
    mean = float(x.mean())
    if x.size == 1:
        return Interval(mean, None, None, 1.0, (mean,))
    error = max(float(x.std(ddof=1)), resolution / math.sqrt(6)) / math.sqrt(x.size)
    half = float(stats.t.ppf((1 + LEVEL) / 2, x.size - 1)) * error
    if error > 0:
        p = float(2 * stats.t.sf(abs(mean) / error, x.size - 1))
    else:
        p = 1.0 if mean == 0 else 0.0
    low, high = np.clip([mean - half, mean + half], *bounds)
    return Interval(mean, float(low), float(high), p, tuple(map(float, x)))


def paired_interval(a: Mapping[int, float], b: Mapping[int, float], *, resolution: float = 0.0) -> Interval | None:
    """The difference a - b, paired by seed, over the seeds that both have.

    Args:
        a, b: value of each seed.
        resolution: as in :func:`mean_interval`.

    Returns:
        None where no seed is shared.
    """
    shared = sorted(a.keys() & b.keys())
    return mean_interval([a[s] - b[s] for s in shared], resolution=resolution) if shared else None


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
