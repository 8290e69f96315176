"""FiLM."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.testing import FusionConformance, toy_data
from mmsearch.training import resolve

H = {"a": torch.tensor([[1.0, 2.0]], dtype=torch.float64), "v": torch.tensor([[3.0, -1.0]], dtype=torch.float64)}
W_F = torch.tensor([[0.5, 0], [0, -0.5], [1, 0], [0, 1]], dtype=torch.float64)


class TestSymmetric(FusionConformance):
    fusion = {"name": "film", "symmetric": True}


class TestConditionedOnTheSecond(FusionConformance):
    fusion = {"name": "film", "conditioner": "m1"}


def film(widths: dict[str, int], **knobs: object) -> torch.nn.Module:
    return FUSIONS.create({"name": "film", **knobs}).build(widths, 3).double()


def test_worked_example() -> None:
    head = film({"a": 2, "v": 2})
    head.film[0].weight.data, head.film[0].bias.data = W_F, torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(head.modulated(H), torch.tensor([[2.5, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(head(H), head.out(torch.tensor([[2.5, 3.0]], dtype=torch.float64)))


def test_symmetric_has_both_directions_side_by_side() -> None:
    head = film({"a": 2, "v": 2}, symmetric=True)
    for layer in head.film:
        layer.weight.data, layer.bias.data = W_F, torch.zeros(4, dtype=torch.float64)
    # a under v = [3, -1]: γ = [1.5, .5], β = [3, -1]; v under a as in the worked example
    torch.testing.assert_close(head.modulated(H), torch.tensor([[4.5, 0.0, 2.5, 3.0]], dtype=torch.float64))


def test_the_first_modality_conditions_unless_another_is_named() -> None:
    first, named = film({"a": 3, "v": 5}), film({"a": 3, "v": 5}, conditioner="v")
    assert (first.film[0].in_features, first.film[0].out_features) == (3, 10)
    assert (named.film[0].in_features, named.film[0].out_features) == (5, 6)


@settings(deadline=None, max_examples=15)
@given(widths=st.lists(st.integers(1, 6), min_size=2, max_size=4), symmetric=st.booleans())
def test_with_more_modalities_what_stands_together_is_concatenated(widths: list[int], symmetric: bool) -> None:
    D = {f"m{i}": d for i, d in enumerate(widths)}
    head = film(D, symmetric=symmetric)
    h = {u: torch.randn(2, d, dtype=torch.float64) for u, d in D.items()}
    expected = []
    for u in D if symmetric else ["m0"]:
        others = torch.cat([h[j] for j in D if j != u], 1)
        a, v = (others, h[u]) if symmetric else (h[u], others)
        gamma, beta = head.film[len(expected)](a).chunk(2, 1)
        expected.append(gamma * v + beta)
    torch.testing.assert_close(head.modulated(h), torch.cat(expected, 1))


def test_an_absent_modality_counts_as_a_zero_feature() -> None:
    head = film({"a": 2, "v": 2})
    torch.testing.assert_close(head({"v": H["v"]}), head({"a": torch.zeros_like(H["a"]), "v": H["v"]}))


def test_an_unknown_modality_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(MMSearchError, match="unknown modality 'm11' as conditioner; did you mean 'm1'"):
        resolve({"fusion": {"name": "film", "conditioner": "m11"}}, toy_data().modalities)


def test_one_modality_is_refused() -> None:
    with pytest.raises(MMSearchError, match="there is only one"):
        resolve({"fusion": {"name": "film"}}, toy_data(1).modalities)
