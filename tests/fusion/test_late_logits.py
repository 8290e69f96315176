"""The weighted mean of unimodal logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.fusion import FUSIONS
from mmsearch.fusion.late_logits import LateLogitsHead, negative_entropy, simplex
from mmsearch.testing import FusionConformance

WEIGHTS = ["fixed", "learned", "entropy", "energy"]
Z_A = torch.tensor([[2, 0.5, -1], [0.2, 1.5, 0], [1, 0, 2.5], [1.2, 0.3, 0.1]], dtype=torch.float64)
Z_V = torch.tensor([[0.3, 0.1, 0], [0.5, 0.4, 0.2], [0.2, 0.6, 0.5], [0, 0.9, 0.1]], dtype=torch.float64)
E0 = {"a": Z_A, "v": Z_V}


def head_of(weights: str, widths: dict[str, int], classes: int = 3) -> LateLogitsHead:
    return FUSIONS.create({"name": "late_logits", "weights": weights}).build(widths, classes).double()


def transparent(weights: str) -> LateLogitsHead:
    """Features are the logits themselves."""
    head = head_of(weights, {"a": 3, "v": 3})
    for layer in head.linear.values():
        layer.weight.data, layer.bias.data = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    return head


def assert_close(x: torch.Tensor, y: list, atol: float) -> None:
    torch.testing.assert_close(x, torch.tensor(y, dtype=torch.float64), rtol=0, atol=atol)


def test_worked_example_of_weighted_logits() -> None:
    head = transparent("learned")
    head.score.data = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    assert_close(head(E0)[0], [0.725, 0.2, -0.25], 1e-6)
    assert_close(head(E0)[0].softmax(0), [0.5079, 0.3005, 0.1916], 5e-5)


def test_entropy_weights_of_e0() -> None:
    assert_close(-negative_entropy(Z_A), [0.621585, 0.863226, 0.680022, 0.974429], 1e-6)
    w = simplex(negative_entropy(torch.stack([Z_A, Z_V])), torch.ones(2, 4, dtype=torch.bool))
    assert_close(w[0], [0.615159, 0.556729, 0.599924, 0.508696], 1e-6)
    torch.testing.assert_close(transparent("entropy")(E0), w[0][:, None] * Z_A + w[1][:, None] * Z_V)


def test_energy_weights_of_e0() -> None:
    energies = torch.tensor([0.224131, 0.123983], dtype=torch.float64)
    w = energies.softmax(0)
    torch.testing.assert_close(transparent("energy")(E0)[0], w[0] * Z_A[0] + w[1] * Z_V[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", ["fixed", "learned"])
def test_equal_weights_are_the_mean(weights: str) -> None:
    torch.testing.assert_close(transparent(weights)(E0), (Z_A + Z_V) / 2)


@settings(deadline=None, max_examples=25)
@given(M=st.integers(1, 5), B=st.integers(1, 4), seed=st.integers(0, 999))
def test_weights_are_on_the_simplex_of_those_who_are_here(M: int, B: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    score = 5 * torch.randn(M, B, dtype=torch.float64, generator=generator)
    here = torch.rand(M, B, generator=generator) > 0.4
    w = simplex(score, here)
    assert (w >= 0).all() and (w[~here] == 0).all()
    torch.testing.assert_close(w.sum(0), here.any(0).double())


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_missing_modality_is_left_out(weights: str) -> None:
    head = head_of(weights, {"a": 3, "v": 4, "t": 2})
    h = {u: torch.randn(5, d, dtype=torch.float64) for u, d in head.widths.items()}
    zero = {**h, "a": torch.zeros(5, 3, dtype=torch.float64)}
    without = {u: h[u] for u in ("t", "v")}
    torch.testing.assert_close(head(zero), head(without))
    alone = head({"v": h["v"]})
    torch.testing.assert_close(alone, head.unimodal(h)["v"])
    nobody = {u: torch.zeros(1, d, dtype=torch.float64) for u, d in head.widths.items()}
    assert head(nobody).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_gradients_are_finite_where_a_clip_has_nothing(weights: str) -> None:
    head = head_of(weights, {"a": 3, "v": 4})
    h = {u: torch.randn(2, d, dtype=torch.float64) * torch.tensor([[1.0], [0.0]]) for u, d in head.widths.items()}
    head(h).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


@pytest.mark.parametrize("weights", ["entropy", "energy"])
def test_no_gradient_flows_through_confidence(weights: str) -> None:
    head = transparent(weights)
    h = {u: x.clone().requires_grad_() for u, x in E0.items()}
    with torch.no_grad():
        w = simplex(head._score(torch.stack([Z_A, Z_V]), ["a", "v"]), torch.ones(2, 4, dtype=torch.bool))
    head(h).sum().backward()
    torch.testing.assert_close(h["a"].grad, w[0][:, None].expand(4, 3))


def test_a_lower_temperature_trusts_the_larger_energy_more() -> None:
    mild, sharp = (
        FUSIONS.create({"name": "late_logits", "weights": "energy", "tau": tau}).build({"a": 3, "v": 3}, 3).double()
        for tau in (10.0, 1.0)
    )
    z = torch.stack([Z_A, Z_V])[:, :1]
    here = torch.ones(2, 1, dtype=torch.bool)
    assert simplex(sharp._score(z, ["a", "v"]), here)[0] > simplex(mild._score(z, ["a", "v"]), here)[0] > 0.5
    assert math.isclose(float(simplex(sharp._score(z, ["a", "v"]), here).sum()), 1)


@pytest.mark.parametrize("weights", ["fixed", "entropy", "energy"])
class TestConformance(FusionConformance):
    @pytest.fixture(autouse=True)
    def _weights(self, weights: str) -> None:
        self.fusion = {"name": "late_logits", "weights": weights}
