"""AGM: attribution, coefficients with the right sign, and gradients scaled on their way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.diagnostics.shapley import shapley, subsets
from mmsearch.methods.agm import AGM, losses, ratios, scaled_gradient
from mmsearch.testing import MethodConformance, difference, finish, toy_data, weights
from mmsearch.training import Training, train

Z = {
    frozenset("av"): torch.tensor([[2.0, 0.0]], dtype=torch.float64),
    frozenset("a"): torch.tensor([[1.5, 0.2]], dtype=torch.float64),
    frozenset("v"): torch.tensor([[0.6, 0.1]], dtype=torch.float64),
}


def close(a: torch.Tensor, b: Any) -> None:
    torch.testing.assert_close(a, torch.tensor(b, dtype=a.dtype), rtol=0, atol=1e-6)


def run(modalities: int = 2, fusion: str = "concat", **knobs: Any) -> Training:
    document = {"optimizer": {"name": "sgd", "lr": 0.05}, "epochs": 4, "fusion": {"name": fusion}}
    return train({**document, "method": {"name": "agm", **knobs}}, toy_data(modalities))


def method(mean: list[float], **knobs: Any) -> AGM:
    agm = AGM(**knobs)
    agm._mean = torch.tensor(mean, dtype=torch.float64)
    return agm


def test_worked_example() -> None:
    phi = shapley(Z, ["a", "v"])
    close(phi["a"], [[1.45, 0.05]])
    close(phi["v"], [[0.55, -0.05]])
    s = losses(torch.stack(list(phi.values())), torch.tensor([0])).mean(1)
    close(s, [0.2204174, 0.4374880])
    close(ratios(s), [1.2424317, 0.8048732])
    close(ratios(torch.tensor([0.4, 0.9], dtype=torch.float64)), [1.6487213, 0.6065307])
    close(method([0.4, 0.9]).coefficients(s), [1.5012371, 0.8200889])


def test_worked_share_of_one_in_three() -> None:
    z = {"a": 1.0, "v": 0.6, "t": 1.4, "av": 1.5, "at": 2.0, "vt": 1.8, "avt": 2.4}
    phi = shapley({frozenset(S): torch.tensor(x, dtype=torch.float64) for S, x in z.items()}, ["a", "v", "t"])
    close(phi["a"], 0.7833333)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(0, 99))
def test_shares_add_up_to_the_logits_and_single_ones_are_in_them(M: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    U = list("avtx")[:M]
    z = {S: torch.randn(3, 5, generator=g, dtype=torch.float64) for S in subsets(U)}
    phi = shapley(z, U)
    torch.testing.assert_close(sum(phi.values()), z[frozenset(U)])
    moved = shapley({**z, frozenset("a"): z[frozenset("a")] + 1}, U)
    assert (moved["a"] > phi["a"]).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=4), st.floats(0.01, 2), st.integers(0, 3))
def test_who_does_worse_than_it_used_to_is_sped_up(s: list[float], more: float, who: int) -> None:
    who %= len(s)
    now = torch.tensor(s, dtype=torch.float64)
    now[who] += more
    kappa = method(s).coefficients(now)
    assert kappa[who] >= 1
    assert (kappa[[u for u in range(len(s)) if u != who]] <= 1).all()


def test_the_present_lead_counts_against_the_usual_one_not_by_itself() -> None:
    close(method([0.2, 1.0]).coefficients(torch.tensor([0.2, 1.0], dtype=torch.float64)), [1.0, 1.0])


def test_the_lead_of_history_is_capped() -> None:
    far = method([0.01, 9.0], cap=5.0).coefficients(torch.tensor([9.0, 0.01], dtype=torch.float64))
    close(far[0].log(), 5.0)
    close(AGM(alpha=0.0).coefficients(torch.tensor([1.0, 2.0])), [1.0, 1.0])


def test_history_is_the_mean_of_every_earlier_step() -> None:
    agm, steps = AGM(), [[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]]
    assert (agm.coefficients(torch.tensor(steps[0])) == 1).all()
    for s in steps:
        agm.remember(torch.tensor(s, dtype=torch.float64))
    assert agm._mean is not None
    close(agm._mean, [3.0, 4.0])


def test_losses_have_a_floor_under_the_probability() -> None:
    close(losses(torch.tensor([[[100.0, 0.0]]], dtype=torch.float64), torch.tensor([1])), [[18.4206807]])


def test_gradients_are_shared_out_as_the_shares_are() -> None:
    z = {S: x.clone().requires_grad_() for S, x in Z.items()}
    phi = torch.stack(list(shapley(z, ["a", "v"]).values()))
    k_a, k_v = 1.5012371, 0.8200889
    kappa = torch.tensor([k_a, k_v], dtype=torch.float64)
    joint = scaled_gradient(phi, kappa[:, None, None]).sum(0)
    torch.testing.assert_close(joint, z[frozenset("av")])
    F.cross_entropy(joint, torch.tensor([0])).backward()
    g = F.softmax(joint.detach(), 1) - torch.tensor([[1.0, 0.0]])
    for S, k in (("av", (k_a + k_v) / 2), ("a", (k_a - k_v) / 2), ("v", (k_v - k_a) / 2)):
        torch.testing.assert_close(z[frozenset(S)].grad, k * g)


@pytest.mark.parametrize("level", ["input", "feature"])
def test_without_strength_it_is_joint_training_up_to_rounding(level: str) -> None:
    mine = run(alpha=0.0, clip=10.0, mask_level=level)
    other = train({**mine.document, "method": {"name": "joint"}}, mine.data)
    finish(mine)
    finish(other)
    assert difference(weights(mine), weights(other)) < 1e-4


def test_masking_features_of_a_decomposable_fusion_gives_its_unimodal_logits() -> None:
    training = run(3, mask_level="feature")
    batch = next(training.data.batches(training.rows, 16, training.predictor.views(training=False)))
    out = training.model.eval()(batch)
    phi = training.method._attribution(training.context, out, batch)
    torch.testing.assert_close(phi, torch.stack(list(out.unimodal.values())))


def test_masked_passes_see_the_others_as_zero_inputs() -> None:
    training = run(mask_level="input")
    training.model.eval()
    batch = next(training.data.batches(training.rows, 16, training.predictor.views(training=False)))
    out = training.model(batch)
    z_a = training.method._masked(training.context, out, batch, frozenset(["m0"]))
    batch.inputs["m1"].zero_()
    torch.testing.assert_close(z_a, training.model(batch).logits)


def test_a_large_gradient_of_the_head_is_clipped() -> None:
    training = run()
    ctx = training.context
    for large, norm in ((2.0, 1.0), (0.5, None)):
        for g in ("m0", "m1", "head"):
            for p in ctx.parameters(g):
                p.grad = torch.full_like(p, 0.01)
        ctx.model.fusion.linear.weight.grad[0, 0] = large
        training.method._s = torch.tensor([1.0, 1.0])
        training.method.after_backward(ctx, None, None)  # type: ignore[arg-type]
        total = torch.stack([p.grad.norm() for g in ("m0", "m1", "head") for p in ctx.parameters(g)]).norm()  # type: ignore[union-attr]
        assert norm is None or float(total) == pytest.approx(norm, rel=1e-4)
        assert norm is not None or ctx.model.fusion.linear.weight.grad[0, 0] == 0.5


def test_the_easier_modality_has_the_lower_loss_and_is_slowed_down() -> None:
    m = finish(run())[-1].metrics
    assert m["agm/score/m0"] < m["agm/score/m1"]
    assert m["agm/kappa/m0"] < 1 < m["agm/kappa/m1"]


def test_it_ends_with_its_window_and_costs_what_its_passes_cost() -> None:
    results = finish(run(end=0.5, mask_level="input"))
    assert ["agm/kappa/m0" in r.metrics for r in results] == [True, True, False, False]
    costs = [r.cost_joint_epochs for r in results]
    assert costs[0] == pytest.approx(3, abs=0.1)  # all, and one masked pass a modality
    assert costs[3] - costs[2] == pytest.approx(1)
    assert finish(run(mask_level="feature"))[0].cost_joint_epochs < 1.2


def test_probe_heads_learn_nothing_from_masked_inputs() -> None:
    """Those of a step are trained as they are without the masked passes."""
    mine = run(fusion="gated", alpha=0.0, clip=10.0, mask_level="input")
    other = train({**mine.document, "method": {"name": "joint"}}, mine.data)
    next(mine)
    next(other)
    a, b = weights(mine), weights(other)
    assert max(float((a[k] - b[k]).abs().max()) for k in a if k.startswith("probes")) < 1e-4


@pytest.mark.parametrize("level", ["input", "feature"])
def test_fusions_of_tokens_can_be_masked_in_half_precision(level: str) -> None:
    document = run(fusion="bottleneck", mask_level=level).document
    assert finish(train({**document, "precision": "bf16", "epochs": 1}, toy_data()))[-1].final


class TestFeatureLevel(MethodConformance):
    method = {"name": "agm", "mask_level": "feature", "alpha": 5.0, "cap": 5.0}


class TestWindow(MethodConformance):
    method = {"name": "agm", "end": 0.5}
