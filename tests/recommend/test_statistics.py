from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mmsearch.recommend.statistics import (
    Noise,
    holm,
    mean_interval,
    paired_interval,
    pooled_noise,
    satterthwaite,
    shared_clips,
    spent,
)


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


def test_a_variance_is_drawn_towards_the_pooled_one_as_far_as_that_is_worth() -> None:
    wild = [0.1, -0.1, 0.2]
    own = float(np.var(wild, ddof=1))
    found = mean_interval(wild, noise=Noise(0.001, 8))
    error = np.sqrt((2 * own + 8 * 0.001) / 10 / 3)
    assert found.freedom == 10
    assert found.high == pytest.approx(found.mean + stats.t.ppf(0.975, 10) * error)
    certain = mean_interval(wild, noise=Noise(0.001, np.inf))
    assert certain.high == pytest.approx(certain.mean + 1.959964 * np.sqrt(0.001 / 3))


def test_pooling_is_worth_much_where_the_finalists_are_alike_and_little_where_they_are_not() -> None:
    rng = np.random.default_rng(0)
    alike = [dict(enumerate(rng.normal(0, 0.01, 10))) for _ in range(12)]
    unlike = [dict(enumerate(rng.normal(0, sd, 10))) for sd in np.geomspace(0.001, 0.1, 12)]
    much, little = pooled_noise(alike), pooled_noise(unlike)
    assert much is not None and little is not None
    assert much.freedom > 20 > 5 > little.freedom


def rows(seeds: int, draw: np.ndarray, clips: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    return {s: (clips, draw[s]) for s in range(seeds)}


def test_clips_that_all_seeds_share_make_the_interval_wider_than_the_seeds_alone_would() -> None:
    rng = np.random.default_rng(0)
    clips = np.arange(100)
    easy = rng.random(100) < 0.5
    a, b = (np.array([easy ^ flip ^ (rng.random(100) < 0.02) for _ in range(5)]) for flip in (True, False))
    scores = [dict(enumerate(x.mean(1))) for x in (a, b)]
    apart = paired_interval(*scores)
    together = paired_interval(*scores, right=(rows(5, a, clips), rows(5, b, clips)))
    assert apart is not None and together is not None and apart.high is not None and together.high is not None
    variance, freedom = shared_clips(rows(5, a, clips), rows(5, b, clips), range(5))
    assert freedom == 99
    d = (a.astype(float) - b).mean(0)
    assert variance == pytest.approx(d.var(ddof=1) / 100, rel=0.1), "what drawing other clips would change"
    assert together.high - together.mean > 3 * (apart.high - apart.mean)


def test_clips_that_no_seeds_share_are_in_the_seeds_own_variance_already() -> None:
    rng = np.random.default_rng(0)
    a, b = ({s: (np.arange(50) + 50 * s, rng.random(50) < 0.5) for s in range(3)} for _ in range(2))
    assert shared_clips(a, b, range(3))[0] == 0


def test_finalists_judged_on_different_clips_are_no_pair() -> None:
    hits = np.ones(3, bool)
    with pytest.raises(ValueError, match="different clips"):
        shared_clips({0: (np.arange(3), hits)}, {0: (np.arange(1, 4), hits)}, [0])


def test_satterthwaite_of_two_equal_parts_adds_their_degrees_of_freedom() -> None:
    assert satterthwaite([(2.0, 5.0), (2.0, 5.0)]) == pytest.approx(10)
    assert satterthwaite([(2.0, 5.0), (0.0, np.inf)]) == pytest.approx(5)


@pytest.mark.parametrize("planned", [1, 2, 3, 5, 10])
def test_all_looks_together_spend_the_level(planned: int) -> None:
    parts = [spent(n, planned, 0.02) for n in range(1, planned + 1)]
    assert sum(parts) == pytest.approx(0.02)
    assert min(parts) >= 0 and (planned < 4 or parts[2] < parts[-1]), "little early, most at the end"
    assert planned < 3 or parts[0] == parts[1] == 0


def test_holm_against_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
