"""A sweep whose request has been checked, from clips to a recommendation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from mmsearch import __version__
from mmsearch.arguments import Arguments, recorded_sweep, space_in
from mmsearch.data import ClipData, Dataset, clip_data, default_store, prepare
from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.recommend import diagnosis, handover, knowledge, report
from mmsearch.recommend.card import resolution_of, select_rows
from mmsearch.recommend.conclude import conclude
from mmsearch.recommend.evidence import settled
from mmsearch.search.allocation import ALLOCATIONS
from mmsearch.search.cluster import Resources, check_shared, connect, disconnect, quiet
from mmsearch.search.costs import measured
from mmsearch.search.finalists import finalists
from mmsearch.search.journal import Event, Journal
from mmsearch.search.loggers import Trackers
from mmsearch.search.machines import Cluster
from mmsearch.search.metrics import Metrics
from mmsearch.search.mirror import FILE as STUDIES
from mmsearch.search.mirror import Mirror, database, file_storage
from mmsearch.search.plan import SEARCH_SHARE, equal_lengths
from mmsearch.search.refit import RefitSource
from mmsearch.search.run_folder import SWEEP, RunFolder
from mmsearch.search.runner import on_worker, read_test, run
from mmsearch.search.shares import shared
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.space import Space
from mmsearch.search.study import Study
from mmsearch.search.warm import Start, keep
from mmsearch.sweep import clips_of, space_of

Watcher = Callable[[Event], None]
_DECODE_HERE = (
    "decode it here first, into a bucket: mmsearch prepare DATASET --out s3://..., then sweep --store s3://..."
)

Display = Callable[[TextIO, RunFolder, list[Event]], contextlib.AbstractContextManager[Watcher]]
"""Makes what shows the events of a run to a person: stream, run folder, the events so far."""


def conduct(
    arguments: Arguments,
    folder: RunFolder,
    dataset: Dataset | ClipData | None,
    space_file: Path,
    *,
    resume: bool,
    cluster: Cluster,
    display: Display | None = None,
) -> dict[str, Any]:
    """Runs or resumes a sweep; see :func:`mmsearch.sweep.sweep`.

    Args:
        arguments: checked.
        folder: the run's.
        dataset: None for one that is still to be loaded.
        space_file: the search space.
        resume: whether the folder holds this very sweep, to be gone on with.
        cluster: the machines.
        display: shows the progress.
    """
    out = folder.path
    log = out / "logs" / "ray.log"
    with quiet(log) if resume else _fresh(folder, log) as stream, _ray(cluster, arguments) as resources:
        check_shared("--out", folder.away or out)
        trackers = Trackers(arguments.log, out)
        if not resume:
            _record(out, arguments, space_file)
        else:
            _rewrite(out / SWEEP, {**recorded_sweep(out), "arguments": arguments.to_dict()})
        with Journal(out, folder.away) as journal, _sending(folder, journal):
            before = journal.events
            shown = display(stream, folder, before) if display else contextlib.nullcontext(lambda event: None)
            with shown as watcher, trackers:
                journal.subscribe(watcher)
                journal.subscribe(Metrics(out.name, before))
                note_extensions(out, journal)
                data = _data(out, arguments, dataset, journal)
                about = {"dataset": arguments.dataset, "classes": data.classes}
                trackers.attach(journal, about if arguments.log_clips else {})
                space = _lengthened(out, space_of(space_in(out), data.modalities, data.digest, arguments), arguments)
                study, shares = _search(arguments, folder, journal, space, resources, data)
                folder.fetch("trials", only=lambda name: name.endswith("/select.json"))
                recommendation = conclude(
                    out,
                    journal,
                    data,
                    recorded_sweep(out),
                    lambda trial_ids: read_test(folder, trial_ids, resources),
                    again=arguments.read_test_again,
                )
                recommendation = _diagnosed(folder, journal, recommendation, resources)
                _hand_over(arguments, folder, study, shares, recommendation, data)
                report.write(out, recommendation, journal.events)
                _remember(study, recommendation, data)
                journal.append({"event": "phase", "name": "done"})
    return recommendation


@contextlib.contextmanager
def _sending(folder: RunFolder, journal: Journal) -> Iterator[None]:
    """Sends what the driver has written to the run's bucket, at the beginning of every phase and at the end."""

    def send(event: Event) -> None:
        if event["event"] == "phase":
            folder.send_all()

    folder.send_all()
    journal.subscribe(send)
    try:
        yield
    finally:
        journal.unsubscribe(send)
        folder.send_all()


def _diagnosed(
    folder: RunFolder, journal: Journal, recommendation: dict[str, Any], resources: Resources
) -> dict[str, Any]:
    """The recommendation with its diagnosis, which is made where trials are made."""

    def make() -> dict[str, Any]:
        journal.append({"event": "phase", "name": "diagnose"})
        return on_worker(diagnosis.diagnose_run, folder, resources)

    return diagnosis.attach(folder.path, recommendation, journal.events, make)


def _hand_over(
    arguments: Arguments,
    folder: RunFolder,
    study: Study,
    resources: Resources,
    recommendation: dict[str, Any],
    data: ClipData,
) -> None:
    """Trains the recommended configuration on the whole development part, and writes `RUN/best`."""
    refit, confirmed = None, recommendation["decision"]["trial_ids"]
    if not arguments.no_refit:
        source = RefitSource(study, confirmed)
        refit = source.trial_id
        if refit not in study.records or not study.records[refit].finished:
            study.journal.append({"event": "phase", "name": "refit"})
            run(source, study, folder, resources, keep=arguments.keep, hang_after=arguments.hang_after)
    for trial_id in [*confirmed, *([refit] if refit else [])]:
        folder.fetch(f"trials/{trial_id}")
    handover.write(folder.path, recommendation, study.records, data, refit)


def _remember(study: Study, recommendation: dict[str, Any], data: ClipData) -> None:
    """Adds the sweep to this machine's knowledge, where that can be: nothing of the sweep depends on it."""
    case = knowledge.Case.of(recommendation, data.incomplete(), study.records)
    if case is not None:
        with contextlib.suppress(MMSearchError):
            knowledge.remember(case)


def _lengthened(out: Path, space: Space, arguments: Arguments) -> Space:
    """The space with the lengths of equal cost also of the methods that an extension has added; they are recorded."""
    if not arguments.equal_cost or space.methods.keys() <= arguments.lengths.keys():
        return space
    lengths = {**equal_lengths(space, measured(space, whatever_it_takes=True)), **arguments.lengths}
    sweep = recorded_sweep(out)
    _rewrite(out / SWEEP, {**sweep, "arguments": {**sweep["arguments"], "lengths": lengths}})
    return dataclasses.replace(space, lengths=lengths)


def note_extensions(out: Path, journal: Journal) -> None:
    """Brings into the journal the extensions that `sweep.json` has and a kill has kept from it."""
    noted = sum(e["event"] == "extended" for e in journal.events)
    for extension in recorded_sweep(out).get("extensions", [])[noted:]:
        journal.append({"event": "extended", **extension})


def _search(
    arguments: Arguments, folder: RunFolder, journal: Journal, space: Space, resources: Resources, data: ClipData
) -> tuple[Study, Resources]:
    """Runs the search and the confirmation; gives their study and what a trial got."""
    out = folder.path
    study = Study(space, journal, sampler=arguments.sampler, start=Start.kept(space, out))
    Mirror(study, file_storage(out / STUDIES), out.name)
    if arguments.optuna:
        Mirror(study, database(arguments.optuna), out.name)
    source = Chain(
        {
            "teachers": TeacherSource(study),
            "search": SearchSource(
                study,
                trials=arguments.trials,
                budget=_searching(arguments.budget),
                time_budget=_searching(arguments.time_budget),
                allocation=ALLOCATIONS[arguments.allocation](),
            ),
            "confirm": ConfirmSource(
                study,
                finalists,
                seeds=arguments.seeds,
                settled=functools.partial(
                    settled,
                    rows=select_rows(data),
                    margin=arguments.margin / 100,
                    resolution=resolution_of(data),
                    planned=arguments.seeds,
                ),
            ),
        },
        lambda phase: journal.append({"event": "phase", "name": phase}),
    )
    if arguments.gpus_per_trial == "auto":
        resources = shared(folder, space, resources)
    run(source, study, folder, resources, keep=arguments.keep, hang_after=arguments.hang_after)
    return study, resources


def _searching(budget: float | None) -> float | None:
    """The part of a budget that is the search's."""
    return None if budget is None else SEARCH_SHARE * budget


@contextlib.contextmanager
def _fresh(folder: RunFolder, log: Path) -> Iterator[TextIO]:
    """As :func:`quiet`; a folder in which nothing was recorded is removed again."""
    folder.begun()
    out = folder.path
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MMSearchError(f"--out: cannot make {out} ({e.strerror})") from e
    try:
        with quiet(log) as stream:
            yield stream
    finally:
        if not (out / SWEEP).exists():
            shutil.rmtree(out / "logs", ignore_errors=True)
            if not existed:
                shutil.rmtree(out, ignore_errors=True)


@contextlib.contextmanager
def _ray(cluster: Cluster, arguments: Arguments) -> Iterator[Resources]:
    resources = connect(cluster, arguments.cpus_per_trial, arguments.gpus_per_trial)
    try:
        yield resources
    finally:
        disconnect()


def _record(out: Path, arguments: Arguments, space_file: Path) -> None:
    shutil.copyfile(space_file, out / "space.yaml")
    keep(out, arguments.points, arguments.warm_start)
    _rewrite(
        out / SWEEP,
        {
            "arguments": arguments.to_dict(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "mmsearch": __version__,
        },
    )


def _rewrite(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _data(out: Path, arguments: Arguments, dataset: Dataset | ClipData | None, journal: Journal) -> ClipData:
    """The clips of the run; decoded where they are not yet."""
    path = out / "data.json"
    if path.is_file():
        known = ClipData.open(path)
        check_shared("--store", known.store)
        return known
    dataset = dataset or clips_of(arguments)
    if isinstance(dataset, ClipData):
        check_shared("--store", dataset.store)
        dataset.save(path)
        _note(journal, len(dataset.clip_ids), 0, [], dataset.store)
        return dataset
    store, manifest = arguments.store or default_store(), dataset.manifest
    check_shared("--store", store)
    journal.append({"event": "phase", "name": "decode", "clips": len(dataset.clips)})
    prepared = prepare(
        dataset,
        store,
        max_quarantined=arguments.max_bad,
        on_begin=lambda: check_shared("--dataset", manifest.parent, manifest.name, _DECODE_HERE),
        on_wait=lambda reason: journal.append({"event": "waiting", "reason": reason}),
    )
    data = clip_data(dataset, store, prepared, order="shards" if arguments.stream else "clips")
    data.save(path)
    _note(journal, prepared.stored, prepared.decoded, prepared.quarantined, str(store))
    return data


def _note(journal: Journal, stored: int, decoded: int, quarantined: list[dict[str, str]], store: str) -> None:
    journal.append(
        {"event": "decoded", "stored": stored, "decoded": decoded, "quarantined": quarantined, "store": store}
    )
