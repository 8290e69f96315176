"""One temperature a modality."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmsearch.fusion import FUSIONS
from mmsearch.fusion.temperature import HOTTEST, TemperatureHead
from mmsearch.testing import FusionConformance

ALL = {"a": torch.ones(400, dtype=torch.bool), "v": torch.ones(400, dtype=torch.bool)}


def drawn(clips: int = 400) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Logits from which the labels are drawn; the second modality's are twice as large as they should be."""
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(clips, 4, dtype=torch.float64, generator=generator)
    label = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    return {"a": z, "v": 2 * z}, label


def fitted(average: str = "prob") -> TemperatureHead:
    head = FUSIONS.create({"name": "temperature", "average": average}).build({"a": 1, "v": 1}, 4).double()
    head.fit(*drawn(), ALL)
    return head


def test_temperatures_are_those_of_least_nll() -> None:
    T = fitted().T
    assert T[1] / T[0] == pytest.approx(2, rel=1e-3)
    z, label = drawn()
    for i, u in enumerate(z):
        beta = (1 / T[i]).clone().requires_grad_()
        F.cross_entropy(z[u] * beta, label).backward()
        assert beta.grad is not None and abs(beta.grad) < 1e-4


def test_calibrated_opinions_are_averaged() -> None:
    z, _ = drawn()
    p = [F.softmax(z[u] / fitted().T[i], 1) for i, u in enumerate(z)]
    torch.testing.assert_close(fitted("prob").combine(z, ALL).softmax(1), (p[0] + p[1]) / 2)
    geometric = (p[0] * p[1]).sqrt()
    expected = geometric / geometric.sum(1, keepdim=True)
    torch.testing.assert_close(fitted("log_prob").combine(z, ALL).softmax(1), expected)


@pytest.mark.parametrize("average", ["prob", "log_prob"])
def test_a_missing_modality_is_left_out(average: str) -> None:
    z, _ = drawn()
    head = fitted(average)
    alone = head.combine(z, {**ALL, "v": ~ALL["v"]})
    torch.testing.assert_close(alone.softmax(1), F.softmax(z["a"] / head.T[0], 1))


def test_a_temperature_is_fitted_to_the_clips_that_have_the_modality() -> None:
    z, label = drawn()
    half = torch.arange(400) < 200
    head = FUSIONS.create({"name": "temperature"}).build({"a": 1, "v": 1}, 4).double()
    head.fit({**z, "v": torch.where(half[:, None], z["v"], 0)}, label, {**ALL, "v": half})
    other = FUSIONS.create({"name": "temperature"}).build({"v": 1}, 4).double()
    other.fit({"v": z["v"][half]}, label[half], {"v": half[half]})
    torch.testing.assert_close(head.T[1], other.T[0])
    head.fit(z, label, {**ALL, "v": ~ALL["v"]})
    assert head.T[1] == other.T[0], "nothing was there to fit it to"


def test_opinions_that_are_always_right_or_useless_stay_within_bounds() -> None:
    label = torch.arange(8) % 4
    right = torch.eye(4, dtype=torch.float64)[label]
    head = FUSIONS.create({"name": "temperature"}).build({"a": 1, "v": 1}, 4).double()
    head.fit({"a": right, "v": -right}, label, {u: torch.ones(8, dtype=torch.bool) for u in ("a", "v")})
    assert 1 / HOTTEST <= head.T[0] < 0.1
    assert head.T[1].item() == pytest.approx(HOTTEST)


class TestLogarithms(FusionConformance):
    fusion = {"name": "temperature", "average": "log_prob"}
