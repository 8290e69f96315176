from __future__ import annotations

from collections import Counter

import pytest

from mmsearch.search.allocation import Joint
from mmsearch.search.finalists import finalists
from mmsearch.search.sources import (
    FINISHED,
    WAIT,
    Chain,
    ConfirmSource,
    SearchSource,
    TeacherSource,
)
from mmsearch.search.space import is_ensemble
from mmsearch.training import trial_id


def both(study, trials: int, **options) -> Chain:
    return Chain({"teachers": TeacherSource(study), "search": SearchSource(study, trials=trials, **options)})


def test_teachers_then_every_paper_setting_then_equal_shares(make_study, simulate) -> None:
    study = make_study()
    asks = simulate(study, both(study, 24))
    assert len(asks) == 24
    assert [a.stage for a in asks[:2]] == ["teacher", "teacher"]
    assert [a.why for a in asks[2:6]] == ["paper setting"] * 4
    assert {a.method for a in asks[2:5]} == {"joint", "ogm", "unimodal_teacher"}, "every method's own setting first"
    counts = Counter(a.method for a in asks)
    assert set(counts) == {"joint", "ogm", "unimodal", "unimodal_teacher"}
    assert max(counts.values()) - min(counts.values()) <= 1


def test_teachers_are_trials_of_unimodal_and_trained_once(make_study, simulate) -> None:
    study = make_study()
    asks = simulate(study, both(study, 12), slots=4)
    space = study.space
    needing = [a for a in asks if a.document["teachers"]]
    assert len(needing) >= 2
    assert {t for a in needing for t in a.document["teachers"].values()} == {
        trial_id(space.teacher(u)) for u in space.modalities
    }
    assert len({a.trial_id for a in asks}) == len(asks)
    assert len(study.view("unimodal").trials) == sum(a.method == "unimodal" for a in asks)


def test_only_what_depends_on_teachers_waits(make_study) -> None:
    study = make_study()
    source = both(study, 12)
    asked = []
    while True:
        answer = source.next()
        if answer is WAIT or len(asked) > 20:
            break
        study.issue(answer)
        asked.append(answer)
    methods = Counter(a.method for a in asked)
    assert methods["unimodal"] >= 2 and methods["joint"] >= 1 and methods["unimodal_teacher"] == 0
    assert len(asked) == 12 - 2, "the budget of the two paper settings that wait is kept"
    for ask in asked[:2]:
        study.started(ask.trial_id, 0)
        study.tell(ask.trial_id, "complete")
    assert source.next().method == "unimodal_teacher"


def test_where_a_teacher_failed_its_dependents_fail_once(make_study, simulate) -> None:
    study = make_study()
    weak = trial_id(study.space.teacher("sound"))
    asks = simulate(study, both(study, 20), fail=lambda d: weak in (trial_id(d), *d["teachers"].values()))
    assert sum(a.method == "unimodal_teacher" for a in asks) == 2, "its paper settings, and no more"
    assert len(asks) == 20


def test_time_budget_is_checked_before_each_ask(make_study, simulate) -> None:
    study = make_study()
    seconds = iter(range(100))
    asks = simulate(study, both(study, 50, time_budget=5, clock=lambda: next(seconds)))
    assert len(asks) == 2 + 5


def test_a_grown_budget_goes_on(make_study, simulate) -> None:
    study = make_study()
    simulate(study, both(study, 9))
    again = make_study(study.journal.events[1:])
    assert len(simulate(again, both(again, 12))) == 3


def test_an_exhausted_space_finishes(make_study, simulate, driver) -> None:
    text = driver.SPACE.replace("  sgd:", "  sgd: {{lr: 0.05, weight_decay: 0.0001}}").replace("  ogm:\n", "")
    study = make_study(text=text.replace("teacher: [ume, umt]", "teacher: ume\n    level: prob"))
    asks = simulate(study, both(study, 50))
    assert Counter(a.method for a in asks) == {"unimodal": 2, "joint": 1, "unimodal_teacher": 1}


@pytest.fixture
def searched(make_study, simulate):
    study = make_study()
    simulate(study, both(study, 24))
    return study


def test_finalists(searched) -> None:
    chosen = finalists(searched.records)
    assert [d["method"]["name"] for d in chosen[:2]] == ["joint", "unimodal"]
    assert is_ensemble(chosen[2])
    assert not any(is_ensemble(d) for d in chosen[3:])
    for document in chosen:
        record = searched.records[trial_id(document)]
        rivals = [
            r.score
            for r in searched.records.values()
            if r.state == "complete" and r.method == record.method and is_ensemble(r.document) == is_ensemble(document)
        ]
        assert record.state == "complete" and record.score == max(rivals)


def test_confirmation_on_fresh_seeds_and_splits(searched, simulate) -> None:
    asks = simulate(searched, ConfirmSource(searched, finalists, seeds=3), slots=3)
    confirm = [a for a in asks if a.stage == "confirm"]
    assert Counter(a.method for a in confirm)["joint"] == 3
    seeds = sorted({(a.document["seed"], a.document["fold"]) for a in asks})
    assert seeds == [(1000, 1), (1001, 2), (1002, 3)]
    order = {a.trial_id: i for i, a in enumerate(asks)}
    for ask in confirm:
        for teacher in ask.document["teachers"].values():
            assert order[teacher] < order[ask.trial_id]
            assert searched.records[teacher].document["seed"] == ask.document["seed"]
    assert not any(r.state == "pruned" for r in searched.records.values() if not r.searched)


def test_a_finalist_that_is_a_teacher_is_trained_once(searched, simulate) -> None:
    teacher = searched.space.teacher("sound")
    chosen = [teacher, *(d for d in finalists(searched.records) if d["teachers"])]
    asks = simulate(searched, ConfirmSource(searched, lambda _: chosen, seeds=2))
    assert len({a.trial_id for a in asks}) == len(asks)
    sound = [a for a in asks if a.document["method"] == teacher["method"]]
    assert [a.stage for a in sound] == ["confirm", "confirm"], "its model is kept and it is judged"


def test_confirmation_waits_for_the_search(searched) -> None:
    study = searched
    ask = study.suggest("joint")
    study.issue(ask)
    source = ConfirmSource(study, finalists, seeds=1)
    assert source.next() is WAIT
    study.tell(ask.trial_id, "complete")
    assert source.next() not in (WAIT, FINISHED)


def test_chain_announces_each_phase_once(make_study, simulate) -> None:
    study = make_study()
    phases: list[str] = []
    chain = Chain({"teachers": TeacherSource(study), "search": SearchSource(study, trials=8)}, phases.append)
    simulate(study, chain)
    assert phases == ["teachers", "search"] and chain.next() is FINISHED


def test_the_ensemble_is_tried_however_few_trials_there_are(make_study, simulate) -> None:
    study = make_study()
    asks = simulate(study, both(study, 6))
    assert sum(is_ensemble(a.document) for a in asks) == 1
    assert {a.method for a in asks} == {"joint", "ogm", "unimodal", "unimodal_teacher"}


def test_joint_lets_one_sampler_choose_the_method_after_every_paper_setting(make_study, simulate, driver) -> None:
    def best_of_ogm(document: dict, epoch: int) -> float:
        return 0.5 + 0.3 * (document["method"]["name"] == "ogm") + 0.1 * driver.quality(document)

    study = make_study(epochs=1)
    asks = simulate(study, both(study, 40, allocation=Joint()), score=best_of_ogm)
    papers = [a for a in asks if a.why == "paper setting"]
    assert len(asks) == 40 and [a.why for a in asks[2 : 2 + len(papers)]] == ["paper setting"] * len(papers)
    drawn = Counter(a.method for a in asks[-20:])
    assert drawn.most_common(1)[0][0] == "ogm" and drawn["ogm"] > 8, "more than the five of equal shares"
    cut = next(i for i, e in enumerate(study.journal.events) if e.get("trial_id") == asks[30].trial_id)
    again = make_study([e for e in study.journal.events[:cut] if e["event"] != "opened"], epochs=1)
    simulate(again, both(again, 40, allocation=Joint()), score=best_of_ogm)
    assert list(again.records) == list(study.records)
