"""Which documents are confirmed, and which of them stay."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.search.finalists import baselines, beaten, finalists
from mmsearch.search.trials import TrialRecord


def record(method: str, score: float, number: int, **knobs: object) -> TrialRecord:
    document = {"method": {"name": method, **knobs}, "fold": 0, "epochs": 9, "number": number}
    return TrialRecord(
        f"{method}{number}", "search", method, "concat", document, {}, "tpe", state="complete", score=score
    )


def records(**scores: list[float]) -> dict[str, TrialRecord]:
    found = [record(m, s, i) for m, among in scores.items() for i, s in enumerate(among)]
    return {r.trial_id: r for r in found}


def test_the_best_of_every_method_and_of_the_ensemble_the_baselines_first() -> None:
    known = records(joint=[0.50, 0.52, 0.51], ogm=[0.79, 0.81, 0.80], agm=[0.60], opm=[0.82], unimodal=[0.40])
    for other in (record("unimodal_teacher", 0.3, 0, teacher="ume"), record("unimodal_teacher", 0.7, 1, teacher="umt")):
        known[other.trial_id] = other
    known["opm0"].state = "failed"
    chosen = finalists(known)
    assert [(d["method"]["name"], d["number"]) for d in chosen] == [
        ("joint", 1), ("unimodal", 0), ("unimodal_teacher", 0), ("ogm", 1), ("unimodal_teacher", 1), ("agm", 0)
    ]  # fmt: skip
    assert baselines(chosen) == {0, 1, 2}
    assert finalists({}) == []


def test_joint_training_and_the_leading_method_bring_their_best_trial_with_every_fusion() -> None:
    known = records(joint=[0.50, 0.60, 0.55, 0.59], ogm=[0.80, 0.82, 0.70], agm=[0.60, 0.61], unimodal=[0.4])
    for name, fusion in (("joint1", "sum"), ("joint3", "gated"), ("ogm1", "sum"), ("ogm2", "gated"), ("agm1", "sum")):
        known[name].fusion = fusion
    known["ogm2"].state = "pruned"
    chosen = finalists(known)
    assert [(d["method"]["name"], d["number"]) for d in chosen] == [
        ("joint", 1), ("unimodal", 0), ("ogm", 1), ("agm", 1), ("joint", 2), ("joint", 3), ("ogm", 0)
    ], "agm leads nothing, and what was stopped stands for no fusion"  # fmt: skip
    assert baselines(chosen) == {0, 1}, "joint training with another fusion may be dropped"


def test_a_stopped_trial_stands_for_a_method_only_where_none_ran_to_its_end() -> None:
    known = records(joint=[0.9, 0.5, 0.6], ogm=[0.9, 0.5])
    for name, epoch in (("joint0", 3), ("joint1", 1), ("joint2", 3), ("ogm0", 3)):
        known[name].state, known[name].epoch = "pruned", epoch
    known["joint0"].state = "failed"
    assert [(d["method"]["name"], d["number"]) for d in finalists(known)] == [("joint", 2), ("ogm", 1)]


def test_a_gap_beyond_the_noise_is_beaten_and_one_within_is_not() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.normal(0, 0.05, 3)
    means = [0.80, 0.798, 0.60, 0.79]
    scores = [{i: float(m + s + rng.normal(0, 0.004)) for i, s in enumerate(seeds)} for m in means]
    assert 2 in beaten(scores) and not {0, 1} & beaten(scores), "what all share on a seed is no noise"


def test_nobody_is_beaten_on_one_seed_or_alone() -> None:
    assert beaten([{0: 0.9}, {0: 0.1}]) == set()
    assert beaten([{0: 0.9, 1: 0.9}]) == set() == beaten([])
    assert beaten([{0: 0.9, 1: 0.9}, {}]) == set(), "no score says nothing"


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=6))
def test_the_leader_is_never_beaten(values: list[list[float]]) -> None:
    out = beaten([dict(enumerate(v)) for v in values])
    assert max(range(len(values)), key=lambda i: sum(values[i])) not in out
