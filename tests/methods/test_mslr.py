"""MSLR: encoder factors that follow held-out accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.mslr import bases, ratio
from mmsearch.testing import MethodConformance, finish, toy_data
from mmsearch.training import train

HISTORY = [0.30, 0.34, 0.36, 0.38, 0.40]


def test_worked_example() -> None:
    assert ratio([*HISTORY, 0.44], 5) == pytest.approx(1.2359551, abs=1e-7)
    assert 1.1 * ratio([*HISTORY, 0.44], 5) == pytest.approx(1.3595506, abs=1e-7)


def test_the_ratio_is_one_until_the_memory_is_full() -> None:
    assert [ratio([*HISTORY, 0.44][:n], 5) for n in range(1, 6)] == [1.0] * 5


def test_only_the_last_epochs_are_remembered() -> None:
    assert ratio([0.9, 0.9, *HISTORY, 0.44], 5) == ratio([*HISTORY, 0.44], 5)


def test_a_modality_that_was_never_right_is_not_scaled() -> None:
    assert ratio([0.0, 0.0, 0.5], 2) == 1


@given(st.floats(0.5, 1.5), st.integers(2, 5))
@settings(max_examples=20, deadline=None)
def test_bases_have_mean_one(base: float, M: int) -> None:
    b = bases(base, [f"m{i}" for i in range(M)])
    assert sum(b.values()) == pytest.approx(M)
    assert b["m0"] == base
    assert min(b.values()) > 0


def test_the_published_bases() -> None:
    assert bases(0.9, ["sound", "frames"]) == pytest.approx({"sound": 0.9, "frames": 1.1})
    assert bases(1.3, ["sound", "frames"]) == pytest.approx({"sound": 1.3, "frames": 0.7})


@pytest.mark.parametrize("apply_to", ["grad", "lr"])
def test_the_factor_is_the_held_accuracy_over_its_recent_mean(apply_to: str) -> None:
    document = {
        "method": {"name": "mslr", "memory": 0.5, "apply_to": apply_to},
        "optimizer": {"name": "sgd", "lr": 0.05},
        "epochs": 4,
    }
    training = train(document, toy_data())
    held, factors = [], []
    for r in training:
        held.append(training.evaluate("held").unimodal["m0"])
        factors.append(r.metrics["mslr/k/m0"])
    assert factors == pytest.approx([0.9, 0.9, 0.9, 0.9 * held[2] / ((held[0] + held[1]) / 2)])


def test_an_encoder_moves_in_proportion_to_its_factor() -> None:
    moved = []
    for base in (0.5, 1.0):
        document = {
            "method": {"name": "mslr", "base": base},
            "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.0},
            "epochs": 1,
            "batch_size": 200,
        }
        training = train(document, toy_data())
        before = [p.detach().clone() for p in training.groups["m0"]]
        next(training)
        moved.append(torch.cat([(p - b).flatten() for p, b in zip(training.groups["m0"], before, strict=True)]))
    torch.testing.assert_close(moved[0], moved[1] / 2, atol=1e-6, rtol=1e-2)


def test_the_accuracy_points_at_the_stronger_modality() -> None:
    last = finish(train({"method": {"name": "mslr"}, "epochs": 3}, toy_data()))[-1].metrics
    assert last["mslr/accuracy/m0"] > last["mslr/accuracy/m1"]


def test_its_held_clips_are_not_trained_on(tmp_path: Path) -> None:
    training = train({"method": {"name": "mslr"}, "epochs": 1}, toy_data())
    assert not set(training.rows) & set(training.data.part("held"))


class TestLearningRate(MethodConformance):
    method = {"name": "mslr", "base": 1.4, "memory": 0.25, "apply_to": "lr"}
