"""MSES: an encoder returns to its best epoch and stays there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.data.clips import ClipData
from mmsearch.methods.mses import smoothed
from mmsearch.testing import MethodConformance, difference, finish, toy_data, weights
from mmsearch.training import Training, train

OVERFITTING = {"name": "sgd", "lr": 0.1, "weight_decay": 1e-2}


def run(epochs: int = 20) -> Training:
    document = {
        "method": {"name": "mses", "patience": 0.2},
        "optimizer": OVERFITTING,
        "epochs": epochs,
        "batch_size": 16,
    }
    return train(document, toy_data())


def test_losses_are_smoothed_over_two_epochs() -> None:
    assert smoothed(None, 2.0) == 2.0
    assert smoothed(2.0, 1.0) == pytest.approx(1.6)


@given(st.floats(0, 10), st.floats(0, 10))
@settings(max_examples=20, deadline=None)
def test_a_smoothed_loss_lies_between_the_two(previous: float, current: float) -> None:
    low, high = sorted([previous, current])
    assert low - 1e-9 <= smoothed(previous, current) <= high + 1e-9


def test_a_stopped_encoder_is_back_at_its_best_epoch_and_moves_no_more() -> None:
    training = run()
    history: list[dict[str, torch.Tensor]] = []
    losses: list[float] = []
    for r in training:
        history.append(weights(training))
        losses.append(r.metrics["mses/loss/m1"])
        if r.metrics["mses/stopped/m1"]:
            break
    assert r.epoch < training.epochs
    assert r.metrics["mses/stopped/m0"] == 0
    best = min(range(r.epoch), key=lambda e: losses[e])
    assert r.epoch - 1 - best > 0.2 * training.epochs
    assert difference(history[-1], history[best]) == 0
    next(training)
    later = weights(training)
    moved = {k for k, _ in training.model.named_parameters() if not torch.equal(later[k], history[best][k])}
    assert not any(k.startswith("encoders.m1") for k in moved)
    assert any(k.startswith("encoders.m0") for k in moved)


def test_with_every_encoder_stopped_nothing_moves() -> None:
    training = run()
    while len(training.method.state_dict()["stopped"]) < 2:
        next(training)
    assert training.epoch < training.epochs
    before = {k: p.detach().clone() for k, p in training.model.named_parameters()}
    next(training)
    assert all(torch.equal(p, before[k]) for k, p in training.model.named_parameters())


def test_the_loss_points_at_the_stronger_modality() -> None:
    first = finish(train({"method": {"name": "mses"}, "epochs": 3}, toy_data()))[-1].metrics
    assert first["mses/loss/m0"] < first["mses/loss/m1"]


class TestStopping(MethodConformance):
    method = {"name": "mses", "patience": 0.2}
    epochs = 20

    def document(self, data: ClipData) -> dict:
        return {**super().document(data), "optimizer": OVERFITTING}

    def test_it_stops_here(self, tmp_path: Path) -> None:
        run = self.finished(toy_data(), tmp_path)
        assert run.method.state_dict()["stopped"]
