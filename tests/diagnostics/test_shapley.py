"""Shapley shares of accuracy, and the figures of imbalance."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from mmsearch.diagnostics.shapley import imbalance, shapley, subsets


def shares(values: dict[str, float], modalities: str) -> dict[str, float]:
    v = {frozenset(S): torch.tensor(x, dtype=torch.float64) for S, x in values.items()}
    return {u: float(phi) for u, phi in shapley(v, list(modalities)).items()}


TWO = {"": 1 / 6, "a": 0.55, "v": 0.40, "av": 0.65}
THREE = {"": 0.5, "a": 0.55, "v": 0.58, "t": 0.72, "av": 0.6, "at": 0.74, "vt": 0.75, "avt": 0.78}


def test_worked_example_of_two_modalities() -> None:
    phi = shares(TWO, "av")
    assert phi == pytest.approx({"a": 0.316667, "v": 0.166667}, abs=1e-6)
    assert sum(phi.values()) == pytest.approx(0.483333, abs=1e-6)
    found = imbalance(phi)
    assert (found.absolute, found.relative) == (pytest.approx(0.15, abs=1e-6), pytest.approx(0.310345, abs=1e-6))


def test_worked_example_of_three_modalities() -> None:
    phi = shares(THREE, "avt")
    assert phi == pytest.approx({"a": 0.033333, "v": 0.053333, "t": 0.193333}, abs=1e-6)
    found = imbalance(phi)
    assert (found.absolute, found.relative) == (pytest.approx(0.16, abs=1e-6), pytest.approx(0.571429, abs=1e-6))


def test_equal_shares_are_balanced_and_a_single_one_is_not() -> None:
    assert imbalance({"a": 0.2, "v": 0.2}).entropy == pytest.approx(0)
    assert imbalance({"a": 0.4, "v": 0.0}).entropy == pytest.approx(1)


def test_shares_of_nothing_have_no_relative_figure() -> None:
    assert imbalance({"a": 0.0, "v": 0.0}) == imbalance({"a": 0.0, "v": 0.0, "t": 0.0})
    assert imbalance({"a": 0.0, "v": 0.0}).relative is None
    assert imbalance({"a": -0.1, "v": -0.2}).entropy is None


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_shares_add_up_to_what_all_modalities_add(M: int, seed: int) -> None:
    U = list("avtx")[:M]
    g = torch.Generator().manual_seed(seed)
    v = {S: torch.rand((), generator=g, dtype=torch.float64) for S in [frozenset(), *subsets(U)]}
    phi = {u: float(x) for u, x in shapley(v, U).items()}
    assert sum(phi.values()) == pytest.approx(float(v[frozenset(U)] - v[frozenset()]))
    entropy = imbalance(phi).entropy
    assert entropy is None or -1e-9 <= entropy <= 1 + 1e-9
    assert entropy is None or not math.isnan(entropy)


def test_worked_example_of_accuracy_and_macro_f1() -> None:
    y, predicted = [0, 1, 2, 1], [0, 1, 2, 0]
    assert accuracy_score(y, predicted) == 0.75
    assert f1_score(y, predicted, average="macro", zero_division=0.0) == pytest.approx(0.7777778, abs=1e-6)
