"""Sources of trials: what the runner runs, one document at a time."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from mmsearch.search.allocation import Allocation, Equal, Joint, Standing
from mmsearch.search.finalists import FEW_SEEDS, FIRST_SEEDS, baselines, beaten, group_of
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

    def __init__(self, study: Study) -> None:
        super().__init__(study)
        known = {ask.trial_id: ask.params for ask in study.paper("unimodal")}
        asks = [Ask.of(d, stage="teacher", why="teacher") for d in study.space.teachers()]
        self._asks = [dataclasses.replace(a, params=known.get(a.trial_id, {})) for a in asks]

    def next(self) -> Ask | Signal:
        """One a modality."""
        return next((ask for ask in self._asks if ask.trial_id not in self.records), FINISHED)


class SearchSource(_Source):
    """The search: every method's first paper setting, then a trial at a time to the method that the allocation names.

    Within a method every fusion and structural alternative has its paper setting tried before the sampler chooses.

    Args:
        study: the study.
        trials: how many documents to ask in all, teachers included.
        budget: joint epochs of the search, teachers included, after which nothing more is asked; what runs then is
            finished.
        time_budget: seconds of all sessions after which nothing more is asked.
        clock: seconds spent so far; by default those of the journal's sessions.
        allocation: which method gets the next trial; None: every one as many.
    """

    def __init__(
        self,
        study: Study,
        *,
        trials: int,
        budget: float | None = None,
        time_budget: float | None = None,
        clock: Callable[[], float] | None = None,
        allocation: Allocation | None = None,
    ) -> None:
        super().__init__(study)
        self.trials = trials
        self.budget = budget
        self.time_budget = time_budget
        self.allocation = allocation or Equal()
        self._clock = clock or study.journal.seconds
        wanted = [m for m in study.start.points if m in study.space.methods]
        self._paper = {method: study.paper(method) for method in dict.fromkeys([*wanted, *study.space.methods])}
        self._first = [a for m, asks in self._paper.items() for a in asks if a is asks[0] or is_ensemble(a.document)]
        self._needs_teachers = {m: study.space.needs_teachers(m) for m in study.space.methods}
        self._teachers = [trial_id(d) for d in study.space.teachers()]
        self._exhausted: set[str] = set()

    def next(self) -> Ask | Signal:
        """The next document of the method with the first claim, among those whose teachers are there."""
        asked = self.study.asked
        left = self.trials - asked
        if left <= 0 or self._spent():
            return FINISHED
        held_up = {m for m, needs in self._needs_teachers.items() if needs and not self.ready(self._teachers)}
        first = [a for a in self._first if a.trial_id not in self.records]
        for ask in first:
            if ask.method not in held_up:
                return ask
        if first and left <= len(first):
            return WAIT
        while claims := self._claims(asked):
            free = [m for m in claims if m not in held_up]
            found = self._of_any(free) if isinstance(self.allocation, Joint) else self._of_first(free)
            if found is not None:
                return found
            if first or len(free) < len(claims):
                return WAIT
            self._exhausted.update(claims)
        return WAIT if first else FINISHED

    def _spent(self) -> bool:
        """Whether a budget is used up."""
        if self.time_budget is not None and self._clock() >= self.time_budget:
            return True
        return self.budget is not None and self.budget <= sum(
            r.cost_joint_epochs for r in self.records.values() if r.document["fold"] == 0
        )

    def _claims(self, asked: int) -> list[str]:
        """The methods that may get the next trial, the first claim first."""
        left = (m for m in self._paper if m not in self._exhausted)
        standings = {m: Standing(len(self.study.searched(m)), self.study.scores(m)) for m in left}
        return self.allocation.order(standings, seed_of(self.study.space.seed, "allocation", asked))

    def _of_first(self, methods: Sequence[str]) -> Ask | None:
        """A document of the first of the methods that has a new one."""
        for method in methods:
            ask = self._untried(method)
            if ask is None and self._may_be_drawn(method):
                ask = self.study.transfer(method) or self.study.suggest(method)
            if ask is not None:
                return ask
            self._exhausted.add(method)
        return None

    def _of_any(self, methods: Sequence[str]) -> Ask | None:
        """The next of all the paper's settings, then whatever one sampler over all methods chooses."""
        untried = next((ask for m in methods if (ask := self._untried(m)) is not None), None)
        return untried or self.study.suggest_any([m for m in methods if self._may_be_drawn(m)])

    def _untried(self, method: str) -> Ask | None:
        """A paper setting of the method that was not asked yet."""
        return next((a for a in self._paper[method] if a.trial_id not in self.records), None)

    def _may_be_drawn(self, method: str) -> bool:
        """Whether a drawn document of the method would not wait for a failed teacher."""
        return not (self._needs_teachers[method] and self._teacher_failed())

    def _teacher_failed(self) -> bool:
        return any(t in self.records and self.records[t].state == "failed" for t in self._teachers)


class ConfirmSource(_Source):
    """The finalists again on fresh seeds and splits, with that seed's own teachers.

    Nothing is asked before every trial of the search has ended. Every finalist gets a first seed; before each further
    one those that are beaten beyond the noise, by these seeds and the search's own score, are dropped, so that many
    finalists cost little. The baselines stay to the end, and fill the slots that would otherwise wait for a seed to be
    complete. From the third seed on there is no further one where joint training beats all others, or where `settled`
    says so. Who is dropped is a function of the records alone.

    Args:
        study: the study.
        finalists: gives their documents, called once when the search has ended.
        seeds: how many at most.
        settled: whether no further seed is needed, given the records, the documents that are left and the seeds that
            are complete, at least :data:`~mmsearch.search.finalists.FEW_SEEDS`.
    """

    def __init__(
        self,
        study: Study,
        finalists: Callable[[Records], Sequence[dict[str, Any]]],
        *,
        seeds: int,
        settled: Callable[[Records, Sequence[dict[str, Any]], Sequence[int]], bool] = lambda *_: False,
    ) -> None:
        super().__init__(study)
        self._finalists = finalists
        self._settled = settled
        self.seeds = seeds
        self._documents: Sequence[dict[str, Any]] | None = None
        self._asks: dict[int, list[list[Ask]]] = {}
        self._verdicts: dict[int, bool] = {}

    def next(self) -> Ask | Signal:
        """Seed by seed: its teachers, then the finalists that are left."""
        if self._documents is None:
            if any(r.searched and not r.finished for r in self.records.values()):
                return WAIT
            self._documents = self._finalists(self.records)
        waiting = False
        for ask in self._due(self._documents):
            record = self.records.get(ask.trial_id)
            if record is None and self.ready(ask.document["teachers"].values()):
                return ask
            waiting = waiting or record is None or not record.finished
        return WAIT if waiting else FINISHED

    def _due(self, documents: Sequence[dict[str, Any]]) -> Iterator[Ask]:
        """What can be asked by what is known: whole seeds, then the baselines' where a seed is not complete."""
        left, always = list(range(len(documents))), baselines(documents)
        for i in range(self.seeds):
            if i >= FIRST_SEEDS:
                done = [[self._seed(documents, j)[n][-1].trial_id for j in range(i)] for n in left]
                if all(map(self.ready, done)):
                    out = beaten([self._scores(documents[n], ids) for n, ids in zip(left, done, strict=True)])
                    kept = [n for k, n in enumerate(left) if k not in out]
                    left = [n for n in left if n in kept or n in always]
                    if i >= FEW_SEEDS and self._over(documents, kept, left, i):
                        return
                else:
                    left = [n for n in left if n in always]
            for n in left:
                yield from self._seed(documents, i)[n]

    def _over(self, documents: Sequence[dict[str, Any]], kept: Sequence[int], left: Sequence[int], i: int) -> bool:
        """Whether seed `i` is not needed; never of one that somebody has begun, so that all end alike."""
        if any(self._seed(documents, i)[n][-1].trial_id in self.records for n in left):
            return False
        if [group_of(documents[n]) for n in kept] == ["joint"]:
            return True
        if i not in self._verdicts:
            seeds = [self._seed_of(j) for j in range(i)]
            self._verdicts[i] = self._settled(self.records, [documents[n] for n in left], seeds)
        return self._verdicts[i]

    def _seed_of(self, i: int) -> int:
        return self.study.space.seed + CONFIRMATION_SEED + i

    def _scores(self, document: dict[str, Any], trial_ids: Sequence[str]) -> dict[int, float]:
        """Accuracy on select by seed, without those that failed, and as -1 what the search scored."""
        searched = self.records.get(trial_id(document))
        selects = {i: self.records[t].select for i, t in enumerate(trial_ids)}
        fresh = {i: float(select["accuracy"]) for i, select in selects.items() if select}
        if searched is None or searched.state != "complete" or searched.score is None or not fresh:
            return fresh
        return {-1: searched.score, **fresh}

    def _seed(self, documents: Sequence[dict[str, Any]], i: int) -> list[list[Ask]]:
        """By finalist what it needs on a seed: its teachers, then itself."""
        if i not in self._asks:
            space = self.study.space
            seed, fold = self._seed_of(i), 1 + i
            moved = [space.moved(document, seed=seed, fold=fold) for document in documents]
            confirm = {a.trial_id: a for a in (Ask.of(d, stage="confirm", why="confirmation") for d in moved)}
            self._asks[i] = []
            for document in moved:
                needed = [
                    Ask.of(
                        space.teacher(u, seed=seed, fold=fold, held=document["held"]), stage="teacher", why="teacher"
                    )
                    for u in sorted(document["teachers"])
                ]
                teachers = [confirm.get(t.trial_id, t) for t in needed]
                self._asks[i].append([*teachers, confirm[trial_id(document)]])
        return self._asks[i]


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
