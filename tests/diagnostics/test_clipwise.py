"""Means over clips: the interval of matched proportions, that it covers, and that groups widen it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from mmsearch.diagnostics.clipwise import clip_mean


def test_the_worked_interval_of_matched_proportions() -> None:
    d = np.array([1.0] * 10 + [-1.0] * 4 + [0.0] * 86)
    found = clip_mean(d)
    n12, n21, N = 10.5, 4.5, 102
    se = math.sqrt(n12 + n21 - (n12 - n21) ** 2 / N) / N
    assert found is not None and found.mean == pytest.approx(0.06)
    assert (found.low + found.high) / 2 == pytest.approx(6 / 102)
    assert (found.high - found.low) / 2 == pytest.approx(t.ppf(0.975, 100) * se)
    assert not found.beyond_noise


def test_equal_classifiers_are_not_known_to_be_equal() -> None:
    few, many = clip_mean(np.zeros(20)), clip_mean(np.zeros(2000))
    assert few is not None and many is not None
    assert few.mean == 0 and few.low == -few.high < -0.05
    assert many.high < 0.002


def test_nothing_is_said_of_no_clips() -> None:
    assert clip_mean(np.zeros(0)) is None


@pytest.mark.parametrize("wins, losses", [(0.1, 0.05), (0.02, 0.02), (0.3, 0.1), (0.0, 0.0)])
@pytest.mark.parametrize("n", [40, 160])
def test_it_covers_the_truth_of_other_clips(n: int, wins: float, losses: float) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        d = rng.choice([1.0, -1.0, 0.0], size=n, p=[wins, losses, 1 - wins - losses])
        found = clip_mean(d)
        assert found is not None
        covered += found.low <= wins - losses <= found.high
    assert covered >= 935


def test_it_covers_where_clips_come_in_groups_and_does_not_without_them() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(25), 8)
    covered = {True: 0, False: 0}
    for _ in range(500):
        d = rng.choice([1.0, -1.0, 0.0], size=25, p=[0.2, 0.1, 0.7])[group]
        for grouped in covered:
            found = clip_mean(d, group if grouped else None)
            assert found is not None
            covered[grouped] += found.low <= 0.1 <= found.high
    assert covered[True] >= 455 and covered[False] < 350


def test_clips_that_are_each_their_own_group_are_clips() -> None:
    d = np.random.default_rng(0).choice([1.0, -1.0, 0.0], size=300)
    alone, grouped = clip_mean(d), clip_mean(d, np.arange(300))
    assert alone is not None and grouped is not None
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.01)
