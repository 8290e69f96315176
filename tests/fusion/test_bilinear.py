"""Compact bilinear fusion."""

from __future__ import annotations

import functools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.fusion import FUSIONS
from mmsearch.fusion.bilinear import BilinearHead, count_sketch

ONE = torch.ones(1, dtype=torch.float64)


def test_a_sketch_without_collisions_is_the_outer_product_of_the_worked_example() -> None:
    head = BilinearHead({"a": 2, "v": 2}, 3, 9).double()
    head.bins_0, head.bins_1 = torch.tensor([0, 3, 6]), torch.tensor([0, 1, 2])
    head.signs_0 = head.signs_1 = torch.ones(3, dtype=torch.float64)
    h = {"a": torch.tensor([[1.0, 2.0]], dtype=torch.float64), "v": torch.tensor([[3.0, -1.0]], dtype=torch.float64)}
    product = torch.tensor([[3.0, -1, 1, 6, -2, 2, 3, -1, 1]], dtype=torch.float64)
    torch.testing.assert_close(head.product(h), product)
    torch.testing.assert_close(head(h), head.linear(product / product.norm()))


@settings(deadline=None, max_examples=20)
@given(widths=st.lists(st.integers(1, 6), min_size=1, max_size=3), n=st.integers(2, 40))
def test_it_is_the_count_sketch_of_the_outer_product(widths: list[int], n: int) -> None:
    D = {f"m{i}": d for i, d in enumerate(widths)}
    head = BilinearHead(D, 2, n).double()
    h = {u: torch.randn(d, dtype=torch.float64) for u, d in D.items()}
    product = functools.reduce(torch.kron, [torch.cat([x, ONE]) for x in h.values()])
    bins = functools.reduce(
        lambda a, b: (a[:, None] + b).flatten() % n, [head.get_buffer(f"bins_{i}") for i in range(len(D))]
    )
    signs = functools.reduce(torch.kron, [head.get_buffer(f"signs_{i}") for i in range(len(D))])
    expected = count_sketch(product[None], bins, signs, n)
    torch.testing.assert_close(head.product({u: x[None] for u, x in h.items()}), expected)


def test_products_of_sketches_estimate_products_of_outer_products() -> None:
    torch.manual_seed(0)
    x, y = ({u: torch.randn(1, 8, dtype=torch.float64) for u in "av"} for _ in range(2))
    exact = (x["a"] @ y["a"].T + 1) * (x["v"] @ y["v"].T + 1)
    estimates = []
    for _ in range(200):
        head = BilinearHead({"a": 8, "v": 8}, 2, 64).double()
        estimates.append(head.product(x) @ head.product(y).T)
    spread = torch.stack(estimates).std() / 200**0.5
    assert abs(torch.stack(estimates).mean() - exact) < 3 * spread


def test_the_sketches_are_drawn_once_and_saved() -> None:
    fusion = FUSIONS.create({"name": "bilinear"})
    one, other = (fusion.build({"a": 5, "v": 3}, 4) for _ in range(2))
    h = {"a": torch.randn(2, 5), "v": torch.randn(2, 3)}
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(h), other(h))
    assert not one.bins_0.is_floating_point()
    assert len(list(one.parameters())) == 2


def test_no_two_features_share_a_bin_while_there_are_enough() -> None:
    head = BilinearHead({"a": 40}, 2, 41)
    assert len(head.bins_0.unique()) == 41


def test_half_precision_features_are_multiplied_in_float32() -> None:
    head = BilinearHead({"a": 4, "v": 4}, 2, 16)
    h = {u: torch.randn(3, 4, dtype=torch.bfloat16) for u in "av"}
    assert head.product(h).dtype == torch.float32


def test_an_absent_modality_counts_as_a_zero_feature() -> None:
    head = FUSIONS.create({"name": "bilinear"}).build({"a": 3, "v": 4}, 5)
    h = torch.randn(2, 3)
    torch.testing.assert_close(head({"a": h}), head({"a": h, "v": torch.zeros(2, 4)}))
