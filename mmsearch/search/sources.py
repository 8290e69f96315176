"""Sources of trials: what the runner runs, one document at a time."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from mmsearch.search.allocation import Allocation, Equal, Standing
from mmsearch.search.journal import seconds_spent
from mmsearch.search.space import is_ensemble
from mmsearch.search.study import Ask, Study
from mmsearch.search.trials import Records, TrialRecord
from mmsearch.training import seed_of, trial_id

CONFIRMATION_SEED = 1000
"""Confirmation i runs with the sweep's seed plus this plus i, on fold 1 + i."""


class Signal(enum.Enum):
    """What a source answers where it has no document.

    Attributes:
        WAIT: ask again when a trial has ended; answered only while one runs.
        FINISHED: nothing more will come.
    """

    WAIT = "wait"
    FINISHED = "finished"


WAIT, FINISHED = Signal.WAIT, Signal.FINISHED


class Source(Protocol):
    """Answers what to run next and is told how each of its trials ended."""

    def next(self) -> Ask | Signal:
        """The next document, :data:`WAIT` or :data:`FINISHED`."""
        ...

    def told(self, record: TrialRecord) -> None:
        """A trial has ended."""
        ...


class _Source:
    """What the sources share: they read the study's records and so need not be told."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @property
    def records(self) -> Records:
        """Every trial asked so far."""
        return self.study.records

    def told(self, record: TrialRecord) -> None:
        """Nothing to remember: the records say it."""

    def ready(self, teachers: Collection[str]) -> bool:
        """Whether all of these trials have ended."""
        records = [self.records.get(t) for t in teachers]
        return all(r is not None and r.finished for r in records)


class TeacherSource(_Source):
    """The `unimodal` trials at the sweep's recipe: baselines, and the teachers of the methods that need them."""

    def next(self) -> Ask | Signal:
        """One a modality."""
        asks = {ask.trial_id: ask for ask in self.study.paper("unimodal")}
        for document in self.study.space.teachers():
            known = asks.get(trial_id(document))
            ask = Ask.of(document, stage="teacher", why="teacher", params=known.params if known else {})
            if ask.trial_id not in self.records:
                return ask
        return FINISHED


class SearchSource(_Source):
    """The search: every method's first paper setting, then a trial at a time to the method that the allocation names.

    Within a method every fusion and structural alternative has its paper setting tried before the sampler chooses.

    Args:
        study: the study.
        trials: how many documents to ask in all, teachers included.
        time_budget: seconds of all sessions after which nothing more is asked.
        clock: seconds spent so far; by default those of the journal's sessions.
        allocation: which method gets the next trial; None: every one as many.
    """

    def __init__(
        self,
        study: Study,
        *,
        trials: int,
        time_budget: float | None = None,
        clock: Callable[[], float] | None = None,
        allocation: Allocation | None = None,
    ) -> None:
        super().__init__(study)
        self.trials = trials
        self.time_budget = time_budget
        self.allocation = allocation or Equal()
        self._clock = clock or self._seconds_spent
        self._paper = {method: study.paper(method) for method in study.space.methods}
        self._first = [a for m, asks in self._paper.items() for a in asks if a is asks[0] or is_ensemble(a.document)]
        self._needs_teachers = {m: study.space.needs_teachers(m) for m in study.space.methods}
        self._teachers = [trial_id(d) for d in study.space.teachers()]
        self._exhausted: set[str] = set()

    def next(self) -> Ask | Signal:
        """The next document of the method with the first claim, among those whose teachers are there."""
        searched = [r for r in self.records.values() if r.searched]
        left = self.trials - len(searched)
        if left <= 0 or (self.time_budget is not None and self._clock() >= self.time_budget):
            return FINISHED
        held_up = {m for m, needs in self._needs_teachers.items() if needs and not self.ready(self._teachers)}
        first = [a for a in self._first if a.trial_id not in self.records]
        for ask in first:
            if ask.method not in held_up:
                return ask
        if first and left <= len(first):
            return WAIT
        waiting = bool(first)
        for method in self._claims(searched):
            if method in held_up:
                waiting = True
                continue
            ask_or_none = self._of(method)
            if ask_or_none is not None:
                return ask_or_none
            self._exhausted.add(method)
        return WAIT if waiting else FINISHED

    def _claims(self, searched: Sequence[TrialRecord]) -> list[str]:
        """The methods that may get the next trial, the first claim first."""
        standings = {
            m: Standing.of([r for r in searched if r.method == m]) for m in self._paper if m not in self._exhausted
        }
        return self.allocation.order(standings, seed_of(self.study.space.seed, "allocation", len(searched)))

    def _of(self, method: str) -> Ask | None:
        """A method's next document; None where there is no new one, or where it would wait for a failed teacher."""
        paper = next((a for a in self._paper[method] if a.trial_id not in self.records), None)
        if paper is not None or (self._needs_teachers[method] and self._teacher_failed()):
            return paper
        return self.study.suggest(method)

    def _teacher_failed(self) -> bool:
        return any(t in self.records and self.records[t].state == "failed" for t in self._teachers)

    def _seconds_spent(self) -> float:
        events = self.study.journal.events
        return seconds_spent(events) + time.time() - events[-1]["time"]


class ConfirmSource(_Source):
    """The finalists again on fresh seeds and splits, with that seed's own teachers.

    Nothing is asked before every trial of the search has ended.

    Args:
        study: the study.
        finalists: gives their documents, called once when the search has ended.
        seeds: how many.
    """

    def __init__(self, study: Study, finalists: Callable[[Records], Sequence[dict[str, Any]]], *, seeds: int) -> None:
        super().__init__(study)
        self._finalists = finalists
        self.seeds = seeds
        self._asks: list[Ask] | None = None

    def next(self) -> Ask | Signal:
        """Seed by seed: its teachers, then the finalists."""
        if self._asks is None:
            if any(r.searched and not r.finished for r in self.records.values()):
                return WAIT
            self._asks = self._plan()
        left = [a for a in self._asks if a.trial_id not in self.records]
        for ask in left:
            if self.ready(ask.document["teachers"].values()):
                return ask
        return WAIT if left else FINISHED

    def _plan(self) -> list[Ask]:
        space = self.study.space
        finalists = self._finalists(self.records)
        asks: dict[str, Ask] = {}
        for i in range(self.seeds):
            seed, fold = space.seed + CONFIRMATION_SEED + i, 1 + i
            moved = [space.moved(document, seed=seed, fold=fold) for document in finalists]
            confirm = [Ask.of(d, stage="confirm", why="confirmation") for d in moved]
            needed = sorted({(u, d["held"]) for d in moved for u in d["teachers"]})
            teachers = [
                Ask.of(space.teacher(u, seed=seed, fold=fold, held=held), stage="teacher", why="teacher")
                for u, held in needed
            ]
            twice = {a.trial_id: a for a in confirm}
            for ask in [*(twice.get(t.trial_id, t) for t in teachers), *confirm]:
                asks.setdefault(ask.trial_id, ask)
        return list(asks.values())


class Chain:
    """Sources one after the other; the next begins when the one before has nothing more to ask.

    Args:
        sources: by the name of their phase, in order.
        announce: called with a phase's name when it begins.
    """

    def __init__(self, sources: Mapping[str, Source], announce: Callable[[str], None] = lambda _: None) -> None:
        self._left = list(sources.items())
        self._announce = announce
        self._begun: str | None = None

    def next(self) -> Ask | Signal:
        """The current source's answer."""
        while self._left:
            name, source = self._left[0]
            if self._begun != name:
                self._begun = name
                self._announce(name)
            answer = source.next()
            if answer is not FINISHED:
                return answer
            self._left.pop(0)
        return FINISHED

    def told(self, record: TrialRecord) -> None:
        """Passed on to the current source."""
        if self._left:
            self._left[0][1].told(record)


def finalists(records: Records, k: int = 2) -> list[dict[str, Any]]:
    """The documents to be confirmed.

    Always the best of `joint`, of `unimodal` and of the ensemble of unimodal models; beside them the best document
    of each of the `k` leading other methods. Only trials that ran to their end count; a tie goes to the one asked
    first.

    Args:
        records: of a finished search.
        k: how many beyond the baselines.
    """
    best: dict[str, TrialRecord] = {}
    for record in records.values():
        if record.state != "complete" or not record.searched or record.score is None:
            continue
        group = f"{record.method}/ensemble" if is_ensemble(record.document) else record.method
        leader = best.get(group)
        if leader is None or leader.score is None or record.score > leader.score:
            best[group] = record
    baselines = [best.pop(g) for g in ("joint", "unimodal", "unimodal_teacher/ensemble") if g in best]
    leading = sorted(best.values(), key=lambda r: -(r.score or 0.0))[:k]
    return [r.document for r in [*baselines, *leading]]
