"""Sweeps without training."""

from __future__ import annotations

import pytest

from mmsearch.search.allocation import Race
from mmsearch.search.journal import Journal
from mmsearch.search.simulate import FAMILIES, Curve, Synthetic, drive
from mmsearch.search.sources import Chain, SearchSource, TeacherSource
from mmsearch.search.study import Study


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
