"""The main job, from clips to a recommendation: `python -m mmsearch.sweep`, or :func:`sweep` from Python."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmsearch.arguments import Arguments, space_in
from mmsearch.batch import Modality
from mmsearch.data import ClipData, Dataset
from mmsearch.data.clips import is_list
from mmsearch.data.demo import DemoConfig, cached_demo, demo_modalities
from mmsearch.data.places import said
from mmsearch.errors import MMSearchError, nearest
from mmsearch.fusion import FUSIONS
from mmsearch.methods import METHODS
from mmsearch.search import loggers, objectives
from mmsearch.search.allocation import ALLOCATIONS
from mmsearch.search.costs import assumed, declared, measured
from mmsearch.search.machines import Cluster
from mmsearch.search.mirror import check_database
from mmsearch.search.plan import Plan, check_budget, equal_lengths, plan
from mmsearch.search.run_folder import SWEEP, RunFolder
from mmsearch.search.samplers import SAMPLERS
from mmsearch.search.space import BASELINES, ENSEMBLE, Space
from mmsearch.search.warm import Start

if TYPE_CHECKING:
    from mmsearch.conduct import Display

DEMO = "demo"
"""As `--dataset demo`: the embedded clips, made and cached on first use."""

SPACES = next(
    p
    for p in (Path(__file__).parents[1] / "search_spaces", Path(sys.prefix) / "share/mmsearch/search_spaces")
    if p.is_dir()
)
"""The shipped search spaces: in the checkout, or where an installed package puts them."""

ROOM = 200 * 2**20
"""Bytes that must be free where a run is written."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A sweep that has been checked and planned; nothing of it has been started.

    Attributes:
        arguments: with the lengths of equal cost.
        dataset: with its clips decoded where a list of clips was given; None for the demo, whose clips may not be there
            yet.
        space_file: the search space.
        plan: what it will try and cost.
    """

    arguments: Arguments
    dataset: Dataset | ClipData | None
    space_file: Path
    plan: Plan


def request(
    arguments: Arguments, folder: RunFolder, *, resume: bool = False, cluster: Cluster | None = None
) -> Request:
    """Checks what a sweep was asked for and plans it; neither Ray nor a decoder is started, and nothing is written.

    Args:
        arguments: what to do.
        folder: the run's.
        resume: whether the folder holds this very sweep.
        cluster: the machines; those of a running Ray cluster are not looked at.

    Raises:
        MMSearchError: anything a person can mend.
    """
    cluster = cluster or Cluster()
    at_once = _at_once(arguments) if cluster.address is None else cluster.concurrent
    space_file = space_in(folder.path) if resume else space_asked(arguments)
    _check_names(arguments)
    dataset = None if arguments.dataset == DEMO else clips_of(arguments)
    if isinstance(dataset, ClipData):
        modalities = dataset.modalities
    else:
        modalities = declared(demo_modalities(DemoConfig()) if dataset is None else dataset.modalities)
    space = space_of(space_file, modalities, "", arguments)
    if not resume:
        Start.load(space, arguments.points, arguments.warm_start)
        _check_folder(folder)
    if arguments.budget is not None:
        check_budget(space, assumed(space), arguments.budget)
    costs = measured(space, whatever_it_takes=arguments.equal_cost)
    if arguments.equal_cost:
        arguments = dataclasses.replace(arguments, lengths={**equal_lengths(space, costs), **arguments.lengths})
        space = dataclasses.replace(space, lengths=arguments.lengths)
    planned = plan(
        space,
        costs,
        trials=arguments.trials,
        allocation=arguments.allocation,
        seeds=arguments.seeds,
        budget=arguments.budget,
        time_budget=arguments.time_budget,
        refit=not arguments.no_refit,
        cpus=arguments.cpus_per_trial,
        gpus=_gpus(arguments),
        at_once=at_once,
    )
    return Request(arguments, dataset, space_file, planned)


def sweep(
    arguments: Arguments,
    out: RunFolder | str | Path,
    *,
    resume: bool = False,
    cluster: Cluster | None = None,
    display: Display | None = None,
    on_plan: Callable[[Plan], None] = lambda plan: None,
) -> dict[str, Any]:
    """Runs or resumes a sweep, from clips to a recommendation.

    Args:
        arguments: what to do; for a resumed run those of :func:`mmsearch.arguments.recorded`.
        out: the run's folder, or its address in a bucket such as `s3://bucket/runs/mine`; for a resumed run there the
            result of :meth:`mmsearch.search.run_folder.RunFolder.taken`.
        resume: whether the folder holds this very sweep, to be gone on with.
        cluster: the machines; by default those of `$RAY_ADDRESS`, or this one.
        display: shows the progress.
        on_plan: called with the plan of a new sweep before anything is started.

    Returns:
        The recommendation, as written to `recommendation.json`.

    Raises:
        MMSearchError: anything a person can mend, before anything starts where it can be known by then.
        mmsearch.errors.Interrupted: Ctrl-C; the run can be resumed.
    """
    folder, cluster = RunFolder.of(out), cluster or Cluster()
    dataset, space_file = None, folder.path / "space.yaml"
    if not resume:
        asked = request(arguments, folder, cluster=cluster)
        arguments, dataset, space_file = asked.arguments, asked.dataset, asked.space_file
        on_plan(asked.plan)
    from mmsearch.conduct import conduct  # takes seconds, which nobody waits for whose request is impossible

    return conduct(arguments, folder, dataset, space_file, resume=resume, cluster=cluster, display=display)


def space_of(file: Path, modalities: Mapping[str, Modality], data: str, arguments: Arguments) -> Space:
    """The space with only the methods and fusions asked for (and the baselines), and the epochs asked for."""
    space = Space.load(file, modalities, data=data, seed=arguments.seed)
    for kind, wanted in (("methods", arguments.methods), ("fusions", arguments.fusions)):
        known = getattr(space, kind)
        for name in wanted or ():
            if name not in known:
                raise MMSearchError(f"--{kind}: the search space has no {name!r}{nearest(name, known)}")
    methods = {
        m: c for m, c in space.methods.items() if arguments.methods is None or m in (*arguments.methods, *BASELINES)
    }
    if arguments.methods is not None and "unimodal_teacher" not in arguments.methods:
        methods["unimodal_teacher"] = methods["unimodal_teacher"].narrowed(ENSEMBLE)
    fusions = {f: c for f, c in space.fusions.items() if arguments.fusions is None or f in arguments.fusions}
    settings = {**space.settings, **({"epochs": arguments.max_epochs} if arguments.max_epochs else {})}
    narrowed = dataclasses.replace(
        space, methods=methods, fusions=fusions, settings=settings, lengths=arguments.lengths
    )
    checked = narrowed.checked(arguments.methods or (), lambda m: "--methods")
    least = len(checked.methods) - 1 + len(space.modalities) + ("teacher" not in methods["unimodal_teacher"].fixed)
    if arguments.trials < least:
        raise MMSearchError(
            f"--trials: {arguments.trials} are too few for one trial of each of {len(checked.methods)} methods, "
            f"each modality alone and their ensemble; at least {least}"
        )
    return checked


def clips_of(arguments: Arguments) -> Dataset | ClipData:
    """The dataset of a sweep, or its decoded clips where a list of them was given.

    Raises:
        MMSearchError: it is not readable, or the store lacks a clip.
    """
    if not is_list(arguments.dataset):
        return dataset_of(arguments)
    if arguments.stream:
        raise MMSearchError("--stream: the order of a list of clips is fixed; give the dataset YAML")
    return ClipData.fetch(arguments.dataset)


def dataset_of(arguments: Arguments) -> Dataset:
    """The dataset of a sweep, checked; nothing of it is decoded."""
    if arguments.dataset != DEMO:
        return Dataset.load(arguments.dataset, allow_absolute=arguments.allow_absolute)
    announced: list[int] = []

    def announce(done: int, total: int) -> None:
        if not announced:
            print(f"making {total} demo clips, once", flush=True)
            announced.append(total)

    return Dataset.load(cached_demo(DemoConfig(), on_progress=announce))


def space_asked(arguments: Arguments) -> Path:
    """The search space that is asked for, or the shipped one.

    Raises:
        MMSearchError: no such file.
    """
    shipped = SPACES / ("demo.yaml" if arguments.dataset == DEMO else "default.yaml")
    path = Path(arguments.space) if arguments.space else shipped
    if not path.is_file():
        raise MMSearchError(f"--space: no file {path}")
    return path


def _check_names(arguments: Arguments) -> None:
    for name in arguments.methods or ():
        METHODS.get(name, "--methods")
    for name in arguments.fusions or ():
        FUSIONS.get(name, "--fusions")
    if arguments.sampler not in SAMPLERS:
        raise MMSearchError(f"--sampler: no sampler {arguments.sampler!r}{nearest(arguments.sampler, SAMPLERS)}")
    if arguments.optuna:
        check_database(arguments.optuna)
    if arguments.allocation not in ALLOCATIONS:
        raise MMSearchError(
            f"--allocation: unknown allocation {arguments.allocation!r}{nearest(arguments.allocation, ALLOCATIONS)}"
        )
    objectives.check(arguments.objectives)
    loggers.check(arguments.log)


def _gpus(arguments: Arguments) -> float:
    """Of a trial; where no number is asked for, one if this machine has any."""
    asked = arguments.gpus_per_trial
    return float(torch.cuda.is_available()) if asked is None or isinstance(asked, str) else asked


def _at_once(arguments: Arguments) -> int:
    """How many trials this machine has room for.

    Raises:
        MMSearchError: not for one.
    """
    room = []
    for kind, asked, have in (
        ("CPU", arguments.cpus_per_trial, os.cpu_count() or 1),
        ("GPU", _gpus(arguments), torch.cuda.device_count()),
    ):
        if asked > have:
            raise MMSearchError(
                f"--{kind.lower()}s-per-trial: a trial asks for {asked:g} {kind}s, this machine has {have}"
            )
        room += [int(have / asked)] if asked else []
    return min(room)


def _check_folder(folder: RunFolder) -> None:
    if holds_sweep(folder):
        raise MMSearchError(
            f"--out: {folder.address} already holds a sweep; choose another folder, or go on with it: "
            f"mmsearch resume {folder.address}"
        )
    out = folder.path
    if folder.away is None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MMSearchError(f"--out: {out} is there already and is not an empty folder")
    above = next(p for p in (out, *out.parents) if p.exists())
    if not os.access(above, os.W_OK):
        raise MMSearchError(f"--out: cannot write to {above}")
    if shutil.disk_usage(above).free < ROOM:
        raise MMSearchError(f"--out: the disk of {above} is full (less than {ROOM // 2**20} MB free)")


def holds_sweep(folder: RunFolder) -> bool:
    """Whether a run's folder holds a sweep.

    Raises:
        MMSearchError: the bucket cannot be reached, or cannot be written to.
    """
    if folder.away is None:
        return folder.exists(SWEEP)
    mark = f"seen-{uuid.uuid4().hex}"
    try:
        folder.away.write(mark, b"")
        folder.away.delete(mark)
        return folder.exists(SWEEP)
    except OSError as e:
        raise MMSearchError(f"--out: {folder.address}: {said(e)}") from None


if __name__ == "__main__":
    from mmsearch.cli import main

    sys.exit(main(["sweep", *sys.argv[1:]]))
