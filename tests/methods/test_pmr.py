"""PMR: prototypes, coefficients, and the two terms of the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.pmr import PMR, moving_mean, similarities
from mmsearch.testing import MethodConformance, finish, toy_data
from mmsearch.training import Training, train


def close(a: torch.Tensor, b: Any) -> None:
    torch.testing.assert_close(a, torch.tensor(b, dtype=a.dtype), rtol=0, atol=1e-6)


def run(epochs: int = 4, modalities: int = 2, **knobs: Any) -> Training:
    document = {"method": {"name": "pmr", **knobs}, "optimizer": {"name": "sgd", "lr": 0.05}, "epochs": epochs}
    return train(document, toy_data(modalities))


def test_worked_similarities_and_prototype_loss() -> None:
    c = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    sim = similarities(torch.tensor([[0.5, 0.0]], dtype=torch.float64), c)
    close(sim, [[-0.5, -1.5]])
    close(F.softmax(sim, 1), [[0.731059, 0.268941]])
    close(F.cross_entropy(sim, torch.tensor([0])), 0.3132617)


def test_distances_are_exact_for_many_clips_and_classes_and_kind_to_a_clip_on_its_prototype() -> None:
    torch.manual_seed(0)
    c = 1e3 + torch.randn(40, 8)
    h = (c + 0.01 * torch.randn(40, 8)).requires_grad_()
    expected = -(h[:, None] - c[None]).square().sum(2).sqrt()
    torch.testing.assert_close(similarities(h, c), expected)
    on = c[:3].clone().requires_grad_()
    similarities(on, c).sum().backward()
    assert on.grad is not None
    assert on.grad.isfinite().all()


def test_worked_moving_mean() -> None:
    new, old = (torch.tensor([x], dtype=torch.float64) for x in ([1.0, 1.0], [0.0, 2.0]))
    close(moving_mean(new, torch.tensor([3]), old, torch.tensor([True]), 0.2), [[0.8, 1.2]])


def test_a_feature_on_its_prototype_up_to_rounding_is_pushed_nowhere() -> None:
    c = torch.tensor([[0.5, 0.25], [2.0, 0.0]])
    h = (c[:1] + 1e-7).requires_grad_()
    similarities(h, c)[:, 0].sum().backward()
    assert h.grad is not None and not h.grad.any()


def test_a_class_without_clips_keeps_its_prototype_and_a_new_one_takes_its_mean_whole() -> None:
    new = torch.tensor([[0.0], [4.0], [5.0]])
    old = torch.tensor([[1.0], [2.0], [0.0]])
    found = moving_mean(new, torch.tensor([0, 2, 1]), old, torch.tensor([True, True, False]), 0.5)
    assert found.flatten().tolist() == [1.0, 3.0, 5.0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=4))
def test_only_those_behind_are_sped_up_and_only_the_best_is_slowed_down(s: list[float]) -> None:
    scores = torch.tensor(s, dtype=torch.float64)
    up, down = PMR().coefficients(scores)
    best = scores == scores.max()
    assert ((up >= 0) & (up <= 1) & (down >= 0) & (down <= 1)).all()
    assert (up[best] == 0).all()
    assert (down[~best] == 0).all()


def test_coefficients_follow_the_lead_in_the_paper_and_are_one_in_the_code() -> None:
    s = torch.tensor([0.6, 0.5, 0.2], dtype=torch.float64)
    up, down = PMR().coefficients(s)
    close(up, [0.0, 0.2, 1.0])
    close(down, [1.0, 0.0, 0.0])
    up, down = PMR(variant="official").coefficients(s)
    assert up.tolist() == [0, 1, 1]
    assert down.tolist() == [0, 0, 0]
    tie = torch.tensor([0.4, 0.4])
    for variant in ("paper", "official"):
        assert all(x.sum() == 0 for x in PMR(variant=variant).coefficients(tie))


def loss_of(training: Training, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of the first batch, and its gradient on the features."""
    for name, value in changes.items():
        setattr(training.method, name, value)
    ctx, model = training.context, training.model.eval()
    batch = next(training.data.batches(training.rows, 32, training.predictor.views(training=False)))
    ctx.start_step(batch, 0.0)
    out = model(batch)
    for h in out.features.values():
        h.retain_grad()
    training.method._s = None
    L = training.method.compute_loss(ctx, out, batch)
    training.method._s = None
    L.backward()
    return L.item(), {u: h.grad.clone() for u, h in out.features.items() if h.grad is not None}


def test_the_slower_modality_is_drawn_to_its_prototypes_and_the_other_left_alone() -> None:
    training = run()
    next(training)
    plain, g = loss_of(training, alpha=0.0, mu=0.0)
    more, g_more = loss_of(training, alpha=1.0)
    assert more > plain
    torch.testing.assert_close(g_more["m0"], g["m0"])
    assert not torch.allclose(g_more["m1"], g["m1"])


def test_the_entropy_term_keeps_the_dominant_modality_undecided() -> None:
    training = run()
    next(training)
    training.method.entropy_end = 1.0
    plain, g = loss_of(training, alpha=0.0, mu=0.0)
    less, g_less = loss_of(training, mu=1.0)
    assert less < plain
    torch.testing.assert_close(g_less["m1"], g["m1"])
    batch = next(training.data.batches(training.rows, 32, training.predictor.views(training=False)))
    h = training.model(batch).features["m0"].detach()

    def entropy(h: torch.Tensor) -> float:
        return float(
            torch.distributions.Categorical(logits=similarities(h, training.method._prototypes["m0"])).entropy().mean()
        )

    assert entropy(h - 0.1 * (g_less["m0"] - g["m0"])) > entropy(h)


def test_the_entropy_term_ends_early() -> None:
    training = run()
    next(training)
    assert training.context.progress >= 0.2
    assert loss_of(training, alpha=0.0, mu=0.0)[0] == loss_of(training, mu=1.0)[0]


def test_classes_that_were_never_drawn_do_no_harm() -> None:
    training = run(fraction=0.02)
    result = next(training)
    assert not all(seen.all() for seen in training.method._seen.values())
    assert torch.isfinite(torch.tensor(result.metrics["train/loss"]))
    for r in training:
        assert all(torch.isfinite(torch.tensor(v)) for v in r.metrics.values())


def test_prototypes_are_class_means_of_the_features() -> None:
    training = run(fraction=1.0)
    training.context.start_epoch(training.context.stage, 0, 4)
    training.method.on_epoch_start(training.context)
    batch = next(training.data.batches(training.rows, 500, training.predictor.views(training=False)))
    h = training.predictor.predict(batch).features["m1"]
    for k in range(4):
        torch.testing.assert_close(training.method._prototypes["m1"][k], h[batch.label == k].mean(0))


def test_it_points_at_the_easier_modality_and_ends_with_its_window() -> None:
    results = finish(run(epochs=6, end=0.5))
    assert ["pmr/score/m0" in r.metrics for r in results] == [True] * 3 + [False] * 3
    m = results[2].metrics
    assert m["pmr/score/m0"] > m["pmr/score/m1"]
    assert m["pmr/coefficient/m0"] < m["pmr/coefficient/m1"]


def test_prototypes_cost_a_share_of_a_pass() -> None:
    costs = [r.cost_joint_epochs for r in run(end=1.0)]
    assert 1.0 < costs[0] < 1.1


@pytest.mark.parametrize("fusion", ["gated", "bottleneck"])
def test_any_fusion_will_do(fusion: str) -> None:
    document = {"method": {"name": "pmr"}, "fusion": {"name": fusion}, "epochs": 2}
    assert finish(train(document, toy_data()))[-1].final


class TestAsReleased(MethodConformance):
    method = {"name": "pmr", "variant": "official", "end": 1.0}


class TestEveryTermToTheEnd(MethodConformance):
    method = {"name": "pmr", "end": 1.0, "mu": 1.0, "entropy_end": 0.5, "fraction": 0.02, "eps": 0.9}
