"""What may change when a sweep is resumed."""

from __future__ import annotations

import pytest

from mmsearch.arguments import Arguments
from mmsearch.errors import MMSearchError

RECORDED = Arguments(dataset="demo", trials=20, seeds=3, time_budget=600.0, methods=("ogm", "mla"))


def test_trials_and_time_may_grow() -> None:
    grown = RECORDED.grown({"trials": 30, "time_budget": 900.0, "seeds": 3})
    assert (grown.trials, grown.time_budget, grown.seeds) == (30, 900.0, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"trials": 10}, "--trials: the run was started with 20 or more, not 10"),
        ({"time_budget": 10.0}, "--time-budget: the run was started with 600.0 or more, not 10.0"),
        ({"seeds": 4}, "--seeds: the run was started with 3, not 4"),
        ({"methods": ("ogm",)}, "--methods: the run was started with ogm,mla, not ogm"),
        ({"no_refit": True}, "--no-refit: the run was started with False, not True"),
        ({"max_epochs": 4}, "--max-epochs: the run was started with None, not 4"),
    ],
)
def test_everything_else_is_refused_by_name(given: dict, message: str) -> None:
    with pytest.raises(MMSearchError, match=message):
        RECORDED.grown(given)


def test_arguments_survive_json() -> None:
    assert Arguments.from_dict(RECORDED.to_dict()) == RECORDED
