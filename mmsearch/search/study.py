"""The study: what to try next, what goes on and what it was worth, rebuilt from the journal alone."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from mmsearch.errors import MMSearchError
from mmsearch.knobs import Prior
from mmsearch.search.journal import Event, Journal
from mmsearch.search.samplers import Known, make_sampler, quiet
from mmsearch.search.space import Space
from mmsearch.search.stopping import Halving
from mmsearch.search.trials import Records, TrialRecord, apply
from mmsearch.search.warm import KnownTrial, Start
from mmsearch.training import seed_of, trial_id

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
        sampler: what draws the settings, one of :data:`~mmsearch.search.samplers.SAMPLERS`.
        start: what the search starts from beside the papers' settings.

    Attributes:
        records: every trial asked so far, kept up to date.
    """

    def __init__(
        self,
        space: Space,
        journal: Journal,
        stopping: Halving | None = None,
        *,
        sampler: str = "tpe",
        start: Start | None = None,
    ) -> None:
        self.space = space
        self.journal = journal
        self.stopping = stopping or Halving()
        self.sampler = sampler
        self.start = start or Start()
        self.records: Records = {}
        self._searched: dict[str, list[TrialRecord]] = {}
        self._places: dict[str, int] = {}
        self._scores: dict[str, list[float]] = {}
        self._best: dict[tuple[str, bool], tuple[float, int, TrialRecord]] = {}
        self._frozen: dict[str, FrozenTrial | None] = {}
        self._ended: dict[str, tuple[int, list[FrozenTrial]]] = {}
        self._ranges: dict[str, BaseDistribution] = {}
        self._priors = {method: space.priors(method) for method in space.methods}
        overdue: dict[str, bool] = {}
        events = journal.events
        for event in events:
            self._apply(event)
            if event["event"] == "epoch":
                overdue[event["trial_id"]] = self._judge(event)
            elif event["event"] == "told":
                overdue.pop(event["trial_id"], None)
        journal.subscribe(self._apply)
        if any(event["event"] == "extended" for event in events):
            self._refit()
        for unfinished in [i for i, stop in overdue.items() if stop]:
            self.tell(unfinished, "pruned")
        for record in self.unfinished():
            if record.epoch and record.score is None:
                self.tell(record.trial_id, "failed", reason=_NOT_A_NUMBER)

    def _refit(self) -> None:
        """Reads the trials of an extended sweep by its present space; what that does not have stays out of the view."""
        for record in [r for among in self._searched.values() for r in among]:
            params = self.space.params_of(record.document)
            if params is None:
                self._frozen[record.trial_id] = None
            else:
                record.params = params

    def unfinished(self) -> list[TrialRecord]:
        """The trials that were asked and not told, in the order in which they were asked."""
        return [r for r in self.records.values() if not r.finished]

    def suggest(self, method: str) -> Ask | None:
        """A new document of a method from its sampler; None where every draw repeats a known one.

        The draw is a function of the journal: the seed and how many documents of the method were asked. A draw
        that repeats a known document costs nothing and is drawn again.
        """
        draws = self._draws(method, self._trials(method), len(self.searched(method)), self._priors[method])
        for trial in draws:
            document, params = self.space.suggest(trial, method)
            ask = Ask.of(document, stage="search", why=self.sampler, params=params)
            if ask.trial_id not in self.records:
                return ask
        return None

    def suggest_any(self, methods: Collection[str]) -> Ask | None:
        """A new document of one of these methods, chosen with its knobs by one sampler over the trials of all methods.

        None where every draw repeats a known document or falls on another method.
        """
        choice = CategoricalDistribution(list(self.space.methods))
        known = [_with_method(t, m, choice) for m in self.space.methods for t in self._trials(m)]
        priors = {name: prior for among in self._priors.values() for name, prior in among.items()}
        for trial in self._draws("any", known, self.asked, priors):
            method = str(trial.suggest_categorical("method", choice.choices))
            if method not in methods:
                continue
            document, params = self.space.suggest(trial, method)
            ask = Ask.of(document, stage="search", why=self.sampler, params=params)
            if ask.trial_id not in self.records:
                return ask
        return None

    def _draws(
        self, purpose: str, known: Sequence[FrozenTrial], asked: int, priors: Mapping[str, Prior]
    ) -> Iterator[optuna.Trial]:
        """Fresh Optuna trials to draw a document with, as many as :data:`REDRAWS`."""
        for draw in range(REDRAWS):
            with quiet():
                study = _study(known)
                study.sampler = make_sampler(
                    self.sampler,
                    known,
                    priors,
                    seed=seed_of(self.space.seed, self.sampler, purpose, asked, draw) % 2**32,
                    sequence=seed_of(self.space.seed, self.sampler, purpose) % 2**32,
                    position=-1 if draw else asked,
                )
                trial = study.ask()
            yield trial

    def transfer(self, method: str) -> Ask | None:
        """The method's best setting so far with the encoders and the optimiser of the best trial of any method.

        Learning rates and the like suit most methods alike, so that what one has found is worth a trial to the
        others. None where that is a known document, or no trial with an optimiser has run to its end.
        """
        trained = [self._best[m, True] for m in self._searched if (m, True) in self._best]
        if not trained:
            return None
        best = max(trained, key=lambda found: found[0])[2]
        own = max((self._best[key] for key in ((method, True), (method, False)) if key in self._best), default=None)
        document, params = self.space.blend(method, own[2].params if own else {}, best.params)
        ask = Ask.of(document, stage="search", why="transfer", params=params)
        return None if ask.trial_id in self.records else ask

    def paper(self, method: str) -> list[Ask]:
        """The settings of a method that no sampler draws.

        The paper's own comes first, then the points that somebody wants tried and the best setting of another sweep,
        then the paper's setting with every other fusion and structural alternative.
        """
        first, *others = self.space.paper_points(method)
        best = max(
            (t for t in self.start.known.get(method, ()) if t.state == "complete"), key=lambda t: t.score, default=None
        )
        chosen = [
            (first, "paper setting"),
            *((params, "point") for params in self.start.points.get(method, ())),
            *([(best.params, "warm start")] if best else []),
            *((params, "paper setting") for params in others),
        ]
        asks: dict[str, Ask] = {}
        for params, why in chosen:
            document, _ = self.space.suggest(optuna.trial.FixedTrial(params), method)
            ask = Ask.of(document, stage="search", why=why, params=params)
            asks.setdefault(ask.trial_id, ask)
        return list(asks.values())

    def searched(self, method: str) -> list[TrialRecord]:
        """The trials of a method's search, in the order in which they were asked."""
        return self._searched.get(method, [])

    def scores(self, method: str) -> list[float]:
        """Of the trials of a method's search that ran to their end, as they ended."""
        return self._scores.get(method, [])

    @property
    def asked(self) -> int:
        """How many documents the search has asked."""
        return sum(map(len, self._searched.values()))

    def view(self, method: str) -> optuna.Study:
        """A fresh Optuna study in memory with every trial of a method's search that its present ranges hold.

        Complete trials are COMPLETE with their score, stopped ones PRUNED with their last score, failed ones FAIL
        with the reason as a user attribute, the others RUNNING. User attributes: `trial_id`, `reason`. Before them
        come the trials that another sweep knows, their scores moved by what the settings differ by that both have run.
        """
        with quiet():
            return _study(self._trials(method))

    def issue(self, ask: Ask) -> None:
        """Makes an ask durable; from here on it must be told."""
        self.journal.append({"event": "asked", **dataclasses.asdict(ask)})

    def started(self, trial_id: str, epoch: int) -> None:
        """A worker has begun the trial, having resumed from `epoch`."""
        attempt = self.records[trial_id].attempts + 1
        self.journal.append({"event": "started", "trial_id": trial_id, "attempt": attempt, "epoch": epoch})

    def lost(self, trial_id: str, kind: str, reason: str) -> None:
        """The trial's worker is gone, as one of :data:`mmsearch.search.losses.LIMITS`; it goes on elsewhere."""
        self.journal.append({"event": "lost", "trial_id": trial_id, "kind": kind, "reason": reason})

    def halved(self, trial_id: str, micro_batch: int, reason: str) -> None:
        """The batch did not fit in memory; the trial goes on with fewer clips a forward pass."""
        self.journal.append({"event": "halved", "trial_id": trial_id, "micro_batch": micro_batch, "reason": reason})

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
        elif self._judge({"trial_id": trial_id, **result}):
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

    def _apply(self, event: Event) -> None:
        apply(self.records, event)
        if event["event"] not in ("asked", "told"):
            return
        record = self.records[event["trial_id"]]
        if not record.searched:
            return
        if event["event"] == "asked":
            self._places[record.trial_id] = self.asked
            self._searched.setdefault(record.method, []).append(record)
        elif record.state == "complete" and record.score is not None:
            self._scores.setdefault(record.method, []).append(record.score)
            # Of equal ones the one asked first.
            place = record.score, -self._places[record.trial_id], record
            key = record.method, "optimizer" in record.params
            self._best[key] = max(place, self._best.get(key, place))

    def _trials(self, method: str) -> list[FrozenTrial]:
        records = self.searched(method)
        count, ended = self._ended.get(method, (0, []))
        while count < len(records) and records[count].finished:
            if (trial := self.trial(records[count])) is not None:
                ended.append(trial)
            count += 1
        self._ended[method] = count, ended
        rest = (self.trial(record) for record in records[count:])
        return [*self._known(method), *ended, *(trial for trial in rest if trial is not None)]

    def trial(self, record: TrialRecord) -> FrozenTrial | None:
        """A record as an Optuna trial, see :meth:`view`; None where the present ranges do not hold its parameters."""
        if record.trial_id in self._frozen:
            return self._frozen[record.trial_id]
        trial = self._optuna_trial(
            record.method,
            record.params,
            state=_STATES.get(record.state, TrialState.RUNNING),
            value=record.score if record.state in ("complete", "pruned") else None,
            intermediate_values=dict(record.curve),
            user_attrs={"trial_id": record.trial_id, "reason": record.reason},
        )
        if record.finished:
            self._frozen[record.trial_id] = trial
        return trial

    def _known(self, method: str) -> list[FrozenTrial]:
        """The trials that another sweep knows, on the scale of this one."""
        known = [t for t in self.start.known.get(method, ()) if t.trial_id not in self.records]
        if not known:
            return []
        scores = {
            _key(r.params): r.score for r in self.searched(method) if r.state == "complete" and r.score is not None
        }
        shared = [scores[_key(t.params)] - t.score for t in known if t.state == "complete" and _key(t.params) in scores]
        shift = float(np.mean(shared)) if shared else 0.0
        trials = (self._moved(t, shift) for t in known)
        return [t for t in trials if t is not None]

    def _moved(self, known: KnownTrial, shift: float) -> FrozenTrial | None:
        return self._optuna_trial(
            known.method,
            known.params,
            state=_STATES[known.state],
            value=known.score + shift,
            intermediate_values={epoch: score + shift for epoch, score in known.curve},
            user_attrs={"trial_id": known.trial_id, "reason": None},
        )

    def _optuna_trial(self, method: str, params: dict[str, Any], **rest: Any) -> FrozenTrial | None:
        try:
            if not params.keys() <= self._ranges.keys():
                replay = optuna.trial.FixedTrial(params)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    self.space.suggest(replay, method)
                self._ranges |= replay.distributions
            ranges = {name: self._ranges[name] for name in params}
            return optuna.trial.create_trial(params=params, distributions=ranges, **rest)
        except (KeyError, ValueError, MMSearchError):
            return None


_NOT_A_NUMBER = "the score is not a number (training diverged)"


def _study(trials: Sequence[FrozenTrial]) -> optuna.Study:
    return optuna.create_study(
        direction="maximize", storage=Known(trials), sampler=optuna.samplers.RandomSampler(seed=0)
    )


def _with_method(trial: FrozenTrial, method: str, choice: CategoricalDistribution) -> FrozenTrial:
    named = copy.copy(trial)
    named.params = {"method": method, **trial.params}
    named.distributions = {"method": choice, **trial.distributions}
    return named


def _key(params: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(params.items()))
