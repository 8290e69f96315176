"""The refit as a source of trials: what it asks, for how long, and that a kill loses nothing."""

from __future__ import annotations

import pytest

from mmsearch.search.refit import RefitSource, best_length
from mmsearch.search.sources import FINISHED, WAIT, Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.trials import TrialRecord


def confirmed(study, method: str, **knobs: object) -> list[str]:
    """The confirmation of a method's finalist, in the order of its seeds."""
    return [
        r.trial_id
        for r in study.records.values()
        if r.stage == "confirm" and r.method == method and knobs.items() <= r.document["method"].items()
    ]


@pytest.fixture
def searched(make_study, simulate):
    """A study whose confirmation of every method is finished, scores rising to epoch 3 and falling after it."""
    study = make_study(epochs=5)

    def one_a_method(records):
        first = {}
        for r in records.values():
            if r.searched and r.state == "complete":
                first.setdefault((r.method, r.document["method"].get("teacher")), r.document)
        return list(first.values())

    source = Chain(
        {
            "teachers": TeacherSource(study),
            "search": SearchSource(study, trials=9),
            "confirm": ConfirmSource(study, one_a_method, seeds=1),
        }
    )
    simulate(study, source, score=lambda document, epoch: 0.5 - 0.1 * abs(epoch - 3))
    return study


def test_it_asks_the_whole_development_part_for_the_best_length(searched, simulate) -> None:
    ids = confirmed(searched, "joint")
    source = RefitSource(searched, ids)
    (ask,) = simulate(searched, source)
    before = searched.records[ids[0]].document
    assert ask.stage == "refit" and ask.trial_id == source.trial_id
    assert ask.document == {**before, "fold": None, "seed": 0, "until": 3}
    assert not searched.records[ask.trial_id].searched
    assert source.next() is FINISHED


def test_its_teachers_are_trained_on_the_same_clips_first(searched, simulate) -> None:
    source = RefitSource(searched, confirmed(searched, "unimodal_teacher", teacher="umt"))
    first, second = source.next(), None
    searched.issue(first)
    second = source.next()
    searched.issue(second)
    assert source.next() is WAIT
    assert [a.document["method"]["modality"] for a in (first, second)] == ["frames", "sound"]
    assert {a.document["fold"] for a in (first, second)} == {None}
    for ask in (first, second):
        searched.tell(ask.trial_id, "complete")
    last = source.next()
    assert last.trial_id == source.trial_id
    assert set(last.document["teachers"].values()) == {first.trial_id, second.trial_id}


def test_after_a_kill_it_asks_what_is_left(searched, make_study, simulate) -> None:
    ids = confirmed(searched, "unimodal_teacher", teacher="ume")
    events = list(searched.journal.events)
    unbroken = make_study(list(events), epochs=5)
    whole = [a.trial_id for a in simulate(unbroken, RefitSource(unbroken, ids))]
    searched.issue(RefitSource(searched, ids).next())
    again = make_study(list(searched.journal.events), epochs=5)
    left = [a.trial_id for a in simulate(again, RefitSource(again, ids))]
    assert left == whole[1:]
    assert all(again.records[i].state == "complete" for i in whole)


def record(*scores: float) -> TrialRecord:
    curve = list(enumerate(scores, 1))
    return TrialRecord("t", "confirm", "joint", "concat", {"epochs": len(scores)}, {}, "", curve=curve)


def test_the_best_length_is_that_of_the_mean_over_seeds() -> None:
    assert best_length([record(0.1, 0.9, 0.8), record(0.2, 0.3, 0.6)]) == 3
    assert best_length([record(0.1, 0.9, 0.8), record(0.2, 0.5, 0.6)]) == 2
    assert best_length([record(0.5, 0.5)]) == 1
