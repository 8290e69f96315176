"""Diagnosing and re-learning: purity, the pull to the initial weights, and when."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.diagnostics.separability import purity, separability
from mmsearch.methods.diagnose_relearn import DiagnoseRelearn, relearn
from mmsearch.testing import MethodConformance, difference, finish, toy_data, weights
from mmsearch.training import Training, train

TRAIN = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2]), np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 1])
HELD = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 0])


def run(**knobs: Any) -> Training:
    method = {"name": "diagnose_relearn", "period": 0.25, "R": 1, **knobs}
    return train({"method": method, "optimizer": {"name": "sgd", "lr": 0.05}, "epochs": 8}, toy_data())


def test_worked_purities_and_pull() -> None:
    assert purity(*TRAIN) == pytest.approx(0.9)
    assert purity(*HELD) == pytest.approx(4 / 6)
    a = math.tanh(3 * abs(purity(*TRAIN) - purity(*HELD)))
    assert a == pytest.approx(0.6043677771, abs=1e-9)
    theta = torch.tensor([0.8], dtype=torch.float64)
    relearn(theta, torch.tensor([0.2], dtype=torch.float64), a)
    assert theta.item() == pytest.approx(0.4373793337, abs=1e-9)


def test_worked_separability() -> None:
    x = [(0, 0), (0, 1), (1, 0), (10, 10), (10, 11), (11, 10), (0.5, 0.5), (10.5, 10.5)]
    assert separability(np.array(x, float), np.array([0, 0, 0, 1, 1, 1, 1, 0]), 2) == 0.75


def test_labels_may_be_any_integers_and_are_left_alone() -> None:
    label = np.array([7, 7, 7, 30, 30, 30, 5, 5, 5, 5])
    before = label.copy()
    assert purity(label, TRAIN[1]) == pytest.approx(0.9)
    assert np.array_equal(label, before)


def test_columns_are_scaled_and_a_constant_column_or_too_few_clips_do_no_harm() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 20)
    x = np.stack([label + 0.1 * rng.random(40), 1e6 * rng.random(40) + 1e9, np.ones(40)], 1)
    flat = np.stack([x[:, 0], np.zeros(40), np.ones(40)], 1)
    assert separability(flat, label, 2) == 1
    assert separability(x * [1e3, 1, 1], label, 2) == separability(x, label, 2)
    assert separability(x[:2], label[:2], 4) == 1


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 10), st.floats(0, 1), st.floats(-5, 5), st.floats(-5, 5))
def test_the_pull_stays_between_the_weights_and_their_start(lam: float, gap: float, theta: float, start: float) -> None:
    a = math.tanh(lam * gap)
    assert 0 <= a < 1
    x = torch.tensor([theta], dtype=torch.float64)
    relearn(x, torch.tensor([start], dtype=torch.float64), a)
    assert min(theta, start) - 1e-12 <= x.item() <= max(theta, start) + 1e-12
    y = torch.tensor([theta])
    relearn(y, torch.tensor([start]), 0.0)
    assert y.item() == torch.tensor([theta]).item()


def test_the_published_schedule_and_never_after_the_last_epoch() -> None:
    method = DiagnoseRelearn()
    events = []
    for epoch in range(90):
        if method.due(epoch, 90):
            events.append(epoch)
            method._done += 1
    assert events == [20, 40, 60]
    often = DiagnoseRelearn(period=1 / 4, R=6)
    assert [e for e in range(5) if often.due(e, 5)] == [1, 2, 3]


def test_it_pulls_every_parameter_of_the_encoders_and_nothing_else() -> None:
    mine, other = run(strength=10.0), run(strength=0.0)
    start = weights(mine)
    for _ in range(3):  # N = 2 of 8 epochs: after epoch 2, the third
        a, b = next(mine), next(other)
    after, free = weights(mine), weights(other)
    parameters = dict(mine.model.named_parameters())
    for name in after:
        if name.startswith("encoders") and name in parameters:
            gap = a.metrics[f"diagnose_relearn/a/{name.split('.')[1]}"]
            assert gap > 0
            torch.testing.assert_close(after[name], (1 - gap) * free[name] + gap * start[name])
        else:
            assert torch.equal(after[name], free[name]), name
    assert b.metrics["diagnose_relearn/a/m0"] == 0


@pytest.mark.parametrize("reset", [False, True])
def test_momentum_stays_unless_asked_to_go(reset: bool) -> None:
    training = run(reset_optimizer=reset)
    for _ in range(3):
        next(training)
    assert (len(training.optimizers["m0"].state_dict()["state"]) == 0) is reset
    assert len(training.optimizers["head"].state_dict()["state"]) > 0


def test_at_most_R_times() -> None:
    results = finish(run(R=2, period=1 / 8))
    assert ["diagnose_relearn/a/m0" in r.metrics for r in results] == [False, True, True] + [False] * 5


def test_the_second_purity_is_of_clips_it_never_trained_on() -> None:
    training = run()
    held = training.data.part("held")
    assert len(held) > 0
    assert not set(held) & set(training.rows)
    assert not set(held) & set(training.data.part("val"))


def test_no_times_is_joint_training() -> None:
    mine = run(R=0)
    other = train({**mine.document, "method": {"name": "joint"}}, mine.data)
    finish(mine)
    finish(other)
    assert difference(weights(mine), weights(other)) == 0


class TestOftenWithReset(MethodConformance):
    method = {"name": "diagnose_relearn", "strength": 10.0, "R": 6, "period": 5 / 90, "reset_optimizer": True}
