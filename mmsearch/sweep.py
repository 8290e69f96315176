"""The main job, from clips to a recommendation: `python -m mmsearch.sweep`, or :func:`sweep` from Python."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from mmsearch import __version__
from mmsearch.batch import Modality
from mmsearch.data import ClipData, Dataset, clip_data, default_store, prepare
from mmsearch.data.demo import DemoConfig, cached_demo
from mmsearch.errors import MMSearchError, nearest
from mmsearch.files import write_text
from mmsearch.fusion import FUSIONS
from mmsearch.methods import METHODS
from mmsearch.recommend.conclude import conclude
from mmsearch.search.cluster import Resources, connect, disconnect, quiet
from mmsearch.search.journal import Event, Journal
from mmsearch.search.runner import read_test, run
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource, finalists
from mmsearch.search.space import BASELINES, ENSEMBLE, Space
from mmsearch.search.study import Study

DEMO = "demo"
"""As `--dataset demo`: the embedded clips, made and cached on first use."""

SPACES = next(
    p
    for p in (Path(__file__).parents[1] / "search_spaces", Path(sys.prefix) / "share/mmsearch/search_spaces")
    if p.is_dir()
)
"""The shipped search spaces: in the checkout, or where an installed package puts them."""

SEARCH_SHARE = 0.6
"""Of a time budget, the share after which the search asks for nothing more; the rest is the confirmation's."""

ROOM = 200 * 2**20
"""Bytes that must be free where a run is written."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What a sweep was asked for; recorded in the run's `sweep.json`.

    Attributes:
        dataset: path of a dataset YAML, or `demo`.
        space: path of a search-space YAML; None for the shipped one.
        methods, fusions: only these, out of the space; the baselines are always run.
        trials: of the search, over all methods.
        max_epochs: planned epochs of every trial; None for the space's.
        time_budget: seconds, over all sessions; None for no limit.
        seeds: fresh seeds of every finalist.
        seed: where seeds start.
        cpus_per_trial, gpus_per_trial: what a trial gets; None for a GPU where there is one.
        store: of the clips, a folder or an address such as `s3://bucket/prefix`; None for this user's own.
        max_bad: share of clips that may be set aside because they cannot be decoded.
        allow_absolute: whether a manifest may name files outside its root.
        stream: whether trials go through the store shard by shard, for one that is larger than a node's disk.
    """

    dataset: str
    space: str | None = None
    methods: tuple[str, ...] | None = None
    fusions: tuple[str, ...] | None = None
    trials: int = 48
    max_epochs: int | None = None
    time_budget: float | None = None
    seeds: int = 5
    seed: int = 0
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    store: str | None = None
    max_bad: float = 0.5
    allow_absolute: bool = False
    stream: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Arguments:
        """The inverse of :meth:`to_dict`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}
        return cls(**values)

    def grown(self, given: dict[str, Any]) -> Arguments:
        """These arguments for a resumed run: `trials` and `time_budget` may grow, nothing else may differ.

        Args:
            given: what was said on resuming, by name.

        Raises:
            MMSearchError: an argument differs from the recorded one, which is named.
        """
        for name, value in given.items():
            recorded = getattr(self, name)
            if name in ("trials", "time_budget") and (recorded is None or value >= recorded):
                continue
            if value != recorded:
                more = " or more" if name in ("trials", "time_budget") else ""
                flag = "--" + name.replace("_", "-")
                raise MMSearchError(f"{flag}: the run was started with {_said(recorded)}{more}, not {_said(value)}")
        return dataclasses.replace(self, **{k: v for k, v in given.items() if k in ("trials", "time_budget")})


def _said(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


Watcher = Callable[[Event], None]
Display = Callable[[TextIO, Path, list[Event]], contextlib.AbstractContextManager[Watcher]]
"""Makes what shows the events of a run to a person: stream, run folder, the events so far."""


def sweep(
    arguments: Arguments, out: Path, *, resume: bool = False, address: str | None = None, display: Display | None = None
) -> dict[str, Any]:
    """Runs or resumes a sweep, from clips to a recommendation.

    Args:
        arguments: what to do; for a resumed run those of :func:`recorded`.
        out: the run's folder.
        resume: whether the folder holds this very sweep, to be gone on with.
        address: of a running Ray cluster; None for this machine.
        display: shows the progress.

    Returns:
        The recommendation, as written to `recommendation.json`.

    Raises:
        MMSearchError: anything a person can mend, before anything starts where it can be known by then.
        mmsearch.search.runner.Interrupted: Ctrl-C; the run can be resumed.
    """
    out = Path(out).absolute()
    dataset = None if resume else _dataset(arguments)
    space_file = out / "space.yaml" if resume else _space_file(arguments)
    if dataset is not None:
        _check_names(arguments)
        _space(space_file, {u: Modality(u, m.kind, (1,)) for u, m in dataset.modalities.items()}, "", arguments)
        _check_folder(out)
    with quiet(out / "logs" / "ray.log") if resume else _fresh(out) as stream, _ray(address, arguments) as resources:
        if dataset is not None:
            _record(out, arguments, space_file)
        else:
            _rewrite(out / "sweep.json", {**recorded_sweep(out), "arguments": arguments.to_dict()})
        with Journal(out) as journal:
            shown = display(stream, out, journal.events) if display else contextlib.nullcontext(lambda event: None)
            with shown as watcher:
                journal.subscribe(watcher)
                data = _data(out, arguments, dataset, journal)
                space = _space(out / "space.yaml", data.modalities, data.digest, arguments)
                _search(arguments, out, journal, space, resources)
                recommendation = conclude(
                    out, journal, data, recorded_sweep(out), lambda trial_ids: read_test(out, trial_ids, resources)
                )
                journal.append({"event": "phase", "name": "done"})
    return recommendation


def recorded(out: Path) -> Arguments:
    """The arguments of the sweep that a folder holds.

    Raises:
        MMSearchError: it holds none.
    """
    return Arguments.from_dict(recorded_sweep(out)["arguments"])


def recorded_sweep(out: Path) -> dict[str, Any]:
    """The content of a run's `sweep.json`.

    Raises:
        MMSearchError: there is none, or it is damaged.
    """
    path = Path(out) / "sweep.json"
    if not path.is_file():
        raise MMSearchError(f"{out}: no sweep there to go on with (it has no sweep.json)")
    try:
        return json.loads(path.read_text())
    except ValueError as e:
        raise MMSearchError(f"{path}: damaged ({e})") from e


def _space(file: Path, modalities: Mapping[str, Modality], data: str, arguments: Arguments) -> Space:
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
    narrowed = dataclasses.replace(space, methods=methods, fusions=fusions, settings=settings)
    checked = narrowed.checked(arguments.methods or (), lambda m: "--methods")
    least = len(checked.methods) - 1 + len(space.modalities) + ("teacher" not in methods["unimodal_teacher"].fixed)
    if arguments.trials < least:
        raise MMSearchError(
            f"--trials: {arguments.trials} are too few for one trial of each of {len(checked.methods)} methods, "
            f"each modality alone and their ensemble; at least {least}"
        )
    return checked


def _search(arguments: Arguments, out: Path, journal: Journal, space: Space, resources: Resources) -> None:
    study = Study(space, journal)
    budget = None if arguments.time_budget is None else SEARCH_SHARE * arguments.time_budget
    source = Chain(
        {
            "teachers": TeacherSource(study),
            "search": SearchSource(study, trials=arguments.trials, time_budget=budget),
            "confirm": ConfirmSource(study, finalists, seeds=arguments.seeds),
        },
        lambda phase: journal.append({"event": "phase", "name": phase}),
    )
    run(source, study, out, resources)


def _dataset(arguments: Arguments) -> Dataset:
    if arguments.dataset != DEMO:
        return Dataset.load(arguments.dataset, allow_absolute=arguments.allow_absolute)
    announced: list[int] = []

    def announce(done: int, total: int) -> None:
        if not announced:
            print(f"making {total} demo clips, once", flush=True)
            announced.append(total)

    return Dataset.load(cached_demo(DemoConfig(), on_progress=announce))


def _space_file(arguments: Arguments) -> Path:
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


def _check_folder(out: Path) -> None:
    if (out / "sweep.json").exists():
        raise MMSearchError(
            f"--out: {out} already holds a sweep; choose another folder, or go on with it: mmsearch resume {out}"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MMSearchError(f"--out: {out} is there already and is not an empty folder")
    above = next(p for p in (out, *out.parents) if p.exists())
    if not os.access(above, os.W_OK):
        raise MMSearchError(f"--out: cannot write to {above}")
    if shutil.disk_usage(above).free < ROOM:
        raise MMSearchError(f"--out: the disk of {above} is full (less than {ROOM // 2**20} MB free)")


@contextlib.contextmanager
def _fresh(out: Path) -> Iterator[TextIO]:
    """As :func:`quiet`; a folder in which nothing was recorded is removed again."""
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MMSearchError(f"--out: cannot make {out} ({e.strerror})") from e
    try:
        with quiet(out / "logs" / "ray.log") as stream:
            yield stream
    finally:
        if not (out / "sweep.json").exists():
            shutil.rmtree(out / "logs", ignore_errors=True)
            if not existed:
                shutil.rmtree(out, ignore_errors=True)


@contextlib.contextmanager
def _ray(address: str | None, arguments: Arguments) -> Iterator[Resources]:
    resources = connect(address, arguments.cpus_per_trial, arguments.gpus_per_trial)
    try:
        yield resources
    finally:
        disconnect()


def _record(out: Path, arguments: Arguments, space_file: Path) -> None:
    shutil.copyfile(space_file, out / "space.yaml")
    _rewrite(
        out / "sweep.json",
        {
            "arguments": arguments.to_dict(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "mmsearch": __version__,
        },
    )


def _rewrite(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _data(out: Path, arguments: Arguments, dataset: Dataset | None, journal: Journal) -> ClipData:
    """The clips of the run; decoded where they are not yet."""
    path = out / "data.json"
    if path.is_file():
        return ClipData.open(path)
    dataset = dataset or _dataset(arguments)
    store = arguments.store or default_store()
    journal.append({"event": "phase", "name": "decode", "clips": len(dataset.clips)})
    prepared = prepare(
        dataset,
        store,
        max_quarantined=arguments.max_bad,
        on_wait=lambda reason: journal.append({"event": "waiting", "reason": reason}),
    )
    data = clip_data(dataset, store, prepared, order="shards" if arguments.stream else "clips")
    data.save(path)
    journal.append(
        {
            "event": "decoded",
            "stored": prepared.stored,
            "decoded": prepared.decoded,
            "quarantined": prepared.quarantined,
            "store": str(store),
        }
    )
    return data


if __name__ == "__main__":
    from mmsearch.cli import main

    sys.exit(main(["sweep", *sys.argv[1:]]))
