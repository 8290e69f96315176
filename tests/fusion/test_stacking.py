"""Logistic regression on opinions."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from mmsearch.fusion import FUSIONS
from mmsearch.fusion.stacking import StackingHead
from mmsearch.testing import FusionConformance


def stack(M: int, classes: int, c: float = 1.0) -> StackingHead:
    return FUSIONS.create({"name": "stacking", "c": c}).build({f"m{i}": 1 for i in range(M)}, classes).double()


def clips(M: int, classes: int, n: int = 60) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(n) % classes
    truth = torch.eye(classes, dtype=torch.float64)[label]
    z = {f"m{i}": truth + torch.randn(n, classes, dtype=torch.float64, generator=generator) for i in range(M)}
    return z, label, {u: torch.ones(n, dtype=torch.bool) for u in z}


@pytest.mark.parametrize(("M", "classes"), [(1, 2), (2, 2), (2, 4), (3, 3)])
def test_it_is_scikit_learns_regression_on_log_probabilities(M: int, classes: int) -> None:
    z, label, present = clips(M, classes)
    head = stack(M, classes, 0.5)
    head.fit(z, label, present)
    X = torch.cat([x.log_softmax(1) for x in z.values()], 1).numpy()
    expected = LogisticRegression(C=0.5, max_iter=2000).fit(X, label.numpy()).predict_proba(X)
    found = head.combine(z, present).softmax(1)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_before_the_fit_it_is_the_product_of_opinions() -> None:
    z, _, present = clips(2, 3)
    torch.testing.assert_close(stack(2, 3).combine(z, present).softmax(1), sum(z.values()).softmax(1))


def test_a_missing_modality_counts_as_the_uniform_opinion() -> None:
    z, label, present = clips(2, 3)
    head = stack(2, 3)
    head.fit(z, label, present)
    gone = {**present, "m1": ~present["m1"]}
    uniform = {**z, "m1": torch.full_like(z["m1"], math.log(1 / 3))}
    expected = head.combine(uniform, present)
    torch.testing.assert_close(head.combine(z, gone), expected)
    torch.testing.assert_close(head.combine({"m0": z["m0"]}, present), expected)


@pytest.mark.parametrize("seen", [1, 2, 3])
def test_classes_that_no_held_clip_has_are_not_predicted(seen: int) -> None:
    z, label, present = clips(2, 4)
    some = label < seen
    head = stack(2, 4)
    head.fit({u: x[some] for u, x in z.items()}, label[some], {u: h[some] for u, h in present.items()})
    predicted = head.combine(z, present).argmax(1)
    assert torch.isfinite(head.combine(z, present)).all()
    assert seen == 1 or predicted.max() < seen


def test_its_coefficients_are_saved_with_the_weights() -> None:
    z, label, present = clips(2, 3)
    head = stack(2, 3)
    head.fit(z, label, present)
    copy = stack(2, 3)
    copy.load_state_dict(head.state_dict())
    assert copy.fitted and torch.equal(copy.combine(z, present), head.combine(z, present))


class TestStrongPenalty(FusionConformance):
    fusion = {"name": "stacking", "c": 0.1}
