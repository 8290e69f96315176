"""The plan of a sweep: what it will try and what that will cost, by the space and the arithmetic of stopping."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS, OWN
from mmsearch.methods import METHODS
from mmsearch.search.allocation import FLOOR
from mmsearch.search.costs import Costs
from mmsearch.search.finalists import FEW_SEEDS, FIRST_SEEDS
from mmsearch.search.space import ENSEMBLE, Space, is_ensemble
from mmsearch.search.stopping import Halving
from mmsearch.training import trial_id

SEARCH_SHARE = 0.6
"""Of a budget, the share after which the search asks for nothing more; the rest is the confirmation's."""


@dataclasses.dataclass(frozen=True)
class Range:
    """A number that is not known yet: no less than `low`, no more than `high`."""

    low: float
    expected: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, factor: float) -> Range:
        return Range(self.low * factor, self.expected * factor, self.high * factor)

    @classmethod
    def exactly(cls, value: float) -> Range:
        """A number that is known."""
        return cls(value, value, value)


@dataclasses.dataclass(frozen=True)
class MethodPlan:
    """What a sweep intends with a method.

    Attributes:
        method: its name.
        fusions: those it is tried with; `own` where it brings its own.
        epochs: planned, of each of its trials.
        rungs: the epochs after which a trial may be stopped.
        papers: its paper settings, each tried before the sampler chooses.
        trials: it gets no fewer than `low`; `expected` is an equal share, `high` all that are nobody else's.
        cost: joint epochs of an epoch, over its paper settings.
    """

    method: str
    fusions: tuple[str, ...]
    epochs: int
    rungs: tuple[int, ...]
    papers: int
    trials: Range
    cost: Range


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a sweep intends.

    Attributes:
        methods: in the order of the space.
        post_hoc: fusions evaluated in every trial on its own unimodal logits.
        left_out: by reason the methods, the fusions and the pairs of both that are not tried.
        trials: of the search.
        allocation: which method gets the next one.
        seeds: of the confirmation.
        search: joint epochs of the search, teachers included, where nothing but `trials` ends it.
        confirm_trials: trials of the confirmation, teachers included.
        confirmation: their joint epochs.
        budget: joint epochs of the sweep; None for no limit.
        time_budget: seconds of the sweep; None for no limit.
        measured: whether the costs were.
        refit: whether what is recommended is trained once more, on all development clips; beside every budget.
        cpus, gpus: of a trial.
        at_once: trials that this machine has room for; None for a cluster's.
    """

    methods: tuple[MethodPlan, ...]
    post_hoc: tuple[str, ...]
    left_out: dict[str, list[str]]
    trials: int
    allocation: str
    seeds: int
    search: Range
    confirm_trials: Range
    confirmation: Range
    budget: float | None
    time_budget: float | None
    measured: bool
    refit: bool
    cpus: float
    gpus: float
    at_once: int | None


def plan(
    space: Space,
    costs: Costs,
    *,
    trials: int,
    allocation: str,
    seeds: int,
    budget: float | None = None,
    time_budget: float | None = None,
    refit: bool = True,
    cpus: float = 1.0,
    gpus: float = 0.0,
    at_once: int | None = None,
    stopping: Halving | None = None,
) -> Plan:
    """The plan of a sweep.

    Args:
        space: what may be tried; the digest of the data may be empty.
        costs: of the space's methods.
        trials, seeds, budget, time_budget: as in :class:`mmsearch.arguments.Arguments`.
        allocation: as in :data:`mmsearch.search.allocation.ALLOCATIONS`.
        refit, cpus, gpus, at_once: as in :class:`Plan`.
        stopping: the rungs.

    Raises:
        MMSearchError: the budget is too small for one trial of each method.
    """
    stopping = stopping or Halving()
    check_budget(space, costs, budget)
    papers = {m: {trial_id(d): d for d in space.paper_documents(m)} for m in space.methods}
    methods = tuple(
        MethodPlan(
            m,
            tuple(f for f, reason in space.refusals(m).items() if not reason) or (OWN,),
            space.epochs(m),
            tuple(stopping.rungs(space.epochs(m), space.earliest(m)).values()),
            len(papers[m]),
            n,
            Range(min(costs.of[m]), costs.mean(m), max(costs.of[m])),
        )
        for m, n in _shares(space, papers, trials, allocation).items()
    )
    return Plan(
        methods=methods,
        post_hoc=tuple(f for f in space.fusions if FUSIONS.get(f).post_hoc),
        left_out=_left_out(space),
        trials=trials,
        allocation=allocation,
        seeds=seeds,
        search=_search(space, costs, methods, trials, stopping.factor),
        confirm_trials=_confirmation(space, seeds, {m: Range.exactly(1) for m in space.methods}, 1),
        confirmation=_confirmation(space, seeds, {p.method: p.cost * p.epochs for p in methods}, 0),
        budget=budget,
        time_budget=time_budget,
        measured=costs.measured,
        refit=refit,
        cpus=cpus,
        gpus=gpus,
        at_once=at_once,
    )


def check_budget(space: Space, costs: Costs, budget: float | None) -> None:
    """Refuses a budget in joint epochs that is too small for one trial of each method.

    Where the costs are only assumed, half of the least passes: what is cheap would otherwise be refused for nothing.

    Raises:
        MMSearchError: with the least.
    """
    least = sum(_one_trial(space, costs, m) for m in space.methods) / SEARCH_SHARE
    if budget is not None and budget < (least if costs.measured else least / 2):
        raise MMSearchError(
            f"--budget: {SEARCH_SHARE:.0%} of {budget:g} joint epochs are too few for one trial of each of "
            f"{len(space.methods)} methods; at least {'' if costs.measured else 'about '}{math.ceil(least)}"
        )


def equal_lengths(space: Space, costs: Costs, stopping: Halving | None = None) -> dict[str, int]:
    """The planned epochs under which a trial of every method costs what one of joint training does.

    Never fewer than the rungs need. One modality alone keeps the epochs of joint training, in which its encoder is
    updated as often; its trials are the teachers. What a method spends on its teachers is shared and does not count.
    """
    epochs, rungs = space.settings["epochs"], (stopping or Halving())
    least = next(e for e in itertools.count(1) if e == epochs or len(rungs.rungs(e)) == len(rungs.shares))
    lengths = dict.fromkeys(costs.of, epochs)
    for m, of in costs.of.items():
        trained = [cost for cost in of if cost]
        if trained and m != "unimodal":
            lengths[m] = max(least, round(epochs * costs.mean("joint") / statistics.fmean(trained)))
    return lengths


def trained_epochs(n: int, epochs: int, rungs: Sequence[int], factor: int, kept: int = 0) -> Range:
    """Epochs that `n` trials of a method train in all.

    Of n trials at a rung at least min(n, factor - 1) go on, at most all; where their scores come in random order the
    k-th goes on with probability ceil(k / factor) / k, once k is the factor. The order at a rung is taken to be
    independent of the order at the one before.

    Args:
        n: trials.
        epochs: planned, of each.
        rungs: the epochs after which a trial may be stopped.
        factor: the reduction factor of the stopping.
        kept: the first trials that are never stopped.
    """
    low, expected = float(n), float(n)
    trained = Range(0, 0, n * epochs)
    for start, end in itertools.pairwise([0, *rungs, epochs]):
        if start:
            low = min(low, max(kept, factor - 1))
            expected = _going_on(expected, factor, kept)
        trained += Range(low * (end - start), expected * (end - start), 0)
    return trained


def _going_on(n: float, factor: int, kept: int) -> float:
    whole = math.floor(n)
    chances = [1.0 if k < factor or k <= kept else math.ceil(k / factor) / k for k in range(1, whole + 2)]
    return sum(chances[:whole]) + (n - whole) * chances[whole]


def _one_trial(space: Space, costs: Costs, method: str) -> float:
    """Joint epochs of the first trial of a method; of `unimodal` one a modality."""
    first = sum(costs.of[method]) if method == "unimodal" else costs.of[method][0]
    return first * space.epochs(method)


def _shares(
    space: Space, papers: Mapping[str, Mapping[str, dict[str, Any]]], trials: int, allocation: str
) -> dict[str, Range]:
    """How many trials each method gets: for sure, by an equal share, and where it gets all that are free.

    Args:
        space: what is searched.
        papers: per method its paper settings, by identity.
        trials: of all methods.
        allocation: which method gets the next one.
    """
    most = {m: _distinct(space, m, trials) for m in papers}
    first = {m: 1 + any(map(is_ensemble, list(documents.values())[1:])) for m, documents in papers.items()}
    first["unimodal"] = len(space.modalities)
    even = _dealt(first, most, trials)
    floor = {"race": {m: FLOOR for m in most}, "joint": {m: len(documents) for m, documents in papers.items()}}.get(
        allocation, even
    )
    sure = _dealt(first, {m: min(most[m], max(first[m], floor[m])) for m in most}, trials)
    free = trials - sum(sure.values())
    return {m: Range(sure[m], even[m], min(most[m], sure[m] + free)) for m in papers}


def _dealt(first: Mapping[str, int], most: Mapping[str, int], trials: int) -> dict[str, int]:
    """Trials dealt out to whoever has fewest and may have more."""
    dealt = dict(first)
    while sum(dealt.values()) < trials:
        open_ = [m for m in dealt if dealt[m] < most[m]]
        if not open_:
            break
        dealt[min(open_, key=lambda m: dealt[m])] += 1
    return dealt


class _Endless(Exception):
    """A method has a knob with a range."""


class _Walk:
    """Stands for an Optuna trial: takes what is preset, else the first choice, and notes the others."""

    def __init__(self, preset: Mapping[str, Any]) -> None:
        self.preset = preset
        self.taken: dict[str, Any] = {}
        self.others: list[dict[str, Any]] = []

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """The preset choice, or the first."""
        if name not in self.preset:
            self.others += [{**self.taken, name: choice} for choice in choices[1:]]
        self.taken[name] = self.preset.get(name, choices[0])
        return self.taken[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A range has no end of values."""
        raise _Endless

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """One of the whole numbers."""
        return self.suggest_categorical(name, range(low, high + 1))


def _distinct(space: Space, method: str, most: int) -> int:
    """How many different documents a method has, counted up to `most`."""
    found: set[str] = set()
    left: list[dict[str, Any]] = [{}]
    try:
        while left and len(found) < most:
            walk = _Walk(left.pop())
            document, _ = space.suggest(walk, method)
            found.add(trial_id(document))
            left += walk.others
    except _Endless:
        return most
    return len(found)


def _search(space: Space, costs: Costs, methods: Sequence[MethodPlan], trials: int, factor: int) -> Range:
    """Joint epochs of the search."""
    teachers = len(space.modalities)
    apart = len(space.teachers()) - teachers
    total = Range.exactly(apart * costs.mean("unimodal") * space.epochs("unimodal"))
    for p in methods:
        kept = teachers if p.method == "unimodal" else 0
        whole = kept * p.epochs
        sure, even = (
            trained_epochs(round(n), p.epochs, p.rungs, factor, kept) for n in (p.trials.low, p.trials.expected)
        )
        total += Range.exactly(whole * p.cost.expected) + Range(
            (sure.low - whole) * p.cost.low,
            (even.expected - whole) * p.cost.expected,
            (sure.high - whole) * p.cost.high,
        )
    free = min(trials, sum(p.trials.high for p in methods)) - sum(p.trials.low for p in methods)
    more = [p for p in methods if p.trials.high > p.trials.low]
    if not more:
        return total
    a_trial = Range(
        min(min([*p.rungs, p.epochs]) * p.cost.low for p in more), 0, max(p.epochs * p.cost.high for p in more)
    )
    return total + a_trial * free


def _confirmation(space: Space, seeds: int, unit: Mapping[str, Range], ensemble: float) -> Range:
    """The sum over the trials of the confirmation of what one of a method counts.

    On every seed, three at least, joint training, the teachers, their ensemble and, where it is no teacher, the best
    single modality. Every other method has its first seeds. Of those left none stay at least and all at most; expected
    is that half are dropped before each further seed and one stays to the end. Joint training and one other method may
    have their first seeds with every further fusion.

    Args:
        space: what is searched.
        seeds: of every finalist.
        unit: what a trial of a method counts.
        ensemble: what the ensemble counts.
    """
    teachers, alone = len(space.modalities), unit["unimodal"]
    apart = len(space.teachers()) - teachers
    baselines = unit["joint"] + Range.exactly(teachers * alone.expected + ensemble)
    baselines += Range(0, alone.expected, alone.high * (1 + apart))
    others = [unit[m] for m in space.methods if m not in ("joint", "unimodal") and not _only_ensemble(space, m)]
    first = min(FIRST_SEEDS, seeds)
    left = [len(others) if i < first else max(1, len(others) / 2 ** (i - first + 1)) for i in range(seeds)]
    more = Range(
        sum(o.low for o in others) * first,
        statistics.fmean(o.expected for o in others) * sum(left) if others else 0,
        sum(o.high for o in others) * seeds,
    )
    fusions = sum(not FUSIONS.get(f).post_hoc for f in space.fusions) - 1
    if fusions and others:
        pair = Range(0, unit["joint"].expected, unit["joint"].high)
        pair += Range(0, statistics.fmean(o.expected for o in others), max(o.high for o in others))
        more += Range(0, pair.expected * fusions * first, pair.high * fusions * seeds)
    few = min(FEW_SEEDS, seeds)
    return Range(baselines.low * few, baselines.expected * seeds, baselines.high * seeds) + more


def _only_ensemble(space: Space, method: str) -> bool:
    """Whether all that a method may be is the ensemble of teachers."""
    return method == "unimodal_teacher" and ENSEMBLE.items() <= space.methods[method].fixed.items()


def _left_out(space: Space) -> dict[str, list[str]]:
    """By reason the methods, fusions and pairs of both that are not tried."""
    found: dict[str, list[str]] = {}
    for m, reason in space.left_out.items():
        found.setdefault(_bare(reason), []).append(m)
    for m in space.methods:
        for f, reason in space.refusals(m).items():
            if reason:
                found.setdefault(_bare(reason), []).append(f"{m} with {f}")
    named = {*space.methods, *space.left_out, *space.fusions}
    others = [name for name in (*METHODS.names(), *FUSIONS.names()) if name not in named]
    return found | ({"not asked for": others} if others else {})


def _bare(reason: str) -> str:
    """A reason without the names of the method and the fusion that it begins with."""
    return reason.partition(": ")[2] or reason
