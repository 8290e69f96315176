"""Stopping: asynchronous successive halving among the trials of one method."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict

FACTOR = 3
"""The reduction factor: of so many trials at a rung about one goes on."""

SHARES = (1 / 9, 1 / 3)
"""The rungs, as shares of a trial's own planned epochs."""


@dataclasses.dataclass
class Halving:
    """Decides at rungs whether a trial goes on.

    A rung is a share of a trial's own planned epochs, so trials of different length meet there. A trial is
    compared only with trials of its own method, only once at least `factor` of them have reached the rung, and
    not before the share of training that the method declares as its earliest fair judgement. It goes on where its
    score is among the best 1/`factor` (rounded up) of those that have reached the rung so far; a tie goes on.

    Source: A System for Massively Parallel Hyperparameter Tuning (MLSys 2020), the variant that stops trials.

    Attributes:
        factor: the reduction factor.
        shares: the rungs.
    """

    factor: int = FACTOR
    shares: tuple[float, ...] = SHARES
    _reached: dict[tuple[str, float], dict[str, float]] = dataclasses.field(
        default_factory=lambda: defaultdict(dict), init=False
    )

    def rungs(self, epochs: int, earliest: float = 0.0) -> dict[float, int]:
        """The rungs of a trial: share of training -> the epoch after which it is judged.

        Args:
            epochs: planned.
            earliest: the method's; an earlier rung moves there.
        """
        rungs: dict[float, int] = {}
        for share in self.shares:
            share = max(share, earliest)
            epoch = max(1, math.ceil(share * epochs - 1e-9))
            if epoch < epochs and epoch not in rungs.values():
                rungs[share] = epoch
        return rungs

    def stops(
        self, method: str, trial_id: str, *, epoch: int, epochs: int, score: float, earliest: float = 0.0
    ) -> bool:
        """Notes the score of an epoch and says whether the trial ends here.

        A trial counts at a rung once, with the first score at or after it.
        """
        stop = False
        for share, at in self.rungs(epochs, earliest).items():
            reached = self._reached[method, share]
            if epoch < at or epoch >= epochs or trial_id in reached:
                continue
            reached[trial_id] = score
            if len(reached) >= self.factor:
                best = sorted(reached.values(), reverse=True)[: math.ceil(len(reached) / self.factor)]
                stop = stop or score < best[-1]
        return stop
