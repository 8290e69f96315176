"""UME, UMT and the rule between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.batch import Batch, Output
from mmsearch.errors import MMSearchError
from mmsearch.methods.g2d import feature_distance
from mmsearch.methods.unimodal_teacher import (
    accuracy_weights,
    ensemble,
    paired_features_help,
    paired_se,
    probe,
    scale_free,
    simplex_weights,
)
from mmsearch.testing import MethodConformance, difference, finish, teachers_for, toy_data, weights
from mmsearch.training import EpochResult, Training, evaluate, resolve, train

Z_A = torch.tensor([[2, 0.5, -1], [0.2, 1.5, 0], [1, 0, 2.5], [1.2, 0.3, 0.1]], dtype=torch.float64)
Z_V = torch.tensor([[0.3, 0.1, 0], [0.5, 0.4, 0.2], [0.2, 0.6, 0.5], [0, 0.9, 0.1]], dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 1])
LEVELS = ("prob", "logprob", "logit")
WELL_TRAINED = {"optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 12}
BARELY_TRAINED = {"optimizer": {"name": "sgd", "lr": 0.02}, "epochs": 2}


def run(method: dict, folder: Path, **document) -> tuple[Training, list[EpochResult]]:
    data = toy_data()
    document = {"method": {"name": "unimodal_teacher", **method}, "batch_size": 16, **document}
    training = train(data=data, **teachers_for(document, data, folder))
    return training, finish(training)


def test_distillation_is_a_mean_over_clips_and_elements() -> None:
    h = torch.tensor([[0.5, 2, 1], [0, 0, 1]], dtype=torch.float64, requires_grad=True)
    h_T = torch.tensor([[1.0, 2, 0], [0, 1, 1]], dtype=torch.float64)
    batch = Batch({}, torch.zeros(2), torch.arange(2), {"a": torch.ones(2, dtype=torch.bool)})
    D = feature_distance(Output(h, {"a": h}, {}), Output(h_T, {"a": h_T}, {}), batch, "a")
    assert D.item() == pytest.approx(0.375)
    (50 * D).backward()
    expected = torch.tensor([[-8.333333, 0, 16.666667], [0, -16.666667, 0]])
    torch.testing.assert_close(h.grad, expected.double(), rtol=0, atol=1e-5)


def test_scale_free_leaves_the_value_and_weighs_the_gradients() -> None:
    L, D = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.375, dtype=torch.float64)
    a, b = scale_free(L, D, 0.3)
    assert (a, b.item()) == (pytest.approx(0.7), pytest.approx(0.64))
    assert (a * L + b * D).item() == pytest.approx(0.8)


def test_scale_free_stops_growing_close_to_the_teacher() -> None:
    L, D = torch.tensor(1.0), torch.tensor(1e-8)
    assert scale_free(L, D, 0.3, power=2.0)[1].item() == pytest.approx(0.3 / 0.02)


def test_a_scale_free_student_that_starts_from_its_teachers_stays_close_to_them(tmp_path: Path) -> None:
    training, results = run({"weighting": "scale_free", "init": "teacher"}, tmp_path, **BARELY_TRAINED)
    assert results[-1].metrics["train/loss"] < 3
    for u, teacher in training.context.teachers.items():
        for p, p_T in zip(training.model.encoders[u].parameters(), teacher.encoders[u].parameters(), strict=True):
            assert (p - p_T).abs().max() < 0.3


def test_ensemble_with_weights() -> None:
    p = ensemble({"a": Z_A, "v": Z_V}, "prob", [0.7, 0.3]).exp()
    torch.testing.assert_close(p[0], torch.tensor([0.667126, 0.218665, 0.114209]).double(), rtol=0, atol=1e-6)


def test_weighted_logits_and_log_probabilities() -> None:
    z = {"a": Z_A, "v": Z_V}
    weighted = torch.tensor([0.725, 0.2, -0.25]).double()
    torch.testing.assert_close(ensemble(z, "logit", [0.25, 0.75])[0], weighted, rtol=0, atol=1e-6)
    pooled = F.softmax(ensemble(z, "logprob"), 1)[0]
    torch.testing.assert_close(pooled, torch.tensor([0.6175, 0.2639, 0.1186]).double(), rtol=0, atol=1e-4)


def test_a_modality_that_a_clip_lacks_has_no_say() -> None:
    here = {"a": torch.tensor([True, False, True, True]), "v": torch.tensor([True, True, False, True])}
    z = ensemble({"a": Z_A, "v": Z_V}, "prob", [0.7, 0.3], here)
    torch.testing.assert_close(z[1].exp(), F.softmax(Z_V[1], 0))
    torch.testing.assert_close(z[2].exp(), F.softmax(Z_A[2], 0))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.sampled_from(LEVELS), st.integers(0, 1000))
def test_fitted_weights_lie_on_the_simplex_and_do_not_lose(modalities: int, level: str, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    z = {f"m{i}": torch.randn(40, 3, generator=g, dtype=torch.float64) for i in range(modalities)}
    y = torch.randint(3, (40,), generator=g)
    w = simplex_weights(z, y, level)
    assert min(w) >= 0 and sum(w) == pytest.approx(1)
    assert F.cross_entropy(ensemble(z, level, w), y) <= F.cross_entropy(ensemble(z, level), y) + 1e-6
    batch = Batch({}, y, torch.arange(40), {u: torch.ones(40, dtype=torch.bool) for u in z})
    assert sum(accuracy_weights(z, batch)) == pytest.approx(1)


def test_a_modality_that_knows_nothing_gets_no_weight() -> None:
    y = torch.arange(90) % 3
    sure = 4 * F.one_hot(y, 3).double()
    noise = torch.randn(90, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    for level in LEVELS:
        assert simplex_weights({"sure": sure, "noise": noise}, y, level)[0] > 0.9


@pytest.mark.parametrize(
    ("n01", "n10", "umt"),
    [(60, 71, False), (85, 59, True), (74, 69, False)],
    ids=["the probe is behind", "the probe is ahead", "a tie within the error"],
)
def test_the_rule_decides_by_the_paired_error(n01: int, n10: int, umt: bool) -> None:
    probed = np.repeat([True, False, True, False], [n01, n10, 700, 300 - n01 - n10])
    averaged = np.repeat([False, True, True, False], [n01, n10, 700, 300 - n01 - n10])
    chosen, se = paired_features_help(probed, averaged, 0.0)
    assert chosen == umt
    assert se == paired_se(n01, n10, 1000)
    assert 0.011 < se < 0.0125
    assert not paired_features_help(probed, averaged, 0.05)[0]


def test_the_probe_learns_what_only_the_pair_says() -> None:
    g = np.random.default_rng(0)
    a, b = g.normal(size=(2, 400, 1))
    y = (a + b > 0).astype(int)[:, 0]
    x = np.concatenate([a, b], 1)
    assert probe(x[:200], y[:200]).score(x[200:], y[200:]) > 0.95


def test_auto_takes_the_ensemble_of_good_teachers_and_trains_nothing(tmp_path: Path) -> None:
    training, results = run({"teacher": "auto"}, tmp_path, **WELL_TRAINED)
    assert [(r.epoch, r.final, r.stage) for r in results] == [(12, True, "ensemble")]
    m = results[0].metrics
    assert m["unimodal_teacher/umt"] == 0
    assert m["unimodal_teacher/acc_probe"] - m["unimodal_teacher/acc_ume"] <= m["unimodal_teacher/se"]
    data = toy_data()
    method = {"name": "unimodal_teacher", "teacher": "ume"}
    document = {k: v for k, v in training.document.items() if k != "fusion"}
    other = train({**document, "method": method}, data, teachers={u: tmp_path / u for u in data.modalities})
    finish(other)
    assert np.array_equal(training.evaluate("select").probabilities, other.evaluate("select").probabilities)


def test_auto_distils_where_the_probe_is_ahead(tmp_path: Path) -> None:
    training, results = run({"teacher": "auto"}, tmp_path, **BARELY_TRAINED)
    assert [r.stage for r in results] == ["distil"] * 2
    assert all(r.metrics["unimodal_teacher/umt"] == 1 for r in results)
    data = toy_data()
    method = {"name": "unimodal_teacher", "teacher": "umt"}
    other = train({**training.document, "method": method}, data, teachers={u: tmp_path / u for u in data.modalities})
    finish(other)
    theirs = weights(other)
    assert difference({k: v for k, v in weights(training).items() if k in theirs}, theirs) == 0


@pytest.mark.parametrize("recipe", [WELL_TRAINED, BARELY_TRAINED], ids=["ume", "umt"])
def test_the_choice_is_saved_with_the_model(tmp_path: Path, recipe: dict) -> None:
    training, _ = run({"teacher": "auto", "weights": "simplex"}, tmp_path / "teachers", **recipe)
    training.save_weights(tmp_path / "model")
    there = evaluate(tmp_path / "model", training.data, "select")
    assert np.array_equal(there.probabilities, training.evaluate("select").probabilities)


def test_teachers_that_have_seen_the_held_clips_are_refused(tmp_path: Path) -> None:
    data = toy_data()
    document = {"method": {"name": "unimodal_teacher", "teacher": "ume"}, **BARELY_TRAINED}
    arguments = teachers_for(document, data, tmp_path)
    document = {**arguments["document"], "method": {"name": "unimodal_teacher", "teacher": "auto"}}
    with pytest.raises(MMSearchError, match="needs held out"):
        train(document, data, teachers=arguments["teachers"])


def test_auto_keeps_the_knobs_of_both() -> None:
    method = {"name": "unimodal_teacher", "teacher": "auto", "lam": 7.0, "level": "logit", "weights": "accuracy"}
    modalities = toy_data().modalities
    resolved = resolve({"method": method, "teachers": dict.fromkeys(modalities, "t")}, modalities)
    assert {k: resolved["method"][k] for k in method} == method
    assert resolved["held"]


class TestAuto(MethodConformance):
    method = {"name": "unimodal_teacher", "teacher": "auto", "weights": "accuracy"}
    epochs = 3


class TestLogits(MethodConformance):
    method = {"name": "unimodal_teacher", "distils": "feat+logit", "weighting": "scale_free"}
    epochs = 3


class TestSimplex(MethodConformance):
    method = {"name": "unimodal_teacher", "teacher": "ume", "weights": "simplex", "level": "logit"}
    epochs = 3
