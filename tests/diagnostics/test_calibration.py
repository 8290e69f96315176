"""Bins of confidence and the expected calibration error, by hand and where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.diagnostics.calibration import expected_calibration_error, reliability


def test_the_worked_bins() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    rows = reliability(p, np.array([0, 1, 1, 0]), bins=2)
    assert rows == [{"confidence": pytest.approx(0.7375), "accuracy": 0.5, "clips": 4}]
    rows = reliability(p, np.array([0, 1, 1, 0]), bins=10)
    assert [r["clips"] for r in rows] == [1, 1, 1, 1]
    assert [r["accuracy"] for r in rows] == [0, 1, 0, 1]
    assert expected_calibration_error(rows) == pytest.approx((0.55 + 0.3 + 0.8 + 0.1) / 4)


def test_a_bin_has_its_upper_edge_and_certainty_has_a_bin() -> None:
    rows = reliability(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0]), bins=2)
    assert [(r["confidence"], r["clips"]) for r in rows] == [(0.5, 1), (1.0, 1)]


def test_labels_drawn_from_the_probabilities_are_calibrated_and_a_boast_is_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], size=20_000)
    label = (p.cumsum(1) > rng.random((20_000, 1))).argmax(1)
    assert expected_calibration_error(reliability(p, label)) < 0.015
    sharp = p**3 / (p**3).sum(1, keepdims=True)
    boast = sharp.max(1).mean() - (p.argmax(1) == label).mean()
    assert expected_calibration_error(reliability(sharp, label)) == pytest.approx(boast, abs=0.01)
    assert boast > 0.1
