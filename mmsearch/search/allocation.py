"""Allocation: which method gets the next trial once every method has its floor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

FLOOR = 4
"""Trials of every method before the allocation may prefer one to another."""

BEATEN = 2.0
"""A method is dropped where even so many standard errors in its favour leave it behind."""


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a method stands in the search.

    Attributes:
        asked: its documents asked so far.
        scores: of its trials that ran to their end.
    """

    asked: int
    scores: Sequence[float]


class Allocation(Protocol):
    """Orders the methods by their claim to the next trial."""

    def order(self, standings: Mapping[str, Standing], seed: int) -> list[str]:
        """The methods that may get the next trial, the first claim first; a method left out is dropped for now.

        Args:
            standings: of every method that can be asked.
            seed: of whatever is drawn; another one for every trial.
        """
        ...


class Equal:
    """Every method gets as many trials."""

    def order(self, standings: Mapping[str, Standing], seed: int) -> list[str]:
        """Fewest trials first."""
        return sorted(standings, key=lambda m: standings[m].asked)


class Race:
    """Trials flow to the methods that may still be best.

    What a method can reach is judged by its best full-length score b and the spread s of its better half, of n
    scores: its reach is drawn from N(b, (s/√n)²), and the highest draw gets the trial (Thompson sampling). Up to the
    floor every method gets its trials first. A method is dropped where b + BEATEN·s/√n·√2 is below the best score of
    the leader: beaten beyond the noise. It comes back if the leader falls.

    The spread is at least that of all methods together, so that two lucky trials that agree are not taken for
    certainty.
    """

    def __init__(self, floor: int = FLOOR, beaten: float = BEATEN) -> None:
        self.floor = floor
        self.beaten = beaten

    def order(self, standings: Mapping[str, Standing], seed: int) -> list[str]:
        """Those below the floor, fewest first, then by draw, then those without a full-length score."""
        below = sorted((m for m in standings if standings[m].asked < self.floor), key=lambda m: standings[m].asked)
        judged = {m: s for m, s in standings.items() if s.asked >= self.floor}
        pooled = spread([s.scores for s in judged.values()])
        rng = np.random.default_rng(seed)
        reach: dict[str, tuple[float, float]] = {}
        for m, standing in judged.items():
            if standing.scores:
                top = better_half(standing.scores)
                s = max(pooled, float(np.std(top, ddof=1)) if len(top) > 2 else 0.0)
                reach[m] = max(standing.scores), s / math.sqrt(len(standing.scores))
        leader = max((b for b, _ in reach.values()), default=-math.inf)
        alive = {m: (b, e) for m, (b, e) in reach.items() if b + self.beaten * math.sqrt(2) * e >= leader}
        draws = {m: rng.normal(b, e) for m, (b, e) in sorted(alive.items())}
        unknown = [m for m in judged if m not in reach]
        return [*below, *sorted(draws, key=lambda m: -draws[m]), *unknown]


class Joint(Equal):
    """One study over all methods: after the paper's settings its sampler chooses the method with the knobs."""


def spread(scores: Sequence[Sequence[float]]) -> float:
    """The typical spread of a method's better half: the median of the standard deviations, 0.02 where there are none.

    Args:
        scores: per method those of its trials that ran to their end.
    """
    spreads = [float(np.std(better_half(s), ddof=1)) for s in scores if len(s) > 2]
    return float(np.median(spreads)) if spreads else 0.02


def better_half(scores: Sequence[float]) -> list[float]:
    """The higher half of the scores, at least two where there are two."""
    return sorted(scores, reverse=True)[: max(2, math.ceil(len(scores) / 2))]


ALLOCATIONS: dict[str, type[Equal] | type[Race] | type[Joint]] = {"equal": Equal, "race": Race, "joint": Joint}
"""By the name that `--allocation` knows."""
