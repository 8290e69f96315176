from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from mmsearch.search.sources import SearchSource, TeacherSource
from mmsearch.search.study import Ask, Study


def epoch(number: int, score: float, epochs: int = 9) -> dict:
    return {"epoch": number, "epochs": epochs, "score": score, "metrics": {}}


def begin(study: Study, ask: Ask | None) -> str:
    assert ask is not None
    study.issue(ask)
    study.started(ask.trial_id, 0)
    return ask.trial_id


def test_view_of_the_four_ends(make_study) -> None:
    study = make_study()
    complete, pruned, failed, running = (begin(study, study.suggest("ogm")) for _ in range(4))
    assert not study.report(complete, epoch(1, 0.5))
    study.report(complete, epoch(9, 0.8))
    study.tell(complete, "complete")
    assert not study.report(running, epoch(1, 0.6))
    assert study.report(pruned, epoch(1, 0.1))
    study.tell(failed, "failed", reason="ValueError: planted")

    trials = {t.user_attrs["trial_id"]: t for t in study.view("ogm").trials}
    assert trials[complete].state == TrialState.COMPLETE and trials[complete].value == 0.8
    assert trials[pruned].state == TrialState.PRUNED and trials[pruned].value == 0.1
    assert trials[pruned].intermediate_values == {1: 0.1}
    assert trials[failed].state == TrialState.FAIL and trials[failed].user_attrs["reason"] == "ValueError: planted"
    assert trials[running].state == TrialState.RUNNING and "ogm.alpha" in trials[running].params
    assert "not among the best of its method at epoch 1" in study.records[pruned].reason


def test_a_score_that_is_no_number_fails_the_trial(make_study) -> None:
    study = make_study()
    trial = begin(study, study.suggest("joint"))
    assert study.report(trial, epoch(1, math.nan))
    record = study.records[trial]
    assert record.state == "failed" and record.score is None and "not a number" in record.reason
    assert study.view("joint").trials[0].state == TrialState.FAIL


def test_known_epochs_are_passed_over(make_study) -> None:
    study = make_study()
    trial = begin(study, study.suggest("joint"))
    study.report(trial, epoch(1, 0.3))
    before = len(study.journal.events)
    assert not study.report(trial, epoch(1, 0.3))
    assert len(study.journal.events) == before


def test_a_known_document_is_never_asked_again(make_study, driver) -> None:
    text = driver.SPACE.replace("  sgd:", "  sgd: {{lr: [0.05, 0.1], weight_decay: 0.0001}}")
    study = make_study(text=text)
    first, second = study.suggest("joint"), None
    begin(study, first)
    second = study.suggest("joint")
    begin(study, second)
    assert first and second and first.trial_id != second.trial_id
    assert study.suggest("joint") is None, "two documents are all there are"


@pytest.mark.parametrize("event", ["asked", "started", "epoch", "told"])
def test_replay_goes_on_exactly_where_the_journal_ends(make_study, simulate, event: str) -> None:
    whole = make_study()
    simulate(whole, SearchSourceWithTeachers(whole, 16))
    events = whole.journal.events[1:]
    cuts = [i + 1 for i, e in enumerate(events) if e["event"] == event]
    for cut in cuts[:: max(1, len(cuts) // 6)]:
        resumed = make_study(events[:cut])
        simulate(resumed, SearchSourceWithTeachers(resumed, 16))
        assert [list(r.document.items()) for r in resumed.records.values()] == [
            list(r.document.items()) for r in whole.records.values()
        ]
        assert {i: (r.state, r.curve) for i, r in resumed.records.items()} == {
            i: (r.state, r.curve) for i, r in whole.records.items()
        }


def test_a_stop_that_was_decided_but_not_told_is_told_on_opening(make_study, simulate) -> None:
    study = make_study()
    simulate(study, SearchSourceWithTeachers(study, 16))
    events = study.journal.events[1:]
    cut = next(i for i, e in enumerate(events) if e["event"] == "told" and e["state"] == "pruned")
    resumed = make_study(events[:cut])
    assert resumed.records[events[cut]["trial_id"]].state == "pruned"
    assert not resumed.unfinished()


def test_what_one_method_found_of_the_optimizer_is_tried_with_the_others(make_study) -> None:
    study = make_study()
    assert study.transfer("ogm") is None, "nothing has run to its end"
    asks = {method: study.paper(method)[0] for method in ("joint", "ogm")}
    lr = study.space.optimizers["sgd"].knobs["lr"]
    document, params = study.space.setting("joint", {"sgd.lr": lr.high}, lambda name: name)
    asks["best"] = Ask.of(document, stage="search", why="tpe", params=params)
    for ask, score in zip(asks.values(), (0.5, 0.6, 0.9), strict=True):
        trial = begin(study, ask)
        study.report(trial, epoch(9, score))
        study.tell(trial, "complete")
    ask = study.transfer("ogm")
    assert ask is not None and ask.why == "transfer"
    assert ask.document["optimizer"]["lr"] == lr.high
    assert ask.document["method"] == asks["ogm"].document["method"], "the rest is the method's own best"
    assert study.space.params_of(ask.document) == ask.params
    assert study.transfer("joint") is None, "that is the best trial itself"
    begin(study, ask)
    assert study.transfer("ogm") is None, "once"


def test_the_sampler_learns(make_study) -> None:
    early, late = [], []
    for seed in range(3):
        study = make_study()
        study.space.seed = seed
        miss = []
        for _ in range(40):
            ask = study.suggest("joint")
            trial = begin(study, ask)
            miss.append(abs(math.log10(ask.document["optimizer"]["lr"]) + 1.5))
            study.report(trial, epoch(9, 1 - miss[-1]))
            study.tell(trial, "complete")
        early += miss[:6]
        late += miss[-10:]
    assert sum(late) / len(late) < 0.6 * sum(early) / len(early)


class SearchSourceWithTeachers:
    """Both, as a sweep has them."""

    def __init__(self, study: Study, trials: int) -> None:
        self._sources = [TeacherSource(study), SearchSource(study, trials=trials)]

    def next(self):
        first = self._sources[0].next()
        return first if isinstance(first, Ask) else self._sources[1].next()

    def told(self, record) -> None:
        pass
