"""What a sweep was asked for, and where it is recorded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from mmsearch.errors import MMSearchError

GROWS = ("trials", "budget", "time_budget")
"""The arguments that may be larger on resuming."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a sweep was asked for; recorded in the run's `sweep.json`.

    Attributes:
        dataset: path of a dataset YAML, or `demo`.
        space: path of a search-space YAML; None for the shipped one.
        methods, fusions: only these, out of the space; the baselines are always run.
        trials: of the search, over all methods.
        budget: joint epochs of the whole sweep; None for no limit.
        time_budget: seconds, over all sessions; None for no limit.
        max_epochs: planned epochs of every trial; None for the space's.
        equal_cost: whether every method gets the same joint epochs instead of the same epochs.
        lengths: the planned epochs that follow from that, by method; filled in when the sweep is planned.
        allocation: which method gets the next trial, of :data:`mmsearch.search.allocation.ALLOCATIONS`.
        sampler: what draws settings, of :data:`mmsearch.search.samplers.SAMPLERS`.
        points: path of a YAML of settings to be tried; None for none.
        warm_start: folder of a sweep whose trials the sampler knows from the start; None for none.
        optuna: address of a database that gets the Optuna studies too; None for none.
        seeds: fresh seeds of every finalist, at most.
        margin: points of accuracy below which a gain over joint training does not count.
        seed: where seeds start.
        cpus_per_trial, gpus_per_trial: what a trial gets; None for a GPU where there is one, `auto` for the share of
            one that each method needs.
        keep: models of search trials kept beside the best and the last.
        hang_after: seconds without a sign of life after which a trial's worker is killed.
        store: of the clips, a folder or an address such as `s3://bucket/prefix`; None for this user's own.
        max_bad: share of clips that may be set aside because they cannot be decoded.
        allow_absolute: whether a manifest may name files outside its root.
        stream: whether trials go through the store shard by shard, for one that is larger than a node's disk.
        objectives: what the Pareto front weighs, of :data:`mmsearch.search.objectives.OBJECTIVES`.
        log: trackers that are told of every trial, of :data:`mmsearch.search.loggers.TRACKERS`.
        log_clips: whether they are also told where the dataset lies and the names of its classes.
        price: of a device-hour, for the report; None for none.
        no_refit: whether a model of the confirmation is handed over in place of one trained on all development clips.
        read_test_again: whether an extended sweep reads the test part for its new finalists.
    """

    dataset: str
    space: str | None = None
    methods: tuple[str, ...] | None = None
    fusions: tuple[str, ...] | None = None
    trials: int = 48
    budget: float | None = None
    time_budget: float | None = None
    max_epochs: int | None = None
    equal_cost: bool = False
    lengths: dict[str, int] = dataclasses.field(default_factory=dict)
    allocation: str = "equal"
    sampler: str = "tpe"
    points: str | None = None
    warm_start: str | None = None
    optuna: str | None = None
    seeds: int = 5
    margin: float = 0.5
    seed: int = 0
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | str | None = None
    keep: int = 0
    hang_after: float = 3600.0
    store: str | None = None
    max_bad: float = 0.5
    allow_absolute: bool = False
    stream: bool = False
    objectives: tuple[str, ...] = ("accuracy", "cost")
    log: tuple[str, ...] = ()
    log_clips: bool = False
    price: float | None = None
    no_refit: bool = False
    read_test_again: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Arguments:
        """The inverse of :meth:`to_dict`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        return cls(**values)

    def grown(self, given: dict[str, Any]) -> Arguments:
        """These arguments for a resumed run: budgets may grow, nothing else may differ.

        Args:
            given: what was said on resuming, by name.

        Raises:
            MMSearchError: an argument differs from the recorded one, which is named.
        """
        for name, value in given.items():
            recorded = getattr(self, name)
            if name in GROWS and (recorded is None or value >= recorded):
                continue
            if value != recorded:
                more = " or more" if name in GROWS else ""
                flag = "--" + name.replace("_", "-")
                raise MMSearchError(f"{flag}: the run was started with {_said(recorded)}{more}, not {_said(value)}")
        return dataclasses.replace(self, **{k: v for k, v in given.items() if k in GROWS})


def _said(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def recorded(out: Path) -> Arguments:
    """The arguments of the sweep that a folder holds.

    Raises:
        MMSearchError: it holds none.
    """
    return Arguments.from_dict(recorded_sweep(out)["arguments"])


def space_in(out: Path) -> Path:
    """The search space of the sweep that a folder holds, its latest where it was extended."""
    extensions = recorded_sweep(out).get("extensions", [])
    return Path(out) / (extensions[-1]["space"] if extensions else "space.yaml")


def recorded_sweep(out: Path) -> dict[str, Any]:
    """The content of a run's `sweep.json`.

    Raises:
        MMSearchError: there is none, or it is damaged.
    """
    path = Path(out) / "sweep.json"
    if not path.is_file():
        raise MMSearchError(f"{out}: no sweep there to go on with (it has no sweep.json)")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise MMSearchError(f"{path}: damaged ({e})") from e
