"""The second answer: which fusion, under joint training and under the leading method."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.recommend.decision import Finalist, decide
from mmsearch.recommend.fusions import fusion_evidence
from mmsearch.search.trials import TrialRecord

SHIFT = [0.0, 0.015, -0.01, 0.02, 0.005]


def finalist(method: str, fusion: str, level: float, seed: int = 0, dropped: bool = False) -> Finalist:
    rng = np.random.default_rng([seed, len(method), len(fusion)])
    select = {i: level + s + 0.001 * rng.normal() for i, s in enumerate(SHIFT[: 1 if dropped else 5])}
    trial_ids = {i: f"{method}-{fusion}-{i}" for i in select}
    return Finalist({"method": {"name": method}, "fusion": {"name": fusion}}, trial_ids, select, dropped=dropped)


def records(finalists: list[Finalist], post_hoc: dict[str, float]) -> dict[str, TrialRecord]:
    found = {}
    for f in finalists:
        for trial_id in f.trial_ids.values():
            metrics = {"val/accuracy": 0.8} | {f"val/accuracy/fusion/{k}": 0.8 + g for k, g in post_hoc.items()}
            about = {"stage": "confirm", "method": f.method, "fusion": f.fusion, "document": {"fold": 1}, "params": {}}
            found[trial_id] = TrialRecord(trial_id, **about, why="confirmation", metrics=metrics)
    return found


def evidence(finalists: list[Finalist], post_hoc: dict[str, float] | None = None) -> dict:
    return fusion_evidence(records(finalists, post_hoc or {}), finalists, decide(finalists), 0.001)


def test_each_method_has_its_own_best_fusion_with_its_chance_and_whether_that_changes() -> None:
    found = evidence(
        [
            finalist("joint", "concat", 0.80),
            finalist("joint", "sum", 0.78),
            finalist("ogm", "concat", 0.85),
            finalist("ogm", "gated", 0.83),
            finalist("ogm", "sum", 0.88),
        ]
    )
    joint, ogm = found["under"]
    assert (joint["method"], joint["best"], joint["proven"]) == ("joint", "concat", True)
    assert [f["fusion"] for f in ogm["fusions"]] == ["sum", "concat", "gated"]
    assert ogm["fusions"][0]["p_best"] > 0.99 and ogm["fusions"][0]["behind"] is None
    assert ogm["fusions"][1]["behind"]["mean"] == pytest.approx(0.03, abs=0.003)
    assert found["changes"] == {"changes": True, "chance": pytest.approx(1, abs=0.01)}


def test_a_post_hoc_fusion_competes_at_no_training_of_its_own() -> None:
    found = evidence([finalist("joint", "concat", 0.80), finalist("joint", "sum", 0.79)], {"decision/mean": 0.05})
    (joint,) = found["under"]
    best = joint["fusions"][0]
    assert (best["fusion"], best["post_hoc"], best["label"], best["seeds"]) == ("decision/mean", True, None, 5)
    assert joint["fusions"][1]["behind"]["mean"] == pytest.approx(0.05), "over the host on the same clips"
    assert found["changes"] is None


def test_a_fusion_that_was_dropped_is_listed_but_never_the_best() -> None:
    found = evidence([finalist("joint", "concat", 0.80), finalist("joint", "sum", 0.95, dropped=True)])
    (joint,) = found["under"]
    assert joint["best"] == "concat"
    assert [(f["fusion"], f["seeds"]) for f in joint["fusions"]] == [("concat", 5), ("sum", 1)]


def test_one_fusion_alone_is_no_question() -> None:
    found = evidence([finalist("joint", "concat", 0.80), finalist("ogm", "concat", 0.85)])
    assert found["under"] == [] and found["changes"] is None


def test_a_head_that_a_method_brings_is_no_fusion_to_compare() -> None:
    found = evidence(
        [
            finalist("joint", "concat", 0.80),
            finalist("unimodal_teacher", "own", 0.85),
            finalist("unimodal_teacher", "concat", 0.84),
        ]
    )
    assert found["under"] == []
