"""Finalists by seeds as a randomised block design: what a difference between two finalists is, and its noise.

Every seed draws splits of its own, which all finalists share; so a score is modelled as the finalist's level plus the
seed's shift plus noise, by least squares. A finalist whose training failed on a seed simply lacks that cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The fit.

    Attributes:
        level: of each finalist, up to a shift that all of them share; NaN of one without a score.
        variance: of the noise of one score.
        freedom: degrees of freedom of that estimate; at least 1.
        covariance: of the levels in units of `variance`, up to what a shift shared by all adds.
    """

    level: np.ndarray
    variance: float
    freedom: int
    covariance: np.ndarray

    def error(self, a: int, b: int) -> float:
        """The standard error of the level of finalist `a` less that of `b`."""
        c = self.covariance
        return float(np.sqrt(max(0.0, self.variance * (c[a, a] + c[b, b] - 2 * c[a, b]))))


def fit(scores: Sequence[Mapping[int, float]]) -> Blocks | None:
    """The least-squares fit.

    Args:
        scores: per finalist the score of each seed that it has.

    Returns:
        None where no degree of freedom is left for the noise.
    """
    cells = [(i, seed, y) for i, of in enumerate(scores) for seed, y in of.items()]
    seeds = {seed: len(scores) + j for j, seed in enumerate(sorted({seed for _, seed, _ in cells}))}
    x = np.zeros((len(cells), len(scores) + len(seeds)))
    for row, (i, seed, _) in enumerate(cells):
        x[row, i] = x[row, seeds[seed]] = 1
    y = np.array([value for *_, value in cells])
    freedom = len(cells) - int(np.linalg.matrix_rank(x)) if cells else 0
    if freedom < 1:
        return None
    inverse = np.linalg.pinv(x.T @ x)
    effects = inverse @ x.T @ y
    level = np.where([bool(of) for of in scores], effects[: len(scores)], np.nan)
    residual = y - x @ effects
    return Blocks(level, float(residual @ residual) / freedom, freedom, inverse[: len(scores), : len(scores)])
