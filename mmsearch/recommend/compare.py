"""Methods across datasets: average ranks with their critical difference, and ranks at an equal budget.

Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets" (JMLR 2006), sections 3.2.2 and 3.2.4. A
dataset is one observation, however many seeds its sweep had.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mmsearch.errors import MMSearchError
from mmsearch.recommend.decision import method_label
from mmsearch.search.trials import Records, records

LEVEL = 0.05
"""Of every test and interval here."""


@dataclasses.dataclass(frozen=True)
class Spent:
    """A method's search in one run.

    Attributes:
        joint_epochs: in all, teachers charged in full.
        finished: after how many joint epochs each complete trial was done, and its accuracy on val, in their order.
    """

    joint_epochs: float
    finished: list[tuple[float, float]]

    def best(self, budget: float) -> float | None:
        """The best accuracy on val that was there after so many joint epochs; None before the first."""
        return max((score for cost, score in self.finished if cost <= budget), default=None)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a comparison needs of a finished run.

    Attributes:
        name: of its dataset.
        digest: of its clips, labels and split.
        gains: per method, accuracy on select of its best finalist less that of joint training, paired by seed.
        spent: per method, what its search took and found.
    """

    name: str
    digest: str
    gains: dict[str, float]
    spent: dict[str, Spent]

    @classmethod
    def of(cls, rec: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Sweep:
        """From the content of `recommendation.json` and the journal's events."""
        reference = rec["decision"]["reference"]
        over = {c["a"]: c["mean"] for c in rec["comparisons"] if c["b"] == reference and c["mean"] is not None}
        gains: dict[str, float] = {}
        for f in rec["finalists"]:
            gain = 0.0 if f["label"] == reference else over.get(f["label"])
            if gain is not None:
                method = method_label(f["config"]["method"])
                gains[method] = max(gain, gains.get(method, -math.inf))
        dataset = rec["provenance"]["dataset"]
        return cls(dataset["name"], dataset["digest"], gains, _spent(records(events)))


def _spent(found: Records) -> dict[str, Spent]:
    total: dict[str, float] = {}
    finished: dict[str, list[tuple[float, float]]] = {}
    charged: dict[str, set[str]] = {}
    for r in found.values():
        if not r.searched:
            continue
        method = method_label(r.document["method"])
        paid = charged.setdefault(method, set())
        fresh = {t for t in (r.document.get("teachers") or {}).values() if t in found} - paid
        paid |= fresh
        own = r.cost_joint_epochs + sum(found[t].cost_joint_epochs for t in fresh)
        total[method] = total.get(method, 0.0) + own
        done = finished.setdefault(method, [])
        if r.state == "complete" and r.score is not None:
            done.append((total[method], r.score))
    return {m: Spent(total[m], finished[m]) for m in total}


@dataclasses.dataclass(frozen=True)
class Place:
    """A method's place among those that all runs have in common.

    Attributes:
        method: as printed.
        rank: averaged over runs, 1 is best; by the gains on select.
        gains: over joint training, a run each.
        ci95: of the mean gain, over datasets (Student t).
        equal_rank: averaged over runs, by the best accuracy on val within the run's budget.
        reached: that accuracy, a run each; None where nothing was finished by then.
    """

    method: str
    rank: float
    gains: list[float]
    ci95: tuple[float, float]
    equal_rank: float
    reached: list[float | None]

    @property
    def gain(self) -> float:
        """Over joint training, averaged over runs."""
        return statistics.fmean(self.gains)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self) | {"gain": self.gain}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods across datasets.

    Attributes:
        datasets: names, in the order of the runs.
        places: of the methods in common, the best average rank first.
        p: of Friedman's test in the form of Iman and Davenport, that all methods are alike; None where nothing can be
            tested (fewer than three methods, or every method tied with every other on every dataset).
        critical_difference: of average ranks, Nemenyi's at 5 %.
        cliques: groups of methods, from and to in the order of `places`, that are within the critical difference.
        budgets: joint epochs a method at which the equal budget is drawn, a run each.
        missing: methods that not all runs have, with the datasets that lack them.
    """

    datasets: list[str]
    places: list[Place]
    p: float | None
    critical_difference: float
    cliques: list[tuple[int, int]]
    budgets: list[float]
    missing: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self) | {"places": [p.to_dict() for p in self.places]}


def compare(sweeps: Sequence[Sweep], budget: float | None = None) -> Comparison:
    """Ranks the methods that every sweep confirmed.

    Args:
        sweeps: at least two, each of a dataset of its own.
        budget: joint epochs a method; by default the median of what the methods of a run spent. A method that spent
            less counts with all it found.

    Raises:
        MMSearchError: too few runs, two of the same data, or no two methods in common.
    """
    _check(sweeps)
    every = list(dict.fromkeys(m for s in sweeps for m in s.gains))
    missing = {m: lacking for m in every if (lacking := [s.name for s in sweeps if m not in s.gains])}
    methods = [m for m in every if m not in missing]
    if len(methods) < 2:
        raise MMSearchError(f"nothing to compare: the runs have only {', '.join(methods) or 'no method'} in common")
    gains = np.array([[s.gains[m] for m in methods] for s in sweeps])
    budgets = [budget or statistics.median(s.spent[m].joint_epochs for m in methods if m in s.spent) for s in sweeps]
    reached = [
        [s.spent[m].best(b) if m in s.spent else None for m in methods] for s, b in zip(sweeps, budgets, strict=True)
    ]
    equal = np.array([[-math.inf if v is None else v for v in row] for row in reached])
    ranks, equal_ranks = (stats.rankdata(-x, axis=1) for x in (gains, equal))
    places = [
        Place(
            m,
            float(ranks[:, i].mean()),
            gains[:, i].tolist(),
            _interval(gains[:, i]),
            float(equal_ranks[:, i].mean()),
            [row[i] for row in reached],
        )
        for i, m in enumerate(methods)
    ]
    places.sort(key=lambda p: (p.rank, -p.gain, p.method))
    width = critical_difference(len(methods), len(sweeps))
    return Comparison(
        [s.name for s in sweeps],
        places,
        friedman(ranks),
        width,
        cliques([p.rank for p in places], width),
        budgets,
        missing,
    )


def _check(sweeps: Sequence[Sweep]) -> None:
    if len(sweeps) < 2:
        raise MMSearchError("a comparison needs the runs of two datasets or more")
    seen: dict[str, str] = {}
    for s in sweeps:
        if s.digest in seen:
            raise MMSearchError(
                f"{s.name}: another run has the same clips and labels ({seen[s.digest]}); a dataset counts once, so "
                "give one run of each"
            )
        seen[s.digest] = s.name


def _interval(gains: np.ndarray) -> tuple[float, float]:
    half = stats.t.ppf(1 - LEVEL / 2, len(gains) - 1) * stats.sem(gains)
    return float(gains.mean() - half), float(gains.mean() + half)


def friedman(ranks: np.ndarray) -> float | None:
    """The p-value that all methods are alike: Friedman's χ² with ties in the form of Iman and Davenport (1980).

        F = (N − 1) χ² / (N (k − 1) − χ²),   F(k − 1, (k − 1)(N − 1))

    Args:
        ranks: [N datasets, k methods].

    Returns:
        None for fewer than three methods, and where all are tied on every dataset.
    """
    n, k = ranks.shape
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    if k < 3 or spread == 0:
        return None
    chi2 = (k - 1) * n**2 * float(((ranks.mean(axis=0) - (k + 1) / 2) ** 2).sum()) / spread
    left = n * (k - 1) - chi2
    return 0.0 if left <= 1e-9 else float(stats.f.sf((n - 1) * chi2 / left, k - 1, (k - 1) * (n - 1)))


def critical_difference(methods: int, datasets: int) -> float:
    """How far two average ranks must be apart to differ at 5 % (Nemenyi): q √(k (k + 1) / 6 N)."""
    q = stats.studentized_range.ppf(1 - LEVEL, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * datasets)))


def cliques(ranks: Sequence[float], width: float) -> list[tuple[int, int]]:
    """The largest groups of neighbours (first and last place) whose ranks, ascending, lie within `width`."""
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(i for i in range(first, len(ranks)) if ranks[i] - ranks[first] <= width)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
