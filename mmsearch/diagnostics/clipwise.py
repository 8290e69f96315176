"""Means over clips with their intervals: what the clips at hand say of others like them, for one trained model."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.stats import t


@dataclasses.dataclass(frozen=True)
class ClipMean:
    """A mean over clips.

    Attributes:
        mean: of the clips at hand.
        low, high: bounds of its 95 % interval.
    """

    mean: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def clip_mean(d: np.ndarray, group: np.ndarray | None = None) -> ClipMean | None:
    """The mean of per-clip differences d_i in [-1, 1] and its 95 % interval; None without a clip.

    Of two classifiers judged on the same clips, d_i is 1, 0 or -1. Two pseudo-clips, half of one at 1, half of one at
    -1 and one at 0, keep the interval from collapsing where few clips differ (Agresti and Min, "Simple improved
    confidence intervals for comparing matched proportions", 2005). Where clips come in groups, the groups are what is
    drawn (a sandwich variance on their sums, Student's t of one degree of freedom less than groups), unless that is
    the narrower.

    The interval is that of new clips for the same trained models: what another training seed would give it does not
    say.

    Args:
        d: float `[n]`.
        group: int `[n]`: clips that belong together, such as those of a speaker.
    """
    n = len(d)
    if n == 0:
        return None
    mean = float(np.mean(d))
    middle = float(np.sum(d)) / (n + 2)
    variance = (float(np.sum(np.square(d))) + 1) / (n + 2) - middle**2
    half = float(t.ppf(0.975, n)) * math.sqrt(max(0.0, variance) / (n + 2))
    if group is not None:
        G, member = np.unique(group, return_inverse=True)
        if len(G) > 1:
            sums = np.bincount(member, weights=d - mean)
            spread = math.sqrt(len(G) / (len(G) - 1) * float(np.sum(np.square(sums)))) / n
            half = max(half, float(t.ppf(0.975, len(G) - 1)) * spread)
    return ClipMean(mean, max(-1.0, middle - half), min(1.0, middle + half))
