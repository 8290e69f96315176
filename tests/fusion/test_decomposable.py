"""Concat and sum: unimodal logits that add up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.fusion import FUSIONS


def test_concat_worked_example() -> None:
    head = FUSIONS.create({"name": "concat"}).build({"a": 2, "v": 2}, 2).double()
    head.linear.weight.data = torch.tensor([[1, 0, -1, 2], [0, 1, 1, -1]], dtype=torch.float64)
    head.linear.bias.data = torch.tensor([0.2, -0.4], dtype=torch.float64)
    h = {"a": torch.tensor([[1.0, 2.0]], dtype=torch.float64), "v": torch.tensor([[3.0, -1.0]], dtype=torch.float64)}
    torch.testing.assert_close(head(h), torch.tensor([[-3.8, 5.6]], dtype=torch.float64))
    z = head.unimodal(h)
    torch.testing.assert_close(z["a"], torch.tensor([[1.1, 1.8]], dtype=torch.float64))
    torch.testing.assert_close(z["v"], torch.tensor([[-4.9, 3.8]], dtype=torch.float64))


@pytest.mark.parametrize("name", ["concat", "sum"])
@settings(deadline=None, max_examples=25)
@given(widths=st.lists(st.integers(1, 9), min_size=1, max_size=4), classes=st.integers(2, 7), clips=st.integers(1, 5))
def test_unimodal_logits_add_up_to_the_joint_ones(name: str, widths: list[int], classes: int, clips: int) -> None:
    head = FUSIONS.create({"name": name}).build({f"m{i}": d for i, d in enumerate(widths)}, classes).double()
    h = {f"m{i}": torch.randn(clips, d, dtype=torch.float64) for i, d in enumerate(widths)}
    torch.testing.assert_close(sum(head.unimodal(h).values()), head(h), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["concat", "sum"])
def test_an_absent_modality_counts_as_a_zero_feature(name: str) -> None:
    head = FUSIONS.create({"name": name}).build({"a": 3, "v": 4}, 5)
    h = torch.randn(2, 3)
    torch.testing.assert_close(head({"a": h}), head({"a": h, "v": torch.zeros(2, 4)}))
