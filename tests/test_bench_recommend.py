"""The tables of `scripts/bench_recommend.py` and what their replays say."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def bench(load_script: Any) -> Any:
    return load_script("bench_recommend")


def test_every_condition_has_a_whole_table(bench: Any) -> None:
    assert len(bench.CONDITIONS) >= 12
    assert bench.packed(list(bench.CONDITIONS)) == list(bench.CONDITIONS)
    for name in bench.CONDITIONS:
        table = bench.load(name)
        have = {(line["setting"], line["seed"]) for line in table["trainings"]}
        assert len(have) == len(table["trainings"]) == len(table["settings"]) * bench.SEEDS + bench.LEADING * bench.MORE
        assert {d["method"]["name"] for d in table["settings"]} >= {"joint", "unimodal", "mmpareto", "inforeg"}


def test_a_replay_is_a_whole_sweep_and_the_same_every_time(bench: Any) -> None:
    found = bench.replay("few_classes", 0)
    assert found == bench.replay("few_classes", 0) != bench.replay("few_classes", 1)
    assert found["kind"] in ("method", "unimodal", "baseline", "no_clear_winner")
    assert 0.02 < found["cost"] < bench.COST_SHARE
    assert 0.9 < found["truth"] < 1


def test_two_settings_are_compared_on_seeds_that_both_have_and_no_replay_uses(bench: Any) -> None:
    world = bench.Table(bench.load("few_classes"), [3, 1, 4, 0, 5, 9])
    best = world.best_of_all()
    other = next(i for i in world.tests if i not in world.leading)
    seeds = [2, 6, 7, 8]
    assert world.ahead(best, other) == pytest.approx(world.mean(best, seeds) - world.mean(other, seeds))
    rival = next(i for i in world.leading if i != best)
    assert world.ahead(best, rival) == pytest.approx(
        world.mean(best, [*seeds, *range(10, 20)]) - world.mean(rival, [*seeds, *range(10, 20)])
    )


def test_a_missed_bound_is_said_and_gives_an_exit_status(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    good = bench.replay("few_classes", 0) | {"regret": 0.001}
    assert bench.report([good] * 3) == 0
    assert bench.report([good | {"regret": 0.05}] * 3) == 1
    assert "few_classes: regret up to 5.00 points, at most 3" in capsys.readouterr().err
    assert bench.report([good | {"none_helps": True, "kind": "method"}] * 3) == 1
    assert "a winner in 100% of replays where no method helps" in capsys.readouterr().err
