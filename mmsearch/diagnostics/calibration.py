"""Whether a model is right as often as it says."""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 15
"""As in Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017)."""


def reliability(probabilities: np.ndarray, label: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """Mean confidence and accuracy of the clips of each of equal bins of confidence, empty ones left out.

    Args:
        probabilities: `[n, C]`; the confidence of a clip is its largest.
        label: `[n]`.
        bins: of (0, 1]; a bin has its upper edge.

    Returns:
        `{"confidence", "accuracy", "clips"}` a bin, by rising confidence.
    """
    confidence, hit = probabilities.max(1), probabilities.argmax(1) == label
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "confidence": float(confidence[place == b].mean(dtype=np.float64)),
            "accuracy": float(hit[place == b].mean()),
            "clips": int((place == b).sum()),
        }
        for b in np.unique(place)
    ]


def expected_calibration_error(rows: list[dict[str, Any]]) -> float:
    """ECE = Σ_b n_b/n·|accuracy_b - confidence_b|, of what :func:`reliability` gives."""
    n = sum(row["clips"] for row in rows)
    return sum(row["clips"] / n * abs(row["accuracy"] - row["confidence"]) for row in rows)
