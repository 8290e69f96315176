"""MMPareto: the integrated gradient, and who receives it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.errors import MMSearchError
from mmsearch.fusion.concat import Concat
from mmsearch.methods.mmpareto import MMPareto, alpha_m, integrated, products
from mmsearch.testing import MethodConformance, finish, toy_data, weights
from mmsearch.training import train


def vector(*x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def final(g_m: list[torch.Tensor], g_u: list[torch.Tensor], variant: str, gamma: float = 1.5) -> torch.Tensor:
    return torch.cat(integrated([g.clone() for g in g_m], [g.clone() for g in g_u], variant, gamma)[0])


@pytest.mark.parametrize(
    ("g_m", "g_u", "cos", "alpha", "h", "expected"),
    [
        ((1, 0.5), (0.5, 2), 0.650791, 0.5, (1.5, 2.5), (2.25, 3.75)),
        ((1, 0), (-1, 2), -0.447214, 0.75, (1, 1), (2.121320, 2.121320)),
        ((0.3, 0.1), (-2, 1), -0.707107, 0.901639, (0.147541, 0.377049), (1.106779, 2.828434)),
    ],
    ids=["agree", "conflict", "conflict2"],
)
def test_worked_example(g_m: tuple, g_u: tuple, cos: float, alpha: float, h: tuple, expected: tuple) -> None:
    found, scale, a, c = integrated([vector(*g_m)], [vector(*g_u)], "paper")
    assert c.item() == pytest.approx(cos, abs=1e-6)
    assert a.item() == pytest.approx(alpha, abs=1e-6)
    torch.testing.assert_close(found[0] / scale, vector(*h), rtol=0, atol=1e-6)
    torch.testing.assert_close(final([vector(*g_m)], [vector(*g_u)], "paper"), vector(*expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "expected", "tolerance"),
    [("paper", (2.1406, 2.0367, 1.0391), 5e-5), ("official", (2.1734, 2.0679, 0.9000), 5e-5)],
)
def test_the_magnitude_of_the_encoder_or_of_each_tensor(variant: str, expected: tuple, tolerance: float) -> None:
    g_m, g_u = [vector(1, 0), vector(0.2)], [vector(-1, 2), vector(0.4)]
    alpha, cos = alpha_m(*products(g_m, g_u).sum(1))
    assert (alpha.item(), cos.item()) == (pytest.approx(0.756219, abs=1e-6), pytest.approx(-0.397142, abs=1e-6))
    torch.testing.assert_close(final(g_m, g_u, variant), vector(*expected), rtol=0, atol=tolerance)


gradients = st.lists(st.floats(-5, 5).map(lambda x: round(x, 3)), min_size=3, max_size=3).filter(any)


@settings(max_examples=60, deadline=None)
@given(gradients, gradients)
def test_invariants(a: list, b: list) -> None:
    g_m, g_u = vector(*a), vector(*b)
    h, scale, alpha, _ = integrated([g_m.clone()], [g_u.clone()], "paper")
    g, h = h[0], [h[0] / scale]
    assert torch.isfinite(g).all()
    assert 0 <= alpha <= 1
    total = (g_m + g_u).norm()
    if h[0].norm() > 1e-6 * total:
        assert g.norm().item() == pytest.approx(max(h[0].norm(), total).item(), rel=1e-9)
    if g_m @ g_u >= 0:
        torch.testing.assert_close(g, g_m + g_u)
        return
    assert (h[0] @ g_m).item() == pytest.approx((h[0] @ g_u).item(), abs=1e-9)
    assert h[0] @ g_m >= -1e-9
    for x in torch.linspace(0, 1, 21, dtype=torch.float64):
        assert h[0].norm() <= 2 * (x * g_m + (1 - x) * g_u).norm() + 1e-9


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize(
    "g_u", [vector(-1, 2), vector(-3, 6), vector(0, 0)], ids=["opposite", "opposite and longer", "zero"]
)
def test_degenerate_gradients_stay_finite(variant: str, g_u: torch.Tensor) -> None:
    g = final([vector(1, -2)], [g_u], variant, gamma=1.0)
    assert torch.isfinite(g).all()
    if not g_u.any():
        assert torch.equal(g, vector(1, -2))


def one_step(method: dict) -> tuple[dict, dict]:
    """Weights before and after one step on the whole of train."""
    data = toy_data()
    optimizer = {"name": "sgd", "lr": 0.02, "weight_decay": 1e-6}
    run = train({"method": method, "optimizer": optimizer, "epochs": 1, "batch_size": 400}, data)
    before = weights(run)
    finish(run)
    return before, weights(run)


@pytest.mark.parametrize("heads", ["separate", "slices"])
def test_gamma_scales_encoders_but_heads_get_the_plain_sum(heads: str) -> None:
    start, one = one_step({"name": "mmpareto", "gamma": 1.0, "heads": heads})
    _, scaled = one_step({"name": "mmpareto", "gamma": 2.0, "heads": heads})
    if heads == "separate":
        _, uniform = one_step({"name": "uniform"})
        assert all(torch.allclose(one[k], uniform[k], atol=1e-6) for k in uniform if not k.startswith("encoders"))
    for k in (k for k in start if start[k].is_floating_point() and "running" not in k):
        factor = 2.0 if k.startswith("encoders") else 1.0
        torch.testing.assert_close(scaled[k] - start[k], factor * (one[k] - start[k]), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_learning_rate_moves_an_encoder_as_far_as_the_gradient(variant: str) -> None:
    _, grad = one_step({"name": "mmpareto", "variant": variant})
    _, lr = one_step({"name": "mmpareto", "variant": variant, "apply_to": "lr"})
    assert all(torch.allclose(grad[k], lr[k], atol=1e-6) for k in grad)


def test_an_encoder_gets_two_backward_passes_not_three() -> None:
    cost = next(train({"method": {"name": "mmpareto"}, "epochs": 1}, toy_data())).cost_joint_epochs
    assert 1.4 < cost < 1.9


def test_slices_need_a_head_that_can_be_cut() -> None:
    class Whole(Concat):
        decomposable = False

    class Mixing(Concat):
        mixes = True

    assert "heads: separate" in MMPareto(heads="slices").refuses(Whole(), ["a", "v"])
    assert not MMPareto(heads="separate").refuses(Whole(), ["a", "v"])
    assert MMPareto().refuses(Mixing(), ["a", "v"])


def test_an_unknown_variant_is_an_error() -> None:
    with pytest.raises(MMSearchError, match="variant"):
        train({"method": {"name": "mmpareto", "variant": "tensor"}}, toy_data())


class TestOfficial(MethodConformance):
    method = {"name": "mmpareto", "variant": "official", "heads": "slices", "apply_to": "lr"}
    epochs = 3
