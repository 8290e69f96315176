"""AMCo against its worked example, and what its masks hide."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.amco import mask_rate, random_masks, shares
from mmsearch.testing import MethodConformance, finish, toy_data
from mmsearch.training import train

Z_A = torch.tensor([[2, 0.5, -1], [0.2, 1.5, 0], [1, 0, 2.5], [1.2, 0.3, 0.1]], dtype=torch.float64)
Z_V = torch.tensor([[0.3, 0.1, 0], [0.5, 0.4, 0.2], [0.2, 0.6, 0.5], [0, 0.9, 0.1]], dtype=torch.float64)


class TestEagerMasks(MethodConformance):
    method = {"name": "amco", "sigma": 0.3, "epsilon": 0.1}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shares_of_the_worked_example() -> None:
    share = shares({"a": Z_A, "v": Z_V}, torch.ones(4, dtype=torch.bool))
    assert abs(share["a"].item() - 0.666953) < 1e-6
    assert abs(share["v"].item() - 0.333047) < 1e-6


@pytest.mark.parametrize(
    ("l_t", "p_t", "hidden"), [(0, 0, 0), (0.1, 0.5, 3), (0.15, 0.707107, 4), (0.3, 1, 6), (1, 1, 6)]
)
def test_masks_of_the_worked_example(l_t: float, p_t: float, hidden: int) -> None:
    rate = mask_rate(l_t, 0.3)
    assert math.isclose(rate, p_t, abs_tol=1e-6)
    assert ((~random_masks(5, 6, rate, seeded())).sum(1) == hidden).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40), st.floats(0, 1))
def test_every_clip_loses_as_many_features_at_places_of_its_own(seed: int, width: int, rate: float) -> None:
    masks = random_masks(64, width, rate, seeded(seed))
    assert ((~masks).sum(1) == math.floor(rate * width + 1e-9)).all()
    if width > 1 and 1 <= rate * width <= width - 1:
        assert len(masks.unique(dim=0)) > 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 4))
def test_shares_are_a_distribution_and_ignore_incomplete_clips(seed: int, modalities: int) -> None:
    z = {str(u): torch.randn(6, 3, generator=seeded(seed + u), dtype=torch.float64) for u in range(modalities)}
    complete = torch.tensor([True, True, False, True, False, True])
    found = shares(z, complete)
    assert math.isclose(sum(s.item() for s in found.values()), 1, rel_tol=1e-9)
    z["0"][2] += 100
    assert all(torch.equal(a, b) for a, b in zip(found.values(), shares(z, complete).values(), strict=True))


def test_the_easier_modality_is_masked_and_ever_more() -> None:
    document = {"method": {"name": "amco", "sigma": 0.55, "epsilon": 1.0}, "epochs": 6, "batch_size": 16}
    results = finish(train({**document, "optimizer": {"name": "sgd"}}, toy_data()))
    assert results[1].metrics["amco/share/m0"] > results[1].metrics["amco/share/m1"]
    masked = [r.metrics["amco/masked/m0"] for r in results]
    assert masked[1] < masked[2] < masked[3]
    assert all(r.metrics["amco/masked/m1"] == 0 for r in results)


def test_one_modality_is_never_masked() -> None:
    document = {"method": {"name": "amco", "sigma": 0.3}, "epochs": 2, "optimizer": {"name": "sgd"}}
    assert finish(train(document, toy_data(1)))[-1].metrics["amco/masked/m0"] == 0
