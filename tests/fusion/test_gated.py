"""Gated fusion."""

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


class TestSymmetric(FusionConformance):
    fusion = {"name": "gated", "symmetric": True}


class TestGatedByTheSecond(FusionConformance):
    fusion = {"name": "gated", "gate": "m1"}


def gated(widths: dict[str, int], **knobs: object) -> torch.nn.Module:
    return FUSIONS.create({"name": "gated", **knobs}).build(widths, 3).double()


def with_identity(head: torch.nn.Module) -> torch.nn.Module:
    for layer in head.project:
        layer.weight.data, layer.bias.data = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    return head


def test_worked_example() -> None:
    expected = torch.tensor([[2.193176, -0.880797]], dtype=torch.float64)
    head = with_identity(gated({"a": 2, "v": 2}))
    torch.testing.assert_close(head.gated(H), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(head(H), head.out(head.gated(H)))


def test_the_gate_can_be_named() -> None:
    head = with_identity(gated({"a": 2, "v": 2}, gate="v"))
    torch.testing.assert_close(head.gated(H), torch.sigmoid(H["v"]) * H["a"])


def test_symmetric_has_both_directions_side_by_side() -> None:
    head = with_identity(gated({"a": 2, "v": 2}, symmetric=True))
    expected = torch.cat([torch.sigmoid(H["v"]) * H["a"], torch.sigmoid(H["a"]) * H["v"]], 1)
    torch.testing.assert_close(head.gated(H), expected)


@settings(deadline=None, max_examples=15)
@given(widths=st.lists(st.integers(1, 6), min_size=3, max_size=4), symmetric=st.booleans())
def test_with_more_modalities_the_others_are_concatenated_and_gates_averaged(
    widths: list[int], symmetric: bool
) -> None:
    D = {f"m{i}": d for i, d in enumerate(widths)}
    head = gated(D, symmetric=symmetric)
    h = {u: torch.randn(2, d, dtype=torch.float64) for u, d in D.items()}
    if symmetric:
        x = [p(h_u) for p, h_u in zip(head.project, h.values(), strict=True)]
        total = sum(torch.sigmoid(x_u) for x_u in x)
        expected = torch.cat([(total - torch.sigmoid(x_u)) / (len(x) - 1) * x_u for x_u in x], 1)
    else:
        rest = torch.cat([h[u] for u in list(D)[1:]], 1)
        expected = torch.sigmoid(head.project[0](h["m0"])) * head.project[1](rest)
    torch.testing.assert_close(head.gated(h), expected)


def test_an_absent_modality_counts_as_a_zero_feature() -> None:
    head = gated({"a": 2, "v": 2})
    torch.testing.assert_close(head({"v": H["v"]}), head({"a": torch.zeros_like(H["a"]), "v": H["v"]}))


def test_an_unknown_modality_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(MMSearchError, match="unknown modality 'm11' as gate; did you mean 'm1'"):
        resolve({"fusion": {"name": "gated", "gate": "m11"}}, toy_data().modalities)


def test_one_modality_is_refused() -> None:
    with pytest.raises(MMSearchError, match="there is only one"):
        resolve({"fusion": {"name": "gated"}}, toy_data(1).modalities)
