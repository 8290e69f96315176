"""Linear probes on features whose content is known."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.diagnostics.probes import probe


def features(far: float, n: int = 900, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.arange(n) % classes
    return far * np.eye(classes)[label] @ rng.normal(size=(classes, 6)) + rng.normal(size=(n, 6)), label


@pytest.mark.parametrize("far, low, high", [(0.0, 0.25, 0.42), (8.0, 0.99, 1.0)])
def test_it_finds_what_is_there_and_nothing_where_nothing_is(far: float, low: float, high: float) -> None:
    x, y = features(far)
    assert low <= probe(x[:600], y[:600]).score(x[600:], y[600:]) <= high


def test_the_scale_of_a_feature_does_not_matter() -> None:
    x, y = features(1.5)
    scaled = x * [1e4, 1, 1e-4, 1, 1, 1] + 7
    a, b = probe(x[:600], y[:600]).predict(x[600:]), probe(scaled[:600], y[:600]).predict(scaled[600:])
    assert np.array_equal(a, b)
