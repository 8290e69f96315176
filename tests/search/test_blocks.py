"""Finalists by seeds: levels and noise by least squares."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.search.blocks import fit


def drawn(levels: list[float], seeds: int, sd: float = 0.01) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array(levels)[:, None] + rng.normal(0, 0.05, seeds) + rng.normal(0, sd, (len(levels), seeds))


def test_where_every_cell_is_there_it_is_the_residual_of_a_randomised_block_design() -> None:
    y = drawn([0.8, 0.7, 0.75], 4)
    found = fit([dict(enumerate(row)) for row in y])
    assert found is not None
    residual = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    assert found.freedom == 6
    assert found.variance == pytest.approx((residual**2).sum() / 6)
    assert found.level[0] - found.level[1] == pytest.approx(y[0].mean() - y[1].mean())
    assert found.error(0, 1) == pytest.approx(np.sqrt(2 * found.variance / 4))


def test_a_missing_seed_is_made_up_for_by_what_the_others_say_of_that_seed() -> None:
    scores = [{0: 0.80, 1: 0.60, 2: 0.70}, {0: 0.81, 1: 0.61, 2: 0.71}, {0: 0.82, 2: 0.72}]
    found = fit(scores)
    assert found is not None and found.freedom == 3
    assert found.level[2] - found.level[0] == pytest.approx(0.02), "not 0.07, which is what the hard seed would make it"
    assert found.error(0, 2) > found.error(0, 1) or found.variance == pytest.approx(0)


def test_the_noise_of_disjoint_losses_is_still_known() -> None:
    y = drawn([0.8, 0.7, 0.75, 0.6], 4)
    whole = [dict(enumerate(row)) for row in y]
    holes = [{s: v for s, v in of.items() if s != i} for i, of in enumerate(whole)]
    found = fit(holes)
    assert found is not None and found.freedom == 12 - (4 + 4 - 1)
    assert 0.2 < found.variance / 0.01**2 < 4


def test_nothing_is_known_of_the_noise_without_a_degree_of_freedom() -> None:
    assert fit([]) is None
    assert fit([{0: 0.5, 1: 0.6}]) is None
    assert fit([{0: 0.5}, {0: 0.6}]) is None
    assert fit([{0: 0.5, 1: 0.4}, {2: 0.6, 3: 0.1}]) is None, "no seed is shared"


def test_a_finalist_without_a_score_has_no_level() -> None:
    found = fit([{0: 0.9, 1: 0.8}, {}, {0: 0.7, 1: 0.65}])
    assert found is not None and np.isnan(found.level[1])
