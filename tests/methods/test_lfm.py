"""LFM: schedule, divergence and the learned weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.lfm import LFM, MeanHead, divergence, fitted, hessian_vector_product
from mmsearch.testing import MethodConformance, difference, finish, toy_data, weights
from mmsearch.training import Training, train
from tests.methods.test_worked_examples import Z_A, Z_V


def run(epochs: int = 4, modalities: int = 2, **knobs: Any) -> Training:
    document = {"method": {"name": "lfm", **knobs}, "optimizer": {"name": "sgd", "lr": 0.05}, "epochs": epochs}
    return train(document, toy_data(modalities))


def test_worked_example() -> None:
    assert float(divergence(Z_A, Z_V, "js").mean()) == pytest.approx(0.0839993, abs=1e-7)
    assert float(divergence(Z_A, Z_V, "mixture").mean()) == pytest.approx(0.0954612, abs=1e-7)


@pytest.mark.parametrize(
    ("e", "kappa"), [(0, 0.204624), (50, 0.436681), (100, 0.539155), (150, 0.821314), (199, 0.915989)]
)
def test_fitted_schedule(e: int, kappa: float) -> None:
    assert fitted(e / 200) == pytest.approx(kappa, abs=1e-6)


@pytest.mark.parametrize("schedule", ["fitted", "linear"])
@given(st.integers(1, 300), st.data())
@settings(max_examples=30, deadline=None)
def test_kappa_is_a_share(schedule: str, epochs: int, data: st.DataObject) -> None:
    e = data.draw(st.integers(0, epochs - 1))
    assert 0 <= LFM(schedule=schedule).kappa_cls(e, epochs) <= 1


@pytest.mark.parametrize("alignment", ["mixture", "js"])
@given(st.lists(st.floats(-20, 20), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_divergence_is_a_symmetric_distance_from_agreement(alignment: str, x: list) -> None:
    z = torch.tensor(x, dtype=torch.float64).view(2, 1, 3)
    d = divergence(z[0], z[1], alignment)
    torch.testing.assert_close(d, divergence(z[1], z[0], alignment))
    assert float(d) >= -1e-12
    assert float(divergence(z[0], z[0], alignment)) == pytest.approx(0, abs=1e-12)


def test_hessian_vector_product_equals_the_full_hessian() -> None:
    a, b = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (3, 2))

    def loss(t: torch.Tensor) -> torch.Tensor:
        return (t[:3].sin() * t[2:5].exp()).sum() + (t[0] * t[4]) ** 2

    def cls(t: torch.Tensor) -> torch.Tensor:
        return (t**3).sum()

    theta = torch.cat([a, b])
    H = torch.autograd.functional.hessian(loss, theta.detach())
    found = hessian_vector_product(loss(theta), cls(theta), [a, b])
    torch.testing.assert_close(found, (H @ (3 * theta.detach() ** 2))[:3])


def test_it_predicts_with_the_mean() -> None:
    head = MeanHead({"a": 4, "v": 3, "t": 2}, 5)
    h = {"a": torch.randn(6, 4), "v": torch.randn(6, 3), "t": torch.randn(6, 2)}
    torch.testing.assert_close(head(h), torch.stack(list(head.unimodal(h).values())).mean(0))


def test_classification_takes_over() -> None:
    for schedule in ("fitted", "linear"):
        kappas = [r.metrics["lfm/kappa_cls"] for r in run(schedule=schedule)]
        assert kappas == sorted(kappas)
        assert kappas[0] < 0.25
    assert kappas == pytest.approx([0.05, 0.275, 0.5, 0.725])


def test_aligned_modalities_agree_more() -> None:
    first, *_, last = finish(run(epochs=8, schedule="learned", eta=1e-5))
    assert last.metrics["lfm/alignment"] < first.metrics["lfm/alignment"]


def test_learned_kappa_follows_the_gradient_once_an_epoch() -> None:
    training = run(schedule="learned", eta=1e-2)
    kappa = 0.95
    for r in training:
        eta = 1e-2 / 2 ** (10 * (r.epoch - 1) // 4)
        kappa = min(max(kappa - eta * r.metrics["lfm/G"], 0.05), 0.95)
        assert r.metrics["lfm/kappa_cls"] == pytest.approx(1 - kappa)
    assert training.method.state_dict()["kappa_align"] == pytest.approx(kappa)


def test_learning_kappa_touches_no_weight_or_statistic() -> None:
    training = run(schedule="learned")
    before = weights(training)
    method, context = training.method, training.context
    assert isinstance(method, LFM)
    context.start_epoch(method.stages()[0], 0, 1)
    method._learn(context)
    assert difference(weights(training), before) == 0
    assert all(p.grad is None for p in training.model.parameters())


def test_learning_kappa_sees_held_clips_only() -> None:
    training = run(schedule="learned")
    clips = training.context.sample("held", 8)
    assert len(clips) == 8
    assert not set(clips.index.tolist()) & set(training.rows.tolist())
    assert torch.equal(clips.index, training.context.sample("held", 8).index)


def test_learning_kappa_costs_next_to_nothing() -> None:
    costs = [finish(run(epochs=2, schedule=s))[-1].cost_joint_epochs for s in ("fitted", "learned")]
    assert costs[1] < 1.6 * costs[0]


def test_one_modality_is_plain_joint_training() -> None:
    training = run(epochs=1, modalities=1)
    batch = training.context.sample("train", 8)
    training.context.start_step(batch, 0.0)
    out = training.model(batch)
    expected = torch.nn.functional.cross_entropy(out.logits, batch.label)
    assert torch.equal(training.method.compute_loss(training.context, out, batch), expected)


class TestLearned(MethodConformance):
    method = {"name": "lfm", "schedule": "learned", "eta": 1e-2}


class TestLinear(MethodConformance):
    method = {"name": "lfm", "schedule": "linear", "alignment": "js"}
    epochs = 2
