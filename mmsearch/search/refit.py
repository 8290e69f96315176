"""The refit: the recommended configuration trained once more, on every clip that is not test."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from mmsearch.search.sources import FINISHED, WAIT, Signal, Source
from mmsearch.search.study import Ask, Study
from mmsearch.search.trials import TrialRecord


class RefitSource(Source):
    """The recommended configuration on the whole development part: its teachers, then itself.

    It trains for the length that its confirmation found best, under the sweep's own seed. Its trials have the stage
    `refit`; their score is that of clips they trained on, and evidence of nothing.

    Args:
        study: the study.
        trial_ids: the confirmation of the configuration.

    Attributes:
        trial_id: of the configuration's own trial.
    """

    def __init__(self, study: Study, trial_ids: Sequence[str]) -> None:
        self._records = study.records
        confirmed = [study.records[i] for i in trial_ids]
        document = study.space.refit(confirmed[0].document, until=best_length(confirmed))
        needed = [study.space.teacher(u, fold=None, held=document["held"]) for u in sorted(document["teachers"])]
        self._asks = [Ask.of(d, stage="refit", why="refit") for d in (*needed, document)]
        self.trial_id = self._asks[-1].trial_id

    def next(self) -> Ask | Signal:
        """What was not asked yet; the configuration itself when its teachers have ended."""
        due = next((ask for ask in self._asks if ask.trial_id not in self._records), None)
        if due is None:
            return FINISHED
        return due if all(self._records[t].finished for t in due.document["teachers"].values()) else WAIT

    def told(self, record: TrialRecord) -> None:
        """Nothing to remember: the records say it."""


def best_length(trials: Sequence[TrialRecord]) -> int:
    """The epoch with the highest mean accuracy on val over trials of one configuration, the first of equal ones."""
    scores: dict[int, list[float]] = {}
    for trial in trials:
        for epoch, score in trial.curve:
            scores.setdefault(epoch, []).append(score)
    means = {epoch: statistics.fmean(found) for epoch, found in scores.items() if len(found) == len(trials)}
    return max(sorted(means), key=lambda epoch: means[epoch])
