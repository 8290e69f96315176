from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from mmsearch.search.fairness import full_curves, rank_agreement
from mmsearch.search.trials import TrialRecord


def test_parallel_curves_agree_and_crossing_ones_do_not() -> None:
    levels = np.linspace(0.2, 0.8, 12)
    parallel = [np.linspace(0, end, 9) for end in levels]
    crossing = [np.linspace(1 - end, end, 9) for end in levels]
    found = rank_agreement({"early": parallel, "late": crossing})
    assert list(found["early"]) == [1, 3]
    assert found["early"][1].tau is None, "at the first epoch all are zero"
    assert found["early"][3].tau == pytest.approx(1.0)
    assert found["late"][1] == pytest.approx((-1.0, -1.0, -1.0, 12))


def test_rungs_move_to_the_earliest_fair_judgement() -> None:
    curves = {"slow": np.random.default_rng(0).random((8, 9))}
    assert list(rank_agreement(curves)["slow"]) == [1, 3]
    assert list(rank_agreement(curves, earliest={"slow": 0.5})["slow"]) == [5]


def test_the_interval_is_that_of_resampled_trials() -> None:
    rng = np.random.default_rng(3)
    final = rng.normal(size=20).round(1)
    early = (final + rng.normal(size=20)).round(1)
    found = rank_agreement({"m": np.stack([early, final], axis=1)}, shares=[0.5])["m"][1]
    assert found.tau == pytest.approx(kendalltau(early, final).statistic)
    rows = rng.integers(20, size=(500, 20))
    taus = [kendalltau(early[r], final[r]).statistic for r in rows]
    assert (found.low, found.high) == pytest.approx(np.quantile(taus, [0.025, 0.975]), abs=0.06)


def test_too_few_or_equal_trials_say_nothing() -> None:
    found = rank_agreement({"one": [[0.1, 0.2, 0.3]], "none": [], "equal": [[0.5, 0.5, 0.5]] * 4})
    assert found["one"][1] == (None, None, None, 1)
    assert found["equal"][1] == (None, None, None, 4)
    assert "none" not in found


def test_only_whole_curves_count() -> None:
    def record(state: str, curve: list[tuple[int, float]]) -> TrialRecord:
        document = {"epochs": 2, "fold": 0}
        return TrialRecord(state, "search", "m", "concat", document, {}, "", state, curve=curve)

    whole, pruned, jumped = [(1, 0.1), (2, 0.2)], [(1, 0.1)], [(2, 0.3)]
    found = full_curves([record("complete", whole), record("pruned", pruned), record("complete", jumped)])
    assert found == {"m": [[0.1, 0.2]]}
