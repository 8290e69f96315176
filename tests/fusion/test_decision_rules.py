"""Rules on the modalities' opinions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.fusion import FUSIONS
from mmsearch.fusion.decision import RULES, borda_points, cascade, votes
from mmsearch.testing import FusionConformance

THREE = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.4, 0.35, 0.25]], dtype=torch.float64)[:, None]
HERE = torch.ones(3, 1, dtype=torch.bool)


def opinions(M: int, B: int = 1, C: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(M, B, C, dtype=torch.float64, generator=generator), 2)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", [0.466667, 0.383333, 0.15]),
        ("max", [0.7, 0.6, 0.25]),
        ("min", [0.3, 0.2, 0.1]),
        ("median", [0.4, 0.35, 0.1]),
    ],
)
def test_scores_of_the_worked_example(rule: str, expected: list[float]) -> None:
    score = RULES[rule](THREE.log(), HERE).exp()[0]
    torch.testing.assert_close(score, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)


def test_product_of_the_worked_example() -> None:
    p = RULES["product"](THREE.log(), HERE).softmax(1)[0]
    expected = torch.tensor([0.653696, 0.326848, 0.019455], dtype=torch.float64)
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-6)


def test_votes_and_points_of_the_worked_example() -> None:
    assert votes(THREE.log(), HERE)[0].tolist() == [2, 1, 0]
    assert borda_points(THREE.log(), HERE)[0].tolist() == [5, 4, 0]


def test_product_of_e0_is_that_of_the_summed_logits() -> None:
    z = torch.tensor([[[2, 0.5, -1]], [[0.3, 0.1, 0]]], dtype=torch.float64)
    p = RULES["product"](z.log_softmax(2), HERE[:2]).softmax(1)[0]
    torch.testing.assert_close(p, torch.tensor([0.8200, 0.1498, 0.0302], dtype=torch.float64), rtol=0, atol=5e-5)


@pytest.mark.parametrize("rule", ["vote", "borda"])
def test_a_tie_falls_to_the_mean_probability(rule: str) -> None:
    p = torch.tensor([[[0.5, 0.4, 0.1]], [[0.2, 0.7, 0.1]]], dtype=torch.float64)
    assert RULES[rule](p.log(), HERE[:2]).argmax(1).item() == 1


@pytest.mark.parametrize("rule", ["vote", "borda"])
def test_no_mean_probability_outweighs_a_vote_or_a_point(rule: str) -> None:
    p = torch.tensor([[[0.34, 0.33, 0.33]], [[0.34, 0.33, 0.33]], [[0.3, 0.4, 0.3]]], dtype=torch.float64)
    assert RULES[rule](p.log(), HERE).argmax(1).item() == 0
    p = torch.tensor([[[0.51, 0.49]], [[0.51, 0.49]], [[1e-9, 1 - 1e-9]]], dtype=torch.float64)
    assert RULES[rule](p.log(), HERE).argmax(1).item() == 0


def test_median_of_two_is_their_mean() -> None:
    log_p = opinions(2)
    torch.testing.assert_close(RULES["median"](log_p, HERE[:2]), RULES["mean"](log_p, HERE[:2]))


@pytest.mark.parametrize("rule", [*RULES, "cascade"])
@settings(deadline=None, max_examples=15)
@given(M=st.integers(2, 4), gone=st.integers(0, 3), seed=st.integers(0, 99))
def test_a_missing_modality_has_no_say(rule: str, M: int, gone: int, seed: int) -> None:
    names = [f"m{i}" for i in range(M)]
    z = dict(zip(names, opinions(M, 5, 4, seed), strict=True))
    here = {u: torch.full((5,), u != names[gone % M]) for u in names}
    fewer = [u for u in names if here[u].all()]
    head = FUSIONS.create({"name": "decision", "rule": rule}).build(dict.fromkeys(names, 1), 4)
    less = FUSIONS.create({"name": "decision", "rule": rule}).build(dict.fromkeys(fewer, 1), 4)
    expected = less.combine({u: z[u] for u in fewer}, here)
    torch.testing.assert_close(head.combine(z, here), expected)
    torch.testing.assert_close(head.combine({u: z[u] for u in fewer}, here), expected)


@pytest.mark.parametrize("rule", [*RULES, "cascade"])
def test_one_modality_is_its_own_decision(rule: str) -> None:
    log_p = opinions(1, 20, 5)
    head = FUSIONS.create({"name": "decision", "rule": rule}).build({"a": 1}, 5)
    z = head.combine({"a": log_p[0]}, {"a": torch.ones(20, dtype=torch.bool)})
    assert torch.equal(z.argmax(1), log_p[0].argmax(1))


@pytest.mark.parametrize("rule", [*RULES, "cascade"])
def test_a_clip_without_any_modality_gets_no_opinion(rule: str) -> None:
    head = FUSIONS.create({"name": "decision", "rule": rule}).build({"a": 1, "v": 1}, 3)
    nobody = {u: torch.zeros(1, dtype=torch.bool) for u in ("a", "v")}
    assert head.combine(dict(zip("av", opinions(2), strict=True)), nobody).tolist() == [[0, 0, 0]]


def test_the_cascade_goes_on_until_one_is_sure() -> None:
    order = torch.tensor([2, 1, 0])
    for threshold, chosen in ((0.39, 2), (0.5, 1), (0.65, 0), (0.9, 0)):
        assert torch.equal(cascade(THREE.log(), HERE, order, threshold)[0], THREE[chosen, 0].log())


def test_the_cascade_ends_with_the_last_one_that_is_there() -> None:
    here = torch.tensor([[False], [True], [True]])
    assert torch.equal(cascade(THREE.log(), here, torch.tensor([2, 1, 0]), 0.9)[0], THREE[1, 0].log())


def test_the_cascade_asks_the_best_on_held_clips_first() -> None:
    label = torch.arange(4) % 2
    good = torch.eye(2, dtype=torch.float64)[label] * 4
    head = FUSIONS.create({"name": "decision", "rule": "cascade"}).build({"a": 1, "v": 1, "t": 1}, 2)
    half = good[[0, 1, 1, 0]]
    present = {u: torch.ones(4, dtype=torch.bool) for u in ("a", "v", "t")}
    head.fit({"a": -good, "v": half, "t": good}, label, present)
    assert head.order.tolist() == [2, 1, 0]
    torch.testing.assert_close(head.combine({"a": -good, "v": half, "t": good}, present), good.log_softmax(1))


@pytest.mark.parametrize("rule", ["cascade", "vote", "median"])
class TestConformance(FusionConformance):
    @pytest.fixture(autouse=True)
    def _rule(self, rule: str) -> None:
        self.fusion = {"name": "decision", "rule": rule}
