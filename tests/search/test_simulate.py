"""Sweeps without training."""

from __future__ import annotations

from collections import Counter

import pytest

from mmsearch.errors import MMSearchError
from mmsearch.recommend.evidence import finalists_of
from mmsearch.search.allocation import Race
from mmsearch.search.finalists import FEW_SEEDS, FIRST_SEEDS, finalists
from mmsearch.search.journal import Journal
from mmsearch.search.simulate import FAMILIES, Curve, Recorded, Synthetic, drive
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.space import is_ensemble
from mmsearch.search.study import Study
from mmsearch.training import trial_id


def sweep(study: Study, world, trials: int = 30, **options) -> float:
    source = Chain({"teachers": TeacherSource(study), "search": SearchSource(study, trials=trials, allocation=Race())})
    return drive(study, source, world, **options).cost


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_through_the_real_study(make_study, family: str) -> None:
    study = make_study(epochs=9)
    world = Synthetic(family, 3, study.space)
    cost = sweep(study, world)
    records = list(study.records.values())
    assert len(records) == 30 and all(r.finished for r in records)
    lost = 4 * sum(r.state == "failed" for r in records)
    assert -1e-6 <= cost - sum(r.cost_joint_epochs for r in records) <= lost + 1e-6
    for record in records:
        assert 0 <= world.truth(record.document) <= world.peaks()[record.method]
        if record.state == "complete":
            assert abs(record.score - world.truth(record.document)) < 6 * max(world.noise, 0.008)


def test_the_same_problem_gives_the_same_sweep_and_another_seed_another(make_study) -> None:
    def asked(seed: int) -> list[tuple]:
        study = make_study()
        sweep(study, Synthetic("spread", seed, study.space))
        return [(r.trial_id, r.score, r.state) for r in study.records.values()]

    assert asked(0) == asked(0)
    assert asked(0) != asked(1)


def test_a_sweep_goes_on_from_its_journal(make_study) -> None:
    whole = make_study()
    world = Synthetic("failing", 1, whole.space)
    sweep(whole, world, slots=1)
    cut = [e for e in whole.journal.events if e["event"] != "opened"][:60]
    study = make_study(cut)
    assert isinstance(study.journal, Journal)
    sweep(study, world, slots=1)
    assert [(r.trial_id, r.state, r.score) for r in study.records.values()] == [
        (r.trial_id, r.state, r.score) for r in whole.records.values()
    ]


def test_the_late_method_is_joint_training_before_it_acts(make_study) -> None:
    space = make_study().space
    world = Synthetic("late", 0, space)
    late = next(m for m, b in world.behaviour.items() if b.acts == FAMILIES["late"]["late"])
    document = next(iter(space.paper_documents(late)))
    curve = world.curve({**document, "epochs": 50}, {})
    assert isinstance(curve, Curve)
    assert max(curve.scores[:29]) < world.behaviour["joint"].peak + 0.03
    assert max(curve.scores) - curve.scores[-1] < 0.02 and curve.scores[-1] - curve.scores[29] > 0.01


def test_the_budget_ends_the_asking(make_study) -> None:
    study = make_study()
    cost = sweep(study, Synthetic("spread", 0, study.space), trials=500, budget=100.0)
    assert 100 <= cost < 100 + 4 * study.space.settings["epochs"] * 2


class Known:
    """A world where a method alone says how good a training is."""

    def __init__(self, **scores: float) -> None:
        self.scores = scores

    def curve(self, document: dict, params: dict) -> Curve:
        score = self.truth(document) + int(trial_id(document), 16) % 7 * 1e-4
        return Curve([score] * document["epochs"], 1.0, score)

    def truth(self, document: dict) -> float:
        return self.scores[document["method"]["name"]]

    def peaks(self) -> dict[str, float]:
        return self.scores


def confirmed_seeds(study) -> Counter:
    found = [r for r in study.records.values() if r.stage == "confirm"]
    return Counter("ensemble" if is_ensemble(r.document) else r.method for r in found)


@pytest.mark.parametrize("slots", [1, 3])
def test_the_confirmation_drops_who_is_beaten_and_keeps_the_baselines(make_study, slots: int) -> None:
    study = make_study()
    world = Known(joint=0.8, ogm=0.5, unimodal=0.6, unimodal_teacher=0.805)
    sweep(study, world, trials=24)
    drive(study, ConfirmSource(study, finalists, seeds=5), world, slots=slots)
    seeds = confirmed_seeds(study)
    assert seeds["joint"] == seeds["unimodal"] == seeds["ensemble"] == 5
    assert seeds["ogm"] == FIRST_SEEDS
    found = {f.method: f for f in finalists_of(study.records)}
    assert found["ogm"].dropped and len(found["ogm"].select) == FIRST_SEEDS and not found["joint"].dropped


@pytest.mark.parametrize("slots", [1, 3])
def test_where_joint_training_beats_everything_the_confirmation_ends_early(make_study, slots: int) -> None:
    study = make_study()
    world = Known(joint=0.8, ogm=0.5, unimodal=0.6, unimodal_teacher=0.7)
    sweep(study, world, trials=24)
    drive(study, ConfirmSource(study, finalists, seeds=6), world, slots=slots)
    seeds = confirmed_seeds(study)
    assert FEW_SEEDS <= seeds["joint"] <= (FEW_SEEDS if slots == 1 else 6), "free slots are filled with later seeds"
    assert seeds["joint"] == seeds["unimodal"] == seeds["ensemble"]


def test_a_confirmation_goes_on_from_its_journal(make_study) -> None:
    world = Known(joint=0.8, ogm=0.5, unimodal=0.6, unimodal_teacher=0.805)
    whole = make_study()
    sweep(whole, world, trials=24)
    drive(whole, ConfirmSource(whole, finalists, seeds=4), world, slots=1)
    events = [e for e in whole.journal.events if e["event"] != "opened"]
    for cut in range(len(events) - 100, len(events), 20):
        study = make_study(events[:cut])
        drive(study, ConfirmSource(study, finalists, seeds=4), world, slots=1)
        assert list(study.records) == list(whole.records)


def test_recorded_trainings_answer_for_the_nearest_setting(make_study) -> None:
    space = make_study(epochs=3).space
    joint = space.paper_documents("joint")[0]

    def line(document: dict, lr: float, val: list[float], select: list[float]) -> dict:
        optimizer = {**document["optimizer"], "lr": lr}
        return {"document": {**document, "optimizer": optimizer}, "val": val, "select": select, "cost": 1.5}

    low = line(joint, 0.001, [0.1, 0.2, 0.3], [0.1, 0.2, 0.31])
    again = line({**joint, "seed": 7}, 0.001, [0.1, 0.2, 0.34], [0.1, 0.2, 0.33])
    high = line(joint, 0.1, [0.1, 0.5, 0.6], [0.1, 0.5, 0.59])
    world = Recorded([low, again, high])
    near = {**joint, "optimizer": {**joint["optimizer"], "lr": 0.002}}
    assert world.curve(near, {}).scores in (low["val"], again["val"])
    assert world.curve(high["document"], {}) == Curve(high["val"], 1.5, 0.59)
    assert world.truth(near) == pytest.approx(0.32)
    assert world.peaks() == {"joint": 0.59}
    broken = Recorded([line(joint, 0.1, [0.1, 0.2], [0.1, 0.2])]).curve(joint, {})
    assert broken.fails_at == 3 and len(broken.scores) == 3
    assert Recorded([line(joint, 0.1, [0.4], [0.5])]).curve(joint, {}).at_once
    with pytest.raises(MMSearchError, match="empty"):
        Recorded([])
