"""ReconBoost: turns, rectification and the boosting loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.reconboost import BoostHead, ReconBoost, agreement_losses, boosting_losses, previous
from mmsearch.testing import MethodConformance, finish, teachers_for, toy_data, weights
from mmsearch.training import Predictor, Training, train
from tests.methods.test_worked_examples import Z_A, Z_V, Y, close


def run(epochs: int = 4, modalities: int = 2, **knobs: Any) -> Training:
    document = {
        "method": {"name": "reconboost", "init": "scratch", **knobs},
        "optimizer": {"name": "sgd", "lr": 0.05},
        "epochs": epochs,
    }
    return train(document, toy_data(modalities))


def test_worked_example() -> None:
    L = boosting_losses(Z_A, Z_V, Y, w1=5.0, w2=1.0)
    close(L, [0.370759, 0.625054, 0.412748, 2.161535])
    assert float(L.mean()) == pytest.approx(0.8925242, abs=1e-7)


def test_the_others_only_set_the_discount() -> None:
    f_u, F_others = Z_A.clone().requires_grad_(), Z_V.clone().requires_grad_()
    boosting_losses(f_u, F_others, Y, 5.0, 1.0).mean().backward()
    assert f_u.grad is not None
    assert F_others.grad is None


def test_what_the_others_are_sure_of_counts_less() -> None:
    sure = torch.nn.functional.one_hot(Y, 3).double() * 9
    assert (boosting_losses(Z_A, sure, Y, 5.0, 1.0) < boosting_losses(Z_A, -sure, Y, 5.0, 1.0)).all()


def test_agreement_pulls_on_the_learner_alone() -> None:
    f_u, f_v = Z_A.clone().requires_grad_(), Z_V.clone().requires_grad_()
    GA = agreement_losses(f_u, f_v).mean()
    torch.testing.assert_close(GA.detach(), torch.nn.functional.mse_loss(Z_A.softmax(1), Z_V.softmax(1)))
    GA.backward()
    assert f_u.grad is not None
    assert f_u.grad.abs().sum() > 0
    assert f_v.grad is None


def test_agreement_changes_what_is_learned() -> None:
    a, b = run(epochs=2, alpha=0.0), run(epochs=2, alpha=1.0)
    finish(a)
    finish(b)
    assert any(not torch.equal(w, weights(b)[k]) for k, w in weights(a).items())


def test_the_modality_before_goes_round() -> None:
    assert [previous(u, ["a", "v", "t"]) for u in ("a", "v", "t")] == ["t", "a", "v"]


def test_unimodal_logits_add_up() -> None:
    head = BoostHead({"a": 8, "v": 5}, 3)
    h = {"a": torch.randn(4, 8), "v": torch.randn(4, 5)}
    f = head.unimodal(h)
    torch.testing.assert_close(head(h), f["a"] + f["v"])
    torch.testing.assert_close(head({"a": h["a"]}), head({"a": h["a"], "v": torch.zeros(4, 5)}))


def test_turns_alternate_with_rectification() -> None:
    results = finish(run(epochs=8, stage=0.125))
    assert [r.stage for r in results] == ["boost m0", "rectify", "boost m1", "rectify"] * 2


def test_few_epochs_still_give_everyone_a_turn() -> None:
    assert [r.stage for r in finish(run(epochs=4))] == ["boost m0", "rectify", "boost m1", "rectify"]


@given(st.integers(1, 60), st.integers(2, 4), st.floats(0.02, 0.25))
@settings(max_examples=50, deadline=None)
def test_shares_survive_rounding(epochs: int, M: int, stage: float) -> None:
    method = ReconBoost(stage=stage)
    method._modalities, method._epochs = [f"m{i}" for i in range(M)], epochs
    shares = [s.share for s in method.stages()]
    assert len(shares) % (2 * M) == 0
    ends = [round(sum(shares[: i + 1]) * epochs) for i in range(len(shares))]
    assert ends[-1] == epochs
    if epochs >= 2 * M:
        assert all(b > a for a, b in zip([0, *ends], ends, strict=False))


def test_fewer_epochs_than_turns_are_all_trained() -> None:
    results = finish(run(epochs=3, modalities=4))
    assert [r.epoch for r in results] == [1, 2, 3]


def test_a_turn_moves_its_encoder_and_the_head_only() -> None:
    training = run()
    before = weights(training)
    next(training)
    after = weights(training)
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert any(k.startswith("encoders.m0") for k in moved)
    assert any(k.startswith("fusion") for k in moved)
    assert not any(k.startswith("encoders.m1") for k in moved)


def test_encoders_start_from_the_teachers(tmp_path: Path) -> None:
    data = toy_data()
    document = {"method": {"name": "reconboost"}, "epochs": 2}
    arguments = teachers_for(document, data, tmp_path)
    training = train(data=data, **arguments)
    for u, path in arguments["teachers"].items():
        taught = Predictor.load(path).model.encoders[u].state_dict()
        mine = training.model.encoders[u].state_dict()
        assert all(torch.equal(mine[k], w) for k, w in taught.items())


def test_it_learns() -> None:
    results = finish(run(epochs=8))
    assert results[-1].score > 0.5
    assert results[-1].score == pytest.approx(results[-1].metrics["val/accuracy"])


class TestScratch(MethodConformance):
    method = {"name": "reconboost", "init": "scratch", "alpha": 1.0}
