"""What a linear classifier finds in the features of a frozen encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def probe(features: np.ndarray, label: np.ndarray) -> Any:
    """Logistic regression on standardised features `[N, D]`; one quarter of every class picks C of three."""
    check = np.zeros(len(label), dtype=bool)
    check[np.argsort(label, kind="stable")[::4]] = True

    def fit(C: float, rows: np.ndarray) -> Any:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
        return model.fit(features[rows], label[rows])

    best = max((0.01, 0.1, 1.0), key=lambda C: fit(C, ~check).score(features[check], label[check]))
    return fit(best, np.ones_like(check))
