"""Gradient-Blending: weights from rehearsals that leave the model alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.gradient_blending import JOINT, GradientBlending, blend_weights
from mmsearch.testing import MethodConformance, difference, finish, toy_data, weights
from mmsearch.training import Training, train

LOSS = st.floats(0, 10, allow_nan=False)
PAIR = st.tuples(LOSS, LOSS).map(list)


def run(epochs: int = 4, modalities: int = 2, missing: float = 0.0, **knobs: Any) -> Training:
    document = {
        "method": {"name": "gradient_blending", **knobs},
        "optimizer": {"name": "sgd", "lr": 0.05},
        "epochs": epochs,
        "batch_size": 16,
    }
    return train(document, toy_data(modalities, missing=missing))


def test_worked_example() -> None:
    before = {"a": [2.0, 2.1], "v": [2.2, 2.3], JOINT: [1.9, 2.0]}
    after = {"a": [1.0, 1.6], "v": [1.4, 1.7], JOINT: [0.4, 1.3]}
    w = blend_weights(before, after, eps=1e-3)
    assert list(w.values()) == pytest.approx([0.110535, 0.829016, 0.060449], abs=1e-6)


def test_a_head_that_generalises_worse_weighs_nothing() -> None:
    w = blend_weights({"a": [2.0, 2.0], "v": [2.0, 2.0]}, {"a": [1.0, 2.2], "v": [1.9, 1.95]}, eps=1e-3)
    assert w == {"a": 0.0, "v": 1.0}


def test_weights_are_equal_where_no_head_generalises_better() -> None:
    w = blend_weights({"a": [2.0, 2.0], "v": [2.0, 2.0]}, {"a": [1.0, 2.2], "v": [1.0, float("nan")]}, eps=1e-3)
    assert w == {"a": 0.5, "v": 0.5}


def test_overfitting_of_nothing_is_credited_with_the_floor() -> None:
    before, after = {"a": [2.0, 2.0], "v": [2.0, 2.0]}, {"a": [1.0, 1.0], "v": [1.0, 1.1]}
    assert blend_weights(before, after, eps=0.1)["a"] == pytest.approx(1 / 1.9)


@given(st.lists(st.tuples(PAIR, PAIR), min_size=2, max_size=5), st.floats(1e-6, 1e-1))
@settings(max_examples=50, deadline=None)
def test_weights_are_on_the_simplex(losses: list, eps: float) -> None:
    w = blend_weights(
        {str(i): b for i, (b, _) in enumerate(losses)}, {str(i): a for i, (_, a) in enumerate(losses)}, eps
    )
    assert sum(w.values()) == pytest.approx(1)
    assert min(w.values()) >= 0


@given(st.integers(1, 60), st.floats(0.06, 0.7))
@settings(max_examples=50, deadline=None)
def test_every_super_epoch_has_an_epoch(epochs: int, super_epoch: float) -> None:
    method = GradientBlending(super_epoch=super_epoch)
    method._modalities, method._epochs = ["a", "v"], epochs
    shares = [s.share for s in method.stages() if not s.rehearsal]
    ends = [round(sum(shares[: i + 1]) * epochs) for i in range(len(shares))]
    assert ends[-1] == epochs
    assert all(b > a for a, b in zip([0, *ends], ends, strict=False))


def test_online_rehearses_every_head_before_every_super_epoch() -> None:
    results = finish(run(epochs=4, super_epoch=0.5))
    once = ["m0 alone"] * 2 + ["m1 alone"] * 2 + ["joint alone"] * 2 + ["blend"] * 2
    assert [r.stage for r in results] == once * 2
    assert results[-1].epoch == 4


def test_offline_rehearses_a_whole_training_once() -> None:
    results = finish(run(epochs=3, mode="offline"))
    assert [r.stage for r in results] == ["m0 alone"] * 3 + ["m1 alone"] * 3 + ["joint alone"] * 3 + ["blend"] * 3


def test_it_costs_about_three_joint_trainings() -> None:
    assert 2.5 < finish(run(epochs=3, mode="offline"))[-1].cost_joint_epochs / 3 < 4


def test_rehearsals_leave_the_model_alone() -> None:
    training = run(epochs=2, mode="offline")
    before = weights(training)
    while next(training).stage != "joint alone":
        assert training.epoch == 0
    next(training)
    assert difference(weights(training), before) == 0


def test_a_unimodal_rehearsal_moves_only_its_encoder_and_head() -> None:
    training = run(epochs=2, mode="offline")
    before = weights(training)
    next(training)
    moved = {k for k, w in weights(training).items() if not torch.equal(w, before[k])}
    assert moved
    assert all(k.startswith(("encoders.m0", "extra.unimodal_heads.m0")) for k in moved)


def test_losses_are_means_over_clips_from_the_very_start() -> None:
    training = run(epochs=2, mode="offline")
    expected = [training.evaluate(part) for part in ("fit", "held")]
    next(training)
    before = training.method.state_dict()["before"]
    assert before[JOINT] == pytest.approx([e.loss for e in expected], abs=1e-5)


def test_clips_without_a_modality_do_not_count_for_its_head() -> None:
    training = run(epochs=2, mode="offline", missing=0.5)
    held = training.evaluate("held")
    here = held.batch.present["m1"]
    expected = torch.nn.functional.cross_entropy(held.output.unimodal["m1"][here], held.batch.label[here])
    next(training)
    assert training.method.state_dict()["before"]["m1"][1] == pytest.approx(float(expected), abs=1e-5)


def test_the_modality_that_is_easier_to_learn_weighs_more() -> None:
    last = finish(run(epochs=9))[-1].metrics
    assert last["gradient_blending/w/m0"] > last["gradient_blending/w/m1"]


def test_all_weight_on_the_joint_head_is_joint_training() -> None:
    alone = run(modalities=1)
    document = {k: v for k, v in alone.document.items() if k != "method"}
    joint = train({**document, "method": {"name": "joint"}}, toy_data(1))
    finish(alone)
    finish(joint)
    shared = weights(joint)
    assert difference({k: w for k, w in weights(alone).items() if k in shared}, shared) == 0


class TestOffline(MethodConformance):
    method = {"name": "gradient_blending", "mode": "offline"}
    epochs = 2


class TestShortSuperEpochs(MethodConformance):
    method = {"name": "gradient_blending", "super_epoch": 0.06}
    epochs = 2
