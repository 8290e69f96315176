"""Modality valuation: Shapley values of clips, and what comes again."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.diagnostics.shapley import shapley, subsets
from mmsearch.methods.modality_valuation import copies, resampling
from mmsearch.testing import MethodConformance, finish, toy_data
from mmsearch.training import Training, train


def run(modalities: int = 2, missing: float = 0.0, **knobs: Any) -> Training:
    method = {"name": "modality_valuation", **knobs}
    document = {"method": method, "optimizer": {"name": "sgd", "lr": 0.05}, "epochs": 6}
    return train(document, toy_data(modalities, missing=missing))


def values(correct: dict[str, int]) -> dict[frozenset[str], torch.Tensor]:
    """v(S) = |S| where the model is right."""
    return {frozenset(S): torch.tensor(float(len(S) * hit), dtype=torch.float64) for S, hit in correct.items()}


@pytest.mark.parametrize(
    ("a", "v", "av", "phi_a", "phi_v"),
    [
        (1, 1, 1, 1, 1),
        (1, 0, 1, 1.5, 0.5),
        (0, 1, 1, 0.5, 1.5),
        (0, 0, 1, 1, 1),
        (1, 0, 0, 0.5, -0.5),
        (0, 1, 0, -0.5, 0.5),
        (1, 1, 0, 0, 0),
        (0, 0, 0, 0, 0),
    ],
)
def test_worked_values_of_two_modalities(a: int, v: int, av: int, phi_a: float, phi_v: float) -> None:
    phi = shapley(values({"a": a, "v": v, "av": av}), ["a", "v"])
    assert (phi["a"].item(), phi["v"].item()) == (phi_a, phi_v)


def test_worked_values_of_three_modalities() -> None:
    accuracy = {"a": 0.55, "v": 0.58, "t": 0.72, "av": 0.6, "at": 0.74, "vt": 0.75, "avt": 0.78}
    v = {frozenset(S): torch.tensor(x - 0.5, dtype=torch.float64) for S, x in accuracy.items()}
    phi = shapley(v, ["a", "v", "t"])
    assert [round(float(x), 6) for x in phi.values()] == [0.033333, 0.053333, 0.193333]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.data())
def test_values_add_up_and_a_modality_that_changes_nothing_is_worth_nothing(M: int, data: st.DataObject) -> None:
    U = list("abcd")[:M]
    v = {S: torch.tensor(data.draw(st.floats(-3, 3)), dtype=torch.float64) for S in subsets(U)}
    phi = shapley(v, U)
    torch.testing.assert_close(sum(phi.values()), v[frozenset(U)])
    null = {S: v.get(S - {"a"}, torch.zeros((), dtype=torch.float64)) for S in subsets(U)}
    torch.testing.assert_close(shapley(null, U)["a"], torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize(("phi", "n"), [(1.5, 0), (1.0, 0), (0.5, 1), (0.0, 2), (-0.5, 3)])
def test_worked_copies(phi: float, n: int) -> None:
    assert copies(torch.tensor([phi])).item() == n


def test_a_rounding_error_below_one_is_no_reason_to_come_again() -> None:
    assert copies(torch.tensor([1 - 1e-12], dtype=torch.float64)).item() == 0


@pytest.mark.parametrize(
    ("f", "D", "n"), [("linear", 0.266667, 266), ("tanh", 0.260520, 260), ("square", 0.137706, 137)]
)
def test_worked_shares_of_resampling(f: str, D: float, n: int) -> None:
    found = resampling(torch.tensor([0.05, 0.45], dtype=torch.float64), 1.0, f)
    assert float(found) == pytest.approx(D, abs=1e-6)
    assert int(found * 1000) == n


def test_no_more_clips_come_again_than_there_are() -> None:
    assert float(resampling(torch.tensor([1.5, -0.5]), 4.0, "linear")) == 1


@pytest.mark.parametrize("level", ["sample", "modality"])
def test_a_copy_shows_one_modality_that_its_clip_has(level: str) -> None:
    training = run(3, missing=0.5, level=level, **({"alpha": 4.0} if level == "modality" else {}))
    next(training)
    next(training)
    training.context.start_epoch(training.context.stage, 2, 6)
    rows, only = training.method.epoch_rows(training.context, training.rows)
    assert only is not None
    n = len(training.rows)
    assert np.array_equal(rows[:n], training.rows)
    assert (only[:n] == -1).all()
    assert len(rows) > n
    assert set(rows[n:]) <= set(training.rows)
    assert set(only[n:]) <= {0, 1, 2}
    views = training.predictor.views(training=False)
    for batch in training.data.batches(rows[n:], 64, views, only=only[n:]):
        assert (torch.stack(list(batch.present.values())).sum(0) == 1).all()


def test_values_of_clips_are_those_of_masked_passes() -> None:
    training = run(3, level="sample")
    next(training)
    next(training)
    ctx, model = training.context, training.model.eval()
    index, phi, _ = next(training.method._valued(ctx, training.rows[:32]))
    batch = next(training.data.batches(index.numpy(), 32, training.predictor.views(training=False)))
    U = ctx.modalities
    with torch.no_grad():
        hit = {S: (model(batch, S).logits.argmax(1) == batch.label).double() for S in subsets(U)}
    expected = shapley({S: len(S) * x for S, x in hit.items()}, U)
    torch.testing.assert_close(phi, torch.stack([expected[u] for u in U], 1))


def test_a_missing_modality_is_worth_nothing_to_its_clip() -> None:
    training = run(3, missing=0.5, level="sample")
    next(training)
    for _, phi, present in training.method._valued(training.context, training.rows):
        assert (phi[~present] == 0).all()


def test_a_valuation_encodes_every_clip_once() -> None:
    training = run(3, level="sample")
    next(training)
    seen = []
    hook = training.model.encoders["m0"].register_forward_hook(lambda *a: seen.append(len(a[1][0])))
    list(training.method._valued(training.context, training.rows))
    hook.remove()
    assert sum(seen) == len(training.rows)


def test_the_modality_of_the_lower_value_comes_again() -> None:
    training = run(alpha=4.0, part=1.0)
    for _ in range(4):
        next(training)
    training.context.start_epoch(training.context.stage, 4, 6)
    _, only = training.method.epoch_rows(training.context, training.rows)
    phi = training.context.signals()
    low = int(phi["modality_valuation/phi/m1"] < phi["modality_valuation/phi/m0"])
    assert only is not None
    assert set(only[len(training.rows) :]) == {low}


def test_the_easier_modality_is_worth_more() -> None:
    last = finish(run(level="sample"))[-1].metrics
    assert last["modality_valuation/phi/m0"] > last["modality_valuation/phi/m1"]


def test_the_warm_up_is_plain_training() -> None:
    results = finish(run(level="sample", warm_up=1 / 6))
    assert ["modality_valuation/copies" in r.metrics for r in results] == [False] + [True] * 5


@pytest.mark.parametrize("level", ["sample", "modality"])
def test_one_modality_is_trained_plainly(level: str) -> None:
    results = finish(run(1, level=level))
    assert not any("modality_valuation/copies" in r.metrics for r in results)


@pytest.mark.parametrize("fusion", ["bottleneck", "temperature"])
def test_heads_on_tokens_and_post_hoc_ones_can_be_valued(fusion: str) -> None:
    document = {"method": {"name": "modality_valuation", "level": "sample"}, "fusion": {"name": fusion}, "epochs": 3}
    assert "modality_valuation/phi/m0" in finish(train(document, toy_data()))[-1].metrics


def test_every_subset_is_valued_once() -> None:
    assert subsets("abc") == [frozenset(S) for n in (1, 2, 3) for S in itertools.combinations("abc", n)]


class TestSamples(MethodConformance):
    method = {"name": "modality_valuation", "level": "sample"}


class TestStrongResampling(MethodConformance):
    method = {"name": "modality_valuation", "alpha": 4.0, "f": "tanh", "part": 1.0}
