"""CGGM against its worked example, and what its classifiers may and may not move."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.cggm import alignment, balance, direction_loss, head_gradient
from mmsearch.testing import MethodConformance, difference, finish, toy_data, weights
from mmsearch.training import train


class TestLearningRate(MethodConformance):
    method = {"name": "cggm", "apply_to": "lr", "lam": 1.0}


def test_worked_example() -> None:
    before, now = torch.tensor([[0.3, 0.4, 0.2], [0.5, 0.45, 0.25]], dtype=torch.float64)
    B = balance(now - before)
    expected = torch.tensor([1 / 3, 5 / 6, 5 / 6], dtype=torch.float64)
    torch.testing.assert_close(B, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(1.3 * B, torch.tensor([0.433333, 1.083333, 1.083333]).double(), rtol=0, atol=1e-6)
    assert abs(direction_loss(B, torch.tensor([0.9, 0.2, 0.5]).double()).item() - 0.372222) < 1e-6


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=4))
def test_coefficients_neither_explode_nor_turn_the_gradient_round(delta: list[float]) -> None:
    B = balance(torch.tensor(delta, dtype=torch.float64))
    assert ((B >= 0) & (B <= 2)).all()
    assert direction_loss(B, torch.full_like(B, -1)) >= 0
    assert direction_loss(B, torch.ones_like(B)).abs() < 1e-12


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=4))
def test_who_gained_most_moves_least_while_all_gain(delta: list[float]) -> None:
    d = torch.tensor(delta, dtype=torch.float64)
    B = balance(d)
    torch.testing.assert_close(B.sum(), torch.tensor(len(delta) - 1.0).double(), rtol=0, atol=1e-5)
    assert B[d.argmax()] == B.min()


def test_the_closed_form_is_the_gradient_of_the_heads_weight() -> None:
    h, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    linear = torch.nn.Linear(4, 3).double()
    z = linear(h)
    F.cross_entropy(z, y).backward()
    torch.testing.assert_close(head_gradient(z, y, h), linear.weight.grad)


def test_directions_of_micro_batches_add_up_to_those_of_the_batch() -> None:
    g, y = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0, 2])
    gradients = []
    for parts in (1, 3):
        W = torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4).requires_grad_()
        h = torch.linspace(-2, 1, 24, dtype=torch.float64).view(6, 4).sin()
        G = head_gradient(h @ W.T, y, h)
        for h_i, y_i in zip(h.chunk(parts), y.chunk(parts), strict=True):
            (alignment(g, G, head_gradient(h_i @ W.T, y_i, h_i)) / parts).backward()
        gradients.append(W.grad)
        if parts == 1:
            (direct,) = torch.autograd.grad(F.cosine_similarity(g.flatten(), G.flatten(), dim=0), W)
            torch.testing.assert_close(W.grad, direct)
    torch.testing.assert_close(*gradients)


def test_classifiers_learn_and_leave_encoders_and_head_alone() -> None:
    data = toy_data(clips=16 + 200)
    document = {"epochs": 1, "batch_size": len(data), "optimizer": {"name": "sgd"}}
    mine, joint = (train({**document, "method": {"name": n}}, data) for n in ("cggm", "joint"))
    start = weights(mine)
    finish(mine)
    finish(joint)
    after, theirs = weights(mine), weights(joint)
    assert difference({k: v for k, v in after.items() if k in theirs}, theirs) == 0
    assert difference(after, start) > 0
    assert any(not torch.equal(after[k], start[k]) for k in after if "unimodal_heads" in k)


@pytest.mark.parametrize("modalities", [2, 3])
def test_the_easier_modalitys_classifier_is_ahead(modalities: int) -> None:
    document = {"method": {"name": "cggm"}, "epochs": 3, "batch_size": 16, "optimizer": {"name": "sgd"}}
    metrics = finish(train(document, toy_data(modalities)))[-1].metrics
    accuracy = [metrics[f"cggm/accuracy/m{i}"] for i in range(modalities)]
    assert max(accuracy) == accuracy[0]
    assert all(0 <= metrics[f"cggm/B/m{i}"] <= 2 for i in range(modalities))


@pytest.mark.parametrize("fusion", ["concat", "gated", "cross_attention"])
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_batch_norm_remembers_each_clip_once(fusion: str, micro_batch: int | None) -> None:
    document = {"epochs": 2, "batch_size": 16, "fusion": {"name": fusion}, "optimizer": {"name": "sgd"}}
    counted = []
    for name in ("cggm", "uniform"):
        run = train({**document, "method": {"name": name}}, toy_data(clips=80), micro_batch=micro_batch)
        finish(run)
        counted.append([int(v) for k, v in weights(run).items() if k.endswith("num_batches_tracked")])
    assert counted[0] == counted[1]
