"""InfoReg: the window, the traces and the pull."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods._base import true_class_score
from mmsearch.methods.inforeg import InfoReg, leads, pull, rate, trace
from mmsearch.testing import MethodConformance, difference, finish, toy_data, weights
from mmsearch.training import train

Z_A = torch.tensor([[2, 0.5, -1], [0.2, 1.5, 0], [1, 0, 2.5], [1.2, 0.3, 0.1]], dtype=torch.float64)
Z_V = torch.tensor([[0.3, 0.1, 0], [0.5, 0.4, 0.2], [0.2, 0.6, 0.5], [0, 0.9, 0.1]], dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 1])
TRACES = [1, 1.6, 2, 2.2, 2.3, 2.33, 2.34, 2.345, 2.347, 2.348, 2.3485, 2.3486, 2.3487, 2.3488]


def close(a: torch.Tensor, b: list) -> None:
    torch.testing.assert_close(a, torch.tensor(b, dtype=a.dtype), rtol=0, atol=1e-6)


def run(method: dict[str, Any], **changes: Any) -> tuple[Any, list]:
    document = {"optimizer": {"name": "sgd", "lr": 0.05}, "epochs": 5, "batch_size": 16, **changes}
    training = train({**document, "method": {"name": "inforeg", **method}}, toy_data())
    return training, finish(training)


def test_worked_coefficients_and_pull() -> None:
    s = torch.stack([true_class_score(Z_A, Y), true_class_score(Z_V, Y)])
    beta = InfoReg().coefficients(s, len(Y))
    close(beta, [1.8772784067, 0.0])
    theta = torch.tensor([0.52, -1.10], dtype=torch.float64)
    theta.grad = torch.tensor([0.1, 0.2], dtype=torch.float64)
    pull([theta], [torch.tensor([0.50, -1.00], dtype=torch.float64)], float(beta[0]))
    close(theta.grad, [0.137546, 0.012272])


def test_worked_growth_rates_of_the_padded_history() -> None:
    k = [rate(TRACES[:e], 10, padded=True) for e in range(15)]
    worked = [1, 1, 0.615385, 0.434783, 0.323529, 0.252747, 0.203850, 0.169935, 0.145517, 0.127126]
    close(torch.tensor(k, dtype=torch.float64), [*worked, 0.112830, 0.060857, 0.032680, 0.014994, 0.006358])
    assert [e for e in range(15) if k[e] > 0.05] == list(range(12))


def test_padding_keeps_the_window_open_for_T_epochs_of_constant_traces_and_no_padding_does_not() -> None:
    padded = [rate([2.0] * e, 10, padded=True) for e in range(13)]
    assert padded[1:11] == pytest.approx([1 / e for e in range(1, 11)])
    assert padded[11:] == pytest.approx([0, 0])
    assert [rate([2.0] * e, 10, padded=False) for e in range(5)] == pytest.approx([1, 1, 0, 0, 0])


def test_without_padding_the_mean_is_over_the_epochs_there_are() -> None:
    assert rate([1.0, 3.0], 10, padded=False) == pytest.approx((3 - 1) / 3)
    assert rate([1.0, 2.0, 6.0], 2, padded=False) == pytest.approx((4 - 1.5) / 4)


def test_worked_fisher_traces() -> None:
    batches = [torch.tensor(g, dtype=torch.float64) for g in ([[0.1, 0.2], [0.0, 0.3]], [[0.2, 0.0], [0.1, 0.1]])]
    close(torch.stack([trace([g], "batch_mean_layermean") for g in batches]).sum(), 0.05)
    close(torch.stack([trace([g], "batch_trace") for g in batches]).sum(), 0.20)


def test_worked_leads_of_three_modalities() -> None:
    s = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64)
    close(leads(s), [1.0, 0.0, 1.5])
    close(InfoReg().coefficients(s, 4), [2.0346033, 0.0, 2.3486835])


@pytest.mark.parametrize("coef", ["exp_tanh_sum", "exp_tanh_mean", "beta_times_gap"])
@settings(max_examples=25, deadline=None)
@given(s=st.lists(st.floats(0, 64), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_the_weakest_is_never_pulled_and_coefficients_swap_with_the_modalities(
    coef: str, s: list[float], seed: int
) -> None:
    scores = torch.tensor(s, dtype=torch.float64)
    beta = InfoReg(coef=coef).coefficients(scores, 64)
    assert beta[scores.argmin()] == 0
    assert ((beta >= 0) & (beta <= 0.95 * torch.e)).all()
    order = torch.randperm(len(s), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(InfoReg(coef=coef).coefficients(scores[order], 64), beta[order])


def test_a_coefficient_of_the_mean_lead_knows_nothing_of_the_batch_size() -> None:
    s = torch.tensor([3.0, 1.0], dtype=torch.float64)
    for coef in ("exp_tanh_mean", "beta_times_gap"):
        m = InfoReg(coef=coef)
        torch.testing.assert_close(m.coefficients(s, 4), m.coefficients(16 * s, 64))
    assert float(InfoReg(coef="beta_times_gap").coefficients(torch.tensor([1e-9, 0.0]), 1).max()) < 1e-8


def test_the_first_step_of_an_epoch_is_free_of_any_pull() -> None:
    whole = {"batch_size": 500}
    pulled, results = run({"window_rule": "fixed", "window": 1.0}, **whole)
    free, _ = run({"window": 0.0}, **whole)
    assert results[0].metrics["inforeg/beta/m0"] + results[0].metrics["inforeg/beta/m1"] > 0
    assert difference(weights(pulled), weights(free)) == 0


def test_the_pull_holds_the_leading_encoder_within_the_window_only() -> None:
    pulled, results = run({"window_rule": "fixed", "window": 0.4})
    free, _ = run({"window": 0.0})
    assert [r.metrics["inforeg/window"] for r in results] == [1, 1, 0, 0, 0]
    assert ["inforeg/beta/m0" in r.metrics for r in results] == [True, True, False, False, False]
    assert difference(weights(pulled), weights(free)) > 1e-4


def test_the_fisher_rule_closes_the_window_by_itself_and_never_later_than_its_cap() -> None:
    def opened(**knobs: Any) -> list[float]:
        _, results = run({"K": 0.2, **knobs}, epochs=10)
        return [r.metrics["inforeg/window"] for r in results]

    assert 0 < sum(opened(window=1.0)) < 10
    assert opened(window=0.1) == [1.0] + [0.0] * 9


def test_the_easier_modality_leads_and_is_pulled() -> None:
    _, results = run({"window_rule": "fixed", "window": 1.0})
    m = results[-1].metrics
    assert m["inforeg/score/m0"] > m["inforeg/score/m1"]
    assert m["inforeg/beta/m0"] > m["inforeg/beta/m1"]


def test_it_costs_no_more_passes_than_its_loss() -> None:
    _, mine = run({"heads": "own"})
    other = finish(train({**run({})[0].document, "method": {"name": "uniform"}}, toy_data()))
    assert mine[-1].cost_joint_epochs == pytest.approx(other[-1].cost_joint_epochs, rel=0.03)


def test_a_fusion_without_unimodal_logits_of_its_own_gets_heads() -> None:
    training, _ = run({}, fusion={"name": "gated"})
    assert "unimodal_heads" in training.model.extra
    assert "unimodal_heads" not in run({})[0].model.extra


class TestFixedWindowAndTheMeanLead(MethodConformance):
    method = {"name": "inforeg", "window_rule": "fixed", "window": 0.5, "coef": "beta_times_gap"}


class TestPaddedTraceAndOwnHeads(MethodConformance):
    method = {"name": "inforeg", "fisher": "batch_trace", "padded": True, "window": 1.0, "heads": "own"}
