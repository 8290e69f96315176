"""The study: what to try next, what goes on and what it was worth, rebuilt from the journal alone."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.trial import TrialState

from mmsearch.search.journal import Event, Journal
from mmsearch.search.space import Space
from mmsearch.search.stopping import Halving
from mmsearch.search.trials import Records, TrialRecord, apply
from mmsearch.training import seed_of, trial_id

STARTUP = 6
"""Trials of a method before its sampler models them; the paper's settings count."""

REDRAWS = 20
"""Draws that may repeat a known document before a method counts as exhausted."""

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclasses.dataclass(frozen=True)
class Ask:
    """A document to be run; the fields are those of the journal's `asked`."""

    trial_id: str
    stage: str
    method: str
    fusion: str
    document: dict[str, Any]
    params: dict[str, Any]
    why: str

    @classmethod
    def of(cls, document: dict[str, Any], *, stage: str, why: str, params: dict[str, Any] | None = None) -> Ask:
        """The ask of a resolved document."""
        method, fusion = document["method"]["name"], document["fusion"]["name"]
        return cls(trial_id(document), stage, method, fusion, document, params or {}, why)


class Study:
    """The journal's live face: every event of a trial passes through here and is durable before it takes effect.

    Neither Ray nor training is behind it: the runner and a simulator drive the same object. Everything it
    knows is a function of the journal, so a study opened on the journal of a killed process goes on as if nothing
    had happened.

    Args:
        space: what may be tried.
        journal: open for writing.
        stopping: the rungs.

    Attributes:
        records: every trial asked so far, kept up to date.
    """

    def __init__(self, space: Space, journal: Journal, stopping: Halving | None = None) -> None:
        self.space = space
        self.journal = journal
        self.stopping = stopping or Halving()
        self.records: Records = {}
        self._frozen: dict[str, optuna.trial.FrozenTrial] = {}
        overdue: dict[str, bool] = {}
        for event in journal.events:
            apply(self.records, event)
            if event["event"] == "epoch":
                overdue[event["trial_id"]] = self._judge(event)
            elif event["event"] == "told":
                overdue.pop(event["trial_id"], None)
        journal.subscribe(lambda event: apply(self.records, event))
        for unfinished in [i for i, stop in overdue.items() if stop]:
            self.tell(unfinished, "pruned")
        for record in self.unfinished():
            if record.epoch and record.score is None:
                self.tell(record.trial_id, "failed", reason=_NOT_A_NUMBER)

    def unfinished(self) -> list[TrialRecord]:
        """The trials that were asked and not told, in the order in which they were asked."""
        return [r for r in self.records.values() if not r.finished]

    def suggest(self, method: str) -> Ask | None:
        """A new document of a method from its sampler; None where every draw repeats a known one.

        The draw is a function of the journal: the seed and how many documents of the method were asked. A draw
        that repeats a known document costs nothing and is drawn again.
        """
        asked = len(self._of(method))
        for draw in range(REDRAWS):
            study = self.view(method)
            study.sampler = _sampler(seed_of(self.space.seed, "tpe", method, asked, draw) % 2**32)
            document, params = self.space.suggest(study.ask(), method)
            ask = Ask.of(document, stage="search", why="tpe", params=params)
            if ask.trial_id not in self.records:
                return ask
        return None

    def paper(self, method: str) -> list[Ask]:
        """The paper's setting of a method, with every fusion and structural alternative."""
        asks = []
        for params in self.space.paper_points(method):
            document, _ = self.space.suggest(optuna.trial.FixedTrial(params), method)
            asks.append(Ask.of(document, stage="search", why="paper setting", params=params))
        return list({ask.trial_id: ask for ask in asks}.values())

    def view(self, method: str) -> optuna.Study:
        """A fresh Optuna study in memory with every trial of a method's search.

        Complete trials are COMPLETE with their score, stopped ones PRUNED with their last score, failed ones FAIL
        with the reason as a user attribute, the others RUNNING. User attributes: `trial_id`, `reason`.
        """
        with _quiet():
            study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
            study.add_trials([self._trial(r) for r in self._of(method)])
        return study

    def issue(self, ask: Ask) -> None:
        """Makes an ask durable; from here on it must be told."""
        self.journal.append({"event": "asked", **dataclasses.asdict(ask)})

    def started(self, trial_id: str, epoch: int) -> None:
        """A worker has begun the trial, having resumed from `epoch`."""
        attempt = self.records[trial_id].attempts + 1
        self.journal.append({"event": "started", "trial_id": trial_id, "attempt": attempt, "epoch": epoch})

    def lost(self, trial_id: str, reason: str) -> None:
        """The trial's worker is gone; it goes on elsewhere."""
        self.journal.append({"event": "lost", "trial_id": trial_id, "reason": reason})

    def checkpointed(self, trial_id: str, epoch: int) -> None:
        """The trial can go on from `epoch`."""
        self.journal.append({"event": "checkpointed", "trial_id": trial_id, "epoch": epoch})

    def report(self, trial_id: str, result: Event) -> bool:
        """Takes the result of an epoch; an epoch that the journal already has is passed over.

        Args:
            trial_id: which trial.
            result: `epoch`, `epochs`, `score`, `metrics`, `cost_joint_epochs` and `seconds`.

        Returns:
            Whether the trial ends here because it is stopped or its score is not a number; it is then told.
        """
        record = self.records[trial_id]
        if record.finished:
            return True
        if result["epoch"] <= record.epoch:
            return False
        self.journal.append({"event": "epoch", "trial_id": trial_id, **result})
        if record.score is None or not math.isfinite(record.score):
            self.tell(trial_id, "failed", reason=_NOT_A_NUMBER)
        elif self._judge(self.journal.events[-1]):
            self.tell(trial_id, "pruned")
        return record.finished

    def tell(
        self, trial_id: str, state: str, *, reason: str | None = None, select: dict[str, Any] | None = None
    ) -> TrialRecord:
        """Ends a trial as `complete`, `pruned` or `failed`; what it was worth is its last epoch's."""
        record = self.records[trial_id]
        if state == "pruned":
            rungs = self.stopping.rungs(record.epochs, self.space.earliest(record.method))
            at = max((e for e in rungs.values() if e <= record.epoch), default=record.epoch)
            reason = f"not among the best of its method at epoch {at}"
        told = {
            "event": "told",
            "trial_id": trial_id,
            "state": state,
            "score": record.score if state != "failed" else None,
            "epoch": record.epoch,
            "reason": reason,
            "retries": record.retries,
            "cost_joint_epochs": record.cost_joint_epochs,
            "seconds": record.seconds,
            "metrics": record.metrics,
        }
        self.journal.append(told | ({"select": select} if select is not None else {}))
        return record

    def _judge(self, event: Event) -> bool:
        """Whether the epoch of an event stops its trial; teachers are compared with but never stopped."""
        record = self.records[event["trial_id"]]
        if not record.searched or event["score"] is None:
            return False
        stop = self.stopping.stops(
            record.method,
            record.trial_id,
            epoch=event["epoch"],
            epochs=record.epochs,
            score=event["score"],
            earliest=self.space.earliest(record.method),
        )
        return stop and record.stage == "search"

    def _of(self, method: str) -> list[TrialRecord]:
        return [r for r in self.records.values() if r.searched and r.method == method]

    def _trial(self, record: TrialRecord) -> optuna.trial.FrozenTrial:
        if record.trial_id in self._frozen:
            return self._frozen[record.trial_id]
        replay = optuna.trial.FixedTrial(record.params)
        self.space.suggest(replay, record.method)
        trial = optuna.trial.create_trial(
            state=_STATES.get(record.state, TrialState.RUNNING),
            value=record.score if record.state in ("complete", "pruned") else None,
            params=record.params,
            distributions=replay.distributions,
            intermediate_values=dict(record.curve),
            user_attrs={"trial_id": record.trial_id, "reason": record.reason},
        )
        if record.finished:
            self._frozen[record.trial_id] = trial
        return trial


_NOT_A_NUMBER = "the score is not a number (training diverged)"


def _sampler(seed: int) -> optuna.samplers.TPESampler:
    with _quiet():
        return optuna.samplers.TPESampler(
            n_startup_trials=STARTUP,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=seed,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna calls `group` experimental on every use and logs every study; nobody who runs a sweep needs either."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
