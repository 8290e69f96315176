"""Low-rank multimodal fusion."""

from __future__ import annotations

import functools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.fusion import FUSIONS


def low_rank(widths: dict[str, int], classes: int, rank: int) -> torch.nn.Module:
    return FUSIONS.create({"name": "low_rank", "rank": rank}).build(widths, classes).double()


def test_worked_example() -> None:
    head = low_rank({"a": 2, "v": 2}, 1, 1)
    head.factors["a"].data = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).view(1, 3, 1)
    head.factors["v"].data = torch.tensor([0.5, 0.1, -0.2], dtype=torch.float64).view(1, 3, 1)
    head.weight.data = torch.ones(1, dtype=torch.float64)
    h = {"a": torch.tensor([[1.0, 2.0]], dtype=torch.float64), "v": torch.tensor([[3.0, -1.0]], dtype=torch.float64)}
    torch.testing.assert_close(head(h), torch.tensor([[0.9]], dtype=torch.float64))


@settings(deadline=None, max_examples=15)
@given(widths=st.lists(st.integers(1, 4), min_size=1, max_size=4), rank=st.integers(1, 5))
def test_it_is_the_outer_product_under_the_weight_tensor_of_its_factors(widths: list[int], rank: int) -> None:
    D = {f"m{i}": d for i, d in enumerate(widths)}
    head = low_rank(D, 2, rank)
    h = {u: torch.randn(d, dtype=torch.float64) for u, d in D.items()}
    one = torch.ones(1, dtype=torch.float64)
    product = functools.reduce(torch.kron, [torch.cat([one, x]) for x in h.values()])
    for c in range(2):
        W = sum(
            head.weight[k] * functools.reduce(torch.kron, [head.factors[u][k, :, c] for u in D]) for k in range(rank)
        )
        z = head({u: x[None] for u, x in h.items()})[0, c]
        torch.testing.assert_close(z, W @ product + head.bias[c])


def test_an_absent_modality_counts_as_a_zero_feature() -> None:
    head = low_rank({"a": 3, "v": 4}, 5, 4)
    h = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(head({"a": h}), head({"a": h, "v": torch.zeros(2, 4, dtype=torch.float64)}))
