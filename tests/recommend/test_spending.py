"""Device-hours by method, lost and idle, from the events of a run."""

from __future__ import annotations

import pytest

from mmsearch.recommend.sections import spent
from mmsearch.recommend.spending import Used, spending


def at(hour: float, event: str, trial_id: str = "", **fields: object) -> dict:
    return {"event": event, "time": 3600 * hour, **({"trial_id": trial_id} if trial_id else {}), **fields}


def begun(gpus: float = 1.0, cpus: float = 1.0, **by_method: float) -> list[dict]:
    return [
        at(0, "opened"),
        at(0, "resources", cpus=cpus, gpus=gpus, by_method=by_method),
        at(0, "cluster", nodes=1, cpus=8, gpus=2),
        at(0, "asked", "a", method="joint"),
        at(0, "asked", "b", method="ogm"),
    ]


def test_hours_of_a_method_are_those_of_its_trials_times_their_devices() -> None:
    events = [
        *begun(ogm=0.5),
        at(1, "started", "a", epoch=0),
        at(1, "started", "b", epoch=0),
        at(2, "told", "a"),
        at(4, "told", "b"),
        at(5, "phase", name="done"),
    ]
    found = spending(events)
    assert found.device == "GPU" and found.methods == {"joint": Used(1, 1.0), "ogm": Used(1, 1.5)}
    assert found.held == 10 and found.idle == pytest.approx(0.75)


def test_what_a_preemption_cost_is_what_came_after_the_checkpoint() -> None:
    events = [
        *begun(gpus=0.0, cpus=2.0),
        at(0, "started", "a", epoch=0),
        at(1, "epoch", "a", epoch=1),
        at(2, "epoch", "a", epoch=2),
        at(2.5, "lost", "a", kind="machine"),
        at(3, "started", "a", epoch=1),
        at(5, "told", "a"),
    ]
    found = spending(events)
    assert found.device == "core"
    assert found.methods["joint"] == Used(trials=1, hours=9.0, lost=3.0, losses=1)


def test_what_a_killed_driver_cost_and_the_time_between_sessions() -> None:
    events = [
        *begun(),
        at(0, "started", "a", epoch=0),
        at(1, "epoch", "a", epoch=1),
        at(2, "epoch", "a", epoch=2),
        at(10, "opened"),
        at(10, "resources", cpus=1.0, gpus=1.0, by_method={}),
        at(10, "cluster", nodes=2, cpus=16, gpus=4),
        at(10, "started", "a", epoch=1),
        at(11, "told", "a"),
    ]
    found = spending(events)
    assert found.methods["joint"] == Used(trials=1, hours=3.0, lost=1.0, losses=0)
    assert found.held == 2 * 2 + 4 * 1


def test_machines_that_come_and_go_count_while_they_are_there() -> None:
    events = [*begun(), at(1, "cluster", nodes=0, cpus=0, gpus=0), at(2, "cluster", nodes=1, cpus=4, gpus=1)]
    assert spending([*events, at(4, "phase", name="done")]).held == 2 + 2


def test_the_table_has_money_where_a_price_is_given() -> None:
    events = [*begun(), at(0, "started", "a", epoch=0), at(1, "told", "a")]
    table = spent(events, 2.5)
    assert table.rows[0] == ["joint", "1", "50%", "2.50", "0", "0"]
    assert table.rows[-1] == ["held in all", "2", "100%", "5.00", "0", "0"]
    assert "cost" not in spent(events, None).columns


def test_a_run_of_which_nothing_is_noted_has_no_table() -> None:
    assert spending([at(0, "opened")]) is None and spent([at(0, "opened")], None) is None
