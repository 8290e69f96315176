"""The plan of a sweep: its arithmetic against what the real study, stopping and allocation do."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from mmsearch.errors import MMSearchError
from mmsearch.search.allocation import ALLOCATIONS
from mmsearch.search.costs import Costs, assumed, measured
from mmsearch.search.finalists import FIRST_SEEDS, finalists
from mmsearch.search.plan import Plan, equal_lengths, plan, trained_epochs
from mmsearch.search.simulate import Synthetic, drive
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.stopping import Halving
from mmsearch.testing import finish, toy_data
from mmsearch.training import train

COSTS = Costs(
    {"joint": [1.0], "ogm": [1.5], "unimodal": [0.4, 0.6], "unimodal_teacher": [0.0, 1.2]},
    measured=True,
)


def planned(space, trials: int = 20, **options) -> Plan:
    return plan(space, COSTS, **{"trials": trials, "allocation": "equal", "seeds": 3, **options})


def epochs_trained(scores: list[list[float]], epochs: int) -> int:
    """Epochs that trials train one after the other; per trial its score at every rung."""
    halving = Halving()
    rungs = list(halving.rungs(epochs).values())
    total = 0
    for i, at_rungs in enumerate(scores):
        judged = zip(rungs, at_rungs, strict=True)
        total += next((e for e, s in judged if halving.stops("m", str(i), epoch=e, epochs=epochs, score=s)), epochs)
    return total


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_no_order_of_the_scores_trains_less_or_more_than_the_bounds(n: int) -> None:
    expected = trained_epochs(n, 27, (3, 9), 3)
    falling = [[-i, -i] for i in range(n)]
    rising = [[i, i] for i in range(n)]
    assert epochs_trained(falling, 27) == expected.low
    assert epochs_trained(rising, 27) == expected.high == 27 * n


def test_scores_in_random_order_train_what_is_expected() -> None:
    draw = random.Random(0)
    runs = [epochs_trained([[draw.random(), draw.random()] for _ in range(12)], 27) for _ in range(2000)]
    assert sum(runs) / len(runs) == pytest.approx(trained_epochs(12, 27, (3, 9), 3).expected, rel=0.02)


def test_teachers_are_not_stopped() -> None:
    assert trained_epochs(5, 27, (3, 9), 3, kept=3).low == 3 * 27 + 2 * 3


@pytest.mark.parametrize("allocation", list(ALLOCATIONS))
def test_every_method_gets_what_the_plan_says(allocation: str, make_study, simulate) -> None:
    study = make_study()
    said = planned(study.space, 24, allocation=allocation)
    search = SearchSource(study, trials=24, allocation=ALLOCATIONS[allocation]())
    asked = Counter(a.method for a in simulate(study, Chain({"teachers": TeacherSource(study), "search": search})))
    for p in said.methods:
        assert p.trials.low <= asked[p.method] <= p.trials.high, p
    assert sum(p.trials.expected for p in said.methods) == 24
    if allocation == "equal":
        assert {p.method: p.trials.low for p in said.methods} == asked


def test_an_exhausted_method_leaves_its_trials_to_the_others(make_study, driver) -> None:
    text = driver.SPACE.replace("teacher: [ume, umt]", "teacher: ume\n    level: [prob, logit]")
    of = {p.method: p.trials for p in planned(make_study(text=text).space, 20).methods}
    assert (of["unimodal_teacher"].low, of["unimodal_teacher"].high) == (2, 2)
    assert sum(r.expected for r in of.values()) == 20


def test_a_method_that_acts_late_is_judged_late(make_study, driver) -> None:
    space = make_study(text=driver.SPACE.replace("  ogm:\n", "  ogm:\n  g2d:\n"), epochs=18).space
    costs = Costs({**COSTS.of, "g2d": [1.0]}, measured=False)
    rungs = {p.method: p.rungs for p in plan(space, costs, trials=20, allocation="equal", seeds=3).methods}
    assert rungs["joint"] == (2, 6)
    assert rungs["g2d"] == (9,)


def test_what_is_left_out_has_a_reason(make_study, driver) -> None:
    text = driver.SPACE.replace("  ogm:\n", "  ogm:\n  cml:\n").replace("  concat:\n", "  concat:\n  film:\n")
    space = make_study(text=text).space
    said = plan(space, Costs({**COSTS.of, "cml": [1.0]}, measured=False), trials=20, allocation="equal", seeds=3)
    reasons = {name: reason for reason, names in said.left_out.items() for name in names}
    assert reasons["mla"] == reasons["gated"] == "not asked for"
    assert reasons["cml with film"] == space.refusals("cml")["film"].partition(": ")[2]
    assert next(p.fusions for p in said.methods if p.method == "ogm") == ("concat", "film")


def test_the_search_costs_no_less_and_no_more_than_planned(make_study, simulate) -> None:
    study = make_study()
    said = planned(study.space, 24)
    of = {True: 0.4, False: 0.6}
    simulate(study, Chain({"teachers": TeacherSource(study), "search": SearchSource(study, trials=24)}))
    spent = 0.0
    for r in study.records.values():
        method = r.document["method"]
        trained = 0 if method.get("teacher") == "ume" else r.epoch
        cost = {"unimodal": of[method.get("modality") == "sound"], "unimodal_teacher": 1.2}
        spent += trained * cost.get(r.method, COSTS.of[r.method][0])
    assert said.search.low <= spent <= said.search.high
    assert said.search.low < said.search.expected < said.search.high


def test_the_confirmation_is_between_first_seeds_and_everybody_to_the_end(make_study, simulate) -> None:
    study = make_study()
    said = planned(study.space, 12)
    simulate(study, Chain({"teachers": TeacherSource(study), "search": SearchSource(study, trials=12)}))
    asked = simulate(study, ConfirmSource(study, finalists, seeds=3))
    assert said.confirm_trials.low <= len(asked) <= said.confirm_trials.high
    assert said.confirm_trials.low == 3 * (1 + 2 + 1) + 2 * FIRST_SEEDS, "two other methods on their first seeds"


def test_a_budget_below_one_trial_of_each_method_names_the_least(make_study) -> None:
    space = make_study().space
    least = math.ceil(9 * (1.0 + 1.5 + 0.4 + 0.6 + COSTS.of["unimodal_teacher"][0]) / 0.6)
    with pytest.raises(MMSearchError, match=f"--budget: .* at least {least}$"):
        planned(space, budget=least - 1)
    assert planned(space, budget=least).budget == least


def test_a_budget_ends_the_search_and_what_runs_is_finished(make_study) -> None:
    study = make_study()
    search = SearchSource(study, trials=50, budget=60)
    world = Synthetic("spread", 0, study.space)
    spent = drive(study, Chain({"teachers": TeacherSource(study), "search": search}), world, slots=2)
    assert 60 <= spent.cost < 60 + 2 * 9
    assert all(r.finished for r in study.records.values()) and len(study.records) < 50


def test_equal_cost_gives_every_method_the_joint_epochs_of_joint_training(make_study) -> None:
    space = make_study(epochs=12).space
    costs = Costs({**COSTS.of, "ogm": [8.0]}, measured=True)
    lengths = equal_lengths(space, costs)
    assert lengths == {"joint": 12, "ogm": 4, "unimodal": 12, "unimodal_teacher": 10}, "no fewer than the rungs need"
    space.lengths = lengths
    assert {m: space.paper_documents(m)[0]["epochs"] for m in space.methods} == lengths
    assert {d["epochs"] for d in space.teachers()} == {12}
    assert space.moved(space.paper_documents("ogm")[0], seed=9, fold=1)["epochs"] == 4


def test_costs_measured_on_noise_are_those_of_a_training(driver, tmp_path) -> None:
    data = toy_data()
    path = tmp_path / "space.yaml"
    path.write_text("methods:\n  mmpareto:\n  mla:\nfusions:\n  concat:\n")
    space = driver.Space.load(path, data.modalities, data=data.digest)
    costs = measured(space)
    assert costs.measured
    assert costs.of["joint"] == [1.0]
    assert sum(costs.of["unimodal"]) == pytest.approx(1.0, rel=0.01)
    assert 0.0 in costs.of["unimodal_teacher"]
    for method in ("mmpareto", "mla"):
        last = finish(train({**space.paper_documents(method)[0], "epochs": 3}, data))[-1]
        assert costs.of[method][0] == pytest.approx(last.cost_joint_epochs / 3, rel=0.1)


def test_assumed_costs_know_what_a_method_trains(make_study) -> None:
    of = assumed(make_study().space).of
    assert of["joint"] == of["ogm"] == [1.0]
    assert of["unimodal"] == [0.5, 0.5]
    assert sorted(of["unimodal_teacher"]) == [0.0, 1.0]
