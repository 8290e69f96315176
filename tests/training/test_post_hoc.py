"""Post-hoc fusions in the one loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.methods import METHODS, Method, NoOp, Stage
from mmsearch.testing import difference, finish, toy_data, weights
from mmsearch.training import Training, train

POST_HOC = [n for n in FUSIONS.names() if FUSIONS.get(n).post_hoc]
LABELS = {"decision": "decision/mean", "temperature": "temperature/prob"}
SHORT = {"optimizer": {"name": "sgd", "lr": 0.05}, "epochs": 3, "batch_size": 16}


def shared(run: Training, other: Training) -> float:
    theirs = weights(other)
    return difference({k: v for k, v in weights(run).items() if k in theirs}, theirs)


def test_every_post_hoc_fusion_is_reported_at_the_last_epoch_only() -> None:
    assert {"decision", "stacking", "temperature", "log_pool"} <= set(POST_HOC)
    results = finish(train({**SHORT, "post_hoc": POST_HOC}, toy_data()))
    reported = [{k for k in r.metrics if k.startswith("val/accuracy/fusion/")} for r in results]
    assert reported == [set(), set(), {f"val/accuracy/fusion/{LABELS.get(n, n)}" for n in POST_HOC}]
    assert all(0.3 < results[-1].metrics[k] <= 1 for k in reported[-1])


def test_reporting_them_costs_no_training_and_changes_none() -> None:
    data = toy_data(missing=0.3)
    plain, reporting = train({**SHORT, "held": True}, data), train({**SHORT, "post_hoc": POST_HOC}, data)
    expected, found = finish(plain), finish(reporting)
    assert difference(weights(plain), weights(reporting)) == 0
    assert [r.cost_joint_epochs for r in expected] == [r.cost_joint_epochs for r in found]
    assert expected[-1].metrics == {k: v for k, v in found[-1].metrics.items() if "/fusion/" not in k}


@pytest.mark.parametrize("method", ["joint", "ogm", "uniform"])
@pytest.mark.parametrize("fusion", POST_HOC)
def test_they_train_exactly_as_sum(fusion: str, method: str) -> None:
    data = toy_data()
    document = {**SHORT, "method": {"name": method}, "held": True}
    other, mine = (train({**document, "fusion": {"name": n}}, data) for n in ("sum", fusion))
    expected, found = finish(other), finish(mine)
    assert shared(mine, other) == 0
    assert [r.cost_joint_epochs for r in expected] == [r.cost_joint_epochs for r in found]


def test_one_as_the_fusion_scores_what_it_scores_beside_sum() -> None:
    data = toy_data(missing=0.3)
    beside = finish(train({**SHORT, "fusion": {"name": "sum"}, "post_hoc": POST_HOC}, data))[-1]
    for name in POST_HOC:
        chosen = finish(train({**SHORT, "fusion": {"name": name}}, data))[-1]
        assert chosen.score == beside.metrics[f"val/accuracy/fusion/{LABELS.get(name, name)}"]


@pytest.mark.parametrize("method", ["joint", "unimodal", "mla"])
def test_they_leave_the_callers_random_stream_alone(method: str) -> None:
    data = toy_data(clips=80)
    modality = {"modality": "m0"} if method == "unimodal" else {}
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    finish(train({**SHORT, "method": {"name": method, **modality}, "post_hoc": POST_HOC}, data))
    assert torch.equal(torch.rand(1), expected)


def test_a_fusion_is_fitted_to_the_logits_it_combines() -> None:
    """The method predicts with other unimodal logits than the head's."""
    run = train({**SHORT, "method": {"name": "uniform"}, "fusion": {"name": "temperature"}}, toy_data())
    finish(run)
    held = run.evaluate("held")
    again = FUSIONS.create({"name": "temperature"}).build({u: 1 for u in run.model.widths}, 4)
    with torch.no_grad():
        again.fit(run.model.fusion.unimodal(held.output.features), held.batch.label, held.batch.present)
    torch.testing.assert_close(run.model.fusion.T, again.T)


def test_held_clips_are_not_trained_on() -> None:
    data = toy_data()
    run = train({**SHORT, "fusion": {"name": "stacking"}}, data)
    assert set(run.rows) == set(data.part("fit")) and not set(run.rows) & set(data.part("held"))


@pytest.mark.parametrize("name", ["sum", "late_logits", "stakking"])
def test_only_post_hoc_fusions_can_be_asked_for_afterwards(name: str) -> None:
    with pytest.raises(MMSearchError, match="no post-hoc fusion"):
        train({**SHORT, "post_hoc": [name]}, toy_data())


@dataclasses.dataclass
class Halves(Method):
    """All parts, then encoders only."""

    name = "halves"
    summary = paper = formula = "a test's own"
    no_op = NoOp(None, reason="a test's own")

    def stages(self) -> tuple[Stage, ...]:
        return Stage("all", 0.5), Stage("encoders", 0.5, ("m0", "m1"))


def test_under_a_frozen_head_they_train_as_sum_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(METHODS._scan(), "halves", Halves)
    data = toy_data()
    document = {**SHORT, "epochs": 4, "method": {"name": "halves"}, "held": True}
    runs = [train({**document, "fusion": {"name": n}}, data) for n in ("sum", "log_pool")]
    for run in runs:
        finish(run)
    assert shared(runs[1], runs[0]) == 0


def test_rules_of_one_fusion_are_told_apart() -> None:
    rules = [{"name": "decision", "rule": r} for r in ("vote", "borda", "cascade")]
    metrics = finish(train({**SHORT, "post_hoc": rules}, toy_data()))[-1].metrics
    found = {k.removeprefix("val/accuracy/fusion/") for k in metrics if "/fusion/" in k}
    assert found == {"decision/vote", "decision/borda", "decision/cascade"}
