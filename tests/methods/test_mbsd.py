"""MBSD against its worked example, and who teaches whom."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.mbsd import distance, weight
from mmsearch.testing import MethodConformance, finish, toy_data
from mmsearch.training import train

Z_A = torch.tensor([[2, 0.5, -1], [0.2, 1.5, 0], [1, 0, 2.5], [1.2, 0.3, 0.1]], dtype=torch.float64)
Z_V = torch.tensor([[0.3, 0.1, 0], [0.5, 0.4, 0.2], [0.2, 0.6, 0.5], [0, 0.9, 0.1]], dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 1])


class TestConstantWeight(MethodConformance):
    method = {"name": "mbsd", "lam": 10.0}


def test_worked_example() -> None:
    expected = torch.tensor([0.394903, 0.326592, 0.414786, 0.305087], dtype=torch.float64)
    torch.testing.assert_close(weight(Z_A, Z_V, Y), expected, rtol=0, atol=1e-6)


def test_a_clip_that_nobody_gets_right_teaches_nothing() -> None:
    assert weight(Z_A[:1], Z_V[:1], torch.tensor([2])) == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_it_swaps_with_the_modalities(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z_a, z_v = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (5,), generator=generator)
    torch.testing.assert_close(weight(z_a, z_v, y), weight(z_v, z_a, y))
    torch.testing.assert_close(distance(z_a, z_v, y), distance(z_v, z_a, y))


def test_the_divergence_is_of_whole_distributions_and_moves_the_weaker_only() -> None:
    z_a, z_v = Z_A.clone().requires_grad_(), Z_V.clone().requires_grad_()
    square = (z_a - z_v).square().mean(1)
    kl = distance(z_a, z_v, Y) - square
    a_leads = torch.tensor([True, True, True, False])
    log_a, log_v = F.log_softmax(Z_A, 1), F.log_softmax(Z_V, 1)
    p, log_q = torch.where(a_leads[:, None], log_a, log_v), torch.where(a_leads[:, None], log_v, log_a)
    torch.testing.assert_close(kl.detach(), F.kl_div(log_q, p, log_target=True, reduction="none").sum(1))
    g_a, g_v = torch.autograd.grad(kl.sum(), (z_a, z_v))
    assert torch.allclose(g_a[:3], torch.zeros(3, 3, dtype=torch.float64))
    assert torch.allclose(g_v[3:], torch.zeros(1, 3, dtype=torch.float64))
    assert (g_v[:3].abs().sum(1) > 0.01).all()
    assert g_a[3:].abs().sum() > 0.01


def test_the_easier_modality_teaches() -> None:
    run = train({"method": {"name": "mbsd"}, "epochs": 2, "batch_size": 16, "optimizer": {"name": "sgd"}}, toy_data())
    assert all(r.metrics["mbsd/teaches/m0"] > 2 * r.metrics["mbsd/teaches/m1"] for r in finish(run))


def test_heads_of_the_method_train_beside_encoders_in_bfloat16() -> None:
    document = {"method": {"name": "mbsd"}, "precision": "bf16", "epochs": 1, "batch_size": 16}
    assert finish(train(document, toy_data(clips=80)))[-1].final
