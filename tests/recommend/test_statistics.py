from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mmsearch.recommend.statistics import Noise, holm, mean_interval, paired_interval, pooled_noise


def test_mean_interval_is_student_t() -> None:
    values = [0.90, 0.92, 0.91, 0.95, 0.89]
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.to_dict() == {"mean": pytest.approx(0.914), "ci95": [found.low, found.high], "values": values}


def test_one_seed_has_no_interval_and_proves_nothing() -> None:
    found = mean_interval([0.9])
    assert not found.known
    assert found.to_dict()["ci95"] == [None, None]
    assert found.p == 1.0


def test_accuracy_stays_within_its_bounds() -> None:
    found = mean_interval([0.99, 1.0, 0.95], bounds=(0.0, 1.0))
    assert found.high == 1.0


@pytest.mark.parametrize("values", [[], [0.5, float("nan")]])
def test_nothing_is_made_of_missing_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)


def test_pairs_are_matched_by_seed() -> None:
    a, b = {1: 0.9, 2: 0.8, 3: 0.7}, {3: 0.6, 1: 0.8, 9: 0.1}
    found = paired_interval(a, b)
    assert found is not None
    assert found.values == pytest.approx((0.1, 0.1))
    assert paired_interval({1: 0.5}, {2: 0.5}) is None


def test_paired_p_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.01, 0.01, 6), rng.normal(0, 0.01, 6)
    found = paired_interval(dict(enumerate(a)), dict(enumerate(b)))
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_equal_differences_of_one_clip_on_three_seeds_prove_nothing() -> None:
    step = 1 / 150
    a, b = {s: 0.8 + step for s in range(3)}, {s: 0.8 for s in range(3)}
    found = paired_interval(a, b, resolution=step)
    assert found is not None
    assert found.p > 0.05


def test_pooled_noise_of_two_is_that_of_their_difference() -> None:
    rng = np.random.default_rng(0)
    a, b = (dict(enumerate(rng.normal(size=5))) for _ in range(2))
    noise = pooled_noise([a, b])
    assert noise is not None
    assert noise.freedom == 4
    assert noise.variance == pytest.approx(np.var([a[i] - b[i] for i in a], ddof=1))


def test_pooled_noise_estimates_the_variance_of_a_difference() -> None:
    rng = np.random.default_rng(0)
    seeds = 0.05 * rng.normal(size=400)
    noise = pooled_noise([dict(enumerate(seeds + m + 0.01 * rng.normal(size=400))) for m in (0.9, 0.8, 0.5)])
    assert noise is not None
    assert noise.variance == pytest.approx(2 * 0.01**2, rel=0.1)


def test_pooled_noise_needs_shared_seeds() -> None:
    assert pooled_noise([{0: 0.5, 1: 0.6}, {1: 0.5, 2: 0.5}]) is None
    assert pooled_noise([{0: 0.5, 1: 0.6}]) is None


def test_own_noise_beyond_the_pooled_one_counts() -> None:
    wild = [0.1, -0.1, 0.2]
    quiet = Noise(1e-6, 8)
    assert mean_interval(wild, noise=quiet).p > 0.3


def test_holm_against_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
