"""How far the classes lie apart in an encoder's features, without a classifier."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics.cluster import contingency_matrix
from sklearn.preprocessing import minmax_scale
from threadpoolctl import threadpool_limits


def purity(label: np.ndarray, clusters: np.ndarray) -> float:
    """P = (1/n)·Σ_k max_c |cluster k ∩ class c|; both `[n]`, any integers."""
    return float(contingency_matrix(label, clusters).max(axis=0).sum() / len(label))


def separability(h: np.ndarray, label: np.ndarray, n_classes: int) -> float:
    """Purity of the K-means clusters (K = C) of features `[n, D]`, every column scaled to [-1, 1].

    Source: Diagnosing and Re-learning for Balanced Multimodal Learning (ECCV 2024).
    """
    kmeans = KMeans(min(n_classes, len(h)), n_init=4, random_state=0)
    with threadpool_limits(1, user_api="openmp"):  # the order in which threads add up is not fixed
        return purity(label, kmeans.fit_predict(minmax_scale(h, (-1, 1))))
