"""Cosines of gradients."""

from __future__ import annotations

import pytest
import torch

from mmsearch.diagnostics.agreement import cosine, gradients


@pytest.mark.parametrize(
    "g, h, expected",
    [((1.0, 0.5), (0.5, 2.0), 0.650791), ((1.0, 0.0), (-1.0, 2.0), -0.447214), ((0.3, 0.1), (-2.0, 1.0), -0.707107)],
)
def test_the_worked_cosines(g: tuple[float, float], h: tuple[float, float], expected: float) -> None:
    assert cosine([torch.tensor(g)], [torch.tensor(h)]) == pytest.approx(expected, abs=1e-6)
    split = [torch.tensor(g[:1]), torch.tensor(g[1:])], [torch.tensor(h[:1]), torch.tensor(h[1:])]
    assert cosine(*split) == pytest.approx(expected, abs=1e-6), "over all tensors together"


def test_a_zero_gradient_agrees_with_nothing() -> None:
    assert cosine([torch.zeros(3)], [torch.ones(3)]) is None


def test_gradients_keep_the_graph_and_are_zero_where_a_loss_does_not_reach() -> None:
    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    loss = (a**2).sum()
    for _ in range(2):
        g = gradients(loss, [a, b])
        assert (g[0].item(), g[1].item()) == (4.0, 0.0)
    assert gradients(torch.tensor(1.0), [a])[0].item() == 0.0
