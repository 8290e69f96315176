"""The runner: a source's trials under Ray Tune, with the journal as the only memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from mmsearch.errors import Interrupted, StorageError
from mmsearch.files import storage_trouble
from mmsearch.search.cluster import Resources, needs
from mmsearch.search.job import clips, figures_of, heartbeat, log_file, out_of_memory, tidy, weights_dir
from mmsearch.search.journal import Event
from mmsearch.search.losses import LIMITS, is_bug, kind_of, verdict
from mmsearch.search.run_folder import SCRATCH, RunFolder, without_checkpoints
from mmsearch.search.sources import Signal, Source
from mmsearch.search.study import Study
from mmsearch.search.trial import Trial
from mmsearch.search.trials import TrialRecord, TrialTable
from mmsearch.training import evaluate
from mmsearch.training.loop import EVALUATED_AT_ONCE

PATIENCE = 20.0
"""Seconds without any trial running after which it is said what trials wait for."""

WAVE = 500
"""Trials after which Ray Tune is begun afresh: it keeps what it knows of a trial for as long as it runs."""


def run(
    source: Source,
    study: Study,
    run_dir: RunFolder | Path,
    resources: Resources,
    *,
    keep: int = 0,
    hang_after: float | None = None,
    limits: Mapping[str, float] = LIMITS,
    checkpoint_seconds: float | None = None,
    wave: int = WAVE,
    trial_class: type[Trial] = Trial,
) -> None:
    """Runs everything that a source has to ask; Ray must be connected.

    Trials that the journal has as asked and not told come first, under their own identity and from their own
    checkpoints; a trial whose worker was lost comes again in the same way. What Ray writes goes to a folder of its own
    that is never read and is removed at the end.

    Args:
        source: what to run.
        study: on the run's open journal.
        run_dir: the run's folder, which every worker can reach.
        resources: of a trial.
        keep: models of search trials kept beside those of the best and the last.
        hang_after: seconds without a step, an evaluation or a report after which a trial's worker is killed; None
            for no limit.
        limits: how often a trial goes on after each kind of loss; see :data:`mmsearch.search.losses.LIMITS`.
        checkpoint_seconds: how old a trial's checkpoint may get before an epoch's end writes a new one; None for the
            folder's own pace.
        wave: see :data:`WAVE`.
        trial_class: the trainable; tests put a subclass here.

    Raises:
        Interrupted: Ctrl-C or SIGTERM. A second one ends the process at once.
        StorageError: a disk is full, or the run's folder is gone; the journal is whole and the run can be resumed.
    """
    folder = RunFolder.of(run_dir)
    _clear(folder)
    desk = _Desk(source, study, folder, resources, keep, hang_after, limits, checkpoint_seconds, wave)
    table = TrialTable(folder.path, study.records)
    study.journal.subscribe(table)
    many = resources.processes
    asked = {"cpus": many * resources.cpus, "gpus": many * resources.gpus, "by_method": dict(resources.by_method)}
    study.journal.append({"event": "resources", **asked})
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.slots())
    with _Interruption() as interruption:
        try:
            while not (desk.finished or desk.stopped or interruption.asked):
                desk.begin()
                with desk.guarded():
                    tune.Tuner(
                        trial_class,
                        tune_config=tune.TuneConfig(
                            search_alg=_Searcher(desk),
                            scheduler=_Scheduler(desk),
                            num_samples=-1,
                            reuse_actors=True,
                            trial_name_creator=_name,
                            trial_dirname_creator=_folder,
                        ),
                        run_config=tune.RunConfig(
                            name=uuid.uuid4().hex,
                            **_storage(folder),
                            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                            stop=_Stopper(desk, interruption.asked),
                            verbose=0,
                        ),
                    ).fit()
                if not desk.begun:
                    break
        finally:
            study.journal.unsubscribe(table)
            _clear(folder)
        if desk.stopped is not None:
            raise desk.stopped
        if interruption.asked:
            raise Interrupted(f"{folder.address}: stopped; what was done is kept")
    left = study.unfinished()
    if left:
        raise RuntimeError(f"{folder.address}: Ray ended with {len(left)} trials untold, the first {left[0].trial_id}")


def read_test(run: RunFolder, trial_ids: list[str], resources: Resources) -> dict[str, dict[str, Any]]:
    """Evaluates the kept models of trials on the test part, as Ray tasks with a trial's resources.

    Returns:
        Per trial `accuracy`, `macro_f1` and `unimodal`.
    """
    task = ray.remote(_read_test).options(**resources.options(), max_retries=3)
    results = ray.get([task.remote(run.address, i) for i in trial_ids])
    return dict(zip(trial_ids, results, strict=True))


def on_worker(work: Callable[[Path], dict[str, Any]], run: RunFolder, resources: Resources) -> dict[str, Any]:
    """What a function makes of a run's folder, as a Ray task with a trial's resources."""
    task = ray.remote(_with_folder).options(**resources.options(), max_retries=1)
    found: dict[str, Any] = ray.get(task.remote(work, run.address))
    return found


def _with_folder(work: Callable[[Path], dict[str, Any]], address: str) -> dict[str, Any]:
    folder = RunFolder(address, "worker")
    folder.copy(without_checkpoints)
    return work(folder.path)


def _read_test(address: str, trial_id: str) -> dict[str, Any]:
    folder = RunFolder(address, "worker")
    for name in ("data.json", f"trials/{trial_id}"):
        folder.fetch(name)
    data = clips(str(folder.path / "data.json"))
    at_once = EVALUATED_AT_ONCE
    while True:
        try:
            return figures_of(evaluate(weights_dir(folder.path, trial_id), data, "test", batch_size=at_once))
        except Exception as error:
            if at_once == 1 or not out_of_memory(error):
                raise
        at_once = max(1, at_once // 4)


def _storage(folder: RunFolder) -> dict[str, Any]:
    """Where Ray writes, as it takes it."""
    if folder.away is None:
        return {"storage_path": str(folder.path / SCRATCH)}
    return {"storage_path": f"{folder.away.base}/{SCRATCH}", "storage_filesystem": folder.away.filesystem}


def _clear(folder: RunFolder) -> None:
    """Removes what Ray has written."""
    shutil.rmtree(folder.path / SCRATCH, ignore_errors=True)
    if folder.away is not None:
        with contextlib.suppress(OSError):
            folder.away.remove(SCRATCH)


class _Desk:
    """What searcher, scheduler and stopper share: the study, the source and which trials run.

    Attributes:
        begun: trials of this wave.
        finished: whether the source has nothing more to ask and everything asked is told.
        stopped: why nothing more can be done, where the storage has failed.
    """

    def __init__(
        self,
        source: Source,
        study: Study,
        folder: RunFolder,
        resources: Resources,
        keep: int,
        hang_after: float | None,
        limits: Mapping[str, float],
        checkpoint_seconds: float | None,
        wave: int,
    ) -> None:
        self.source = source
        self.study = study
        self.folder = folder
        self.run_dir = folder.path
        self.resources = resources
        self.keep = keep
        self.hang_after = hang_after
        self.limits = limits
        self.checkpoint_seconds = checkpoint_seconds
        self.wave = wave
        self.running: dict[str, str] = {}
        self.again = study.unfinished()
        self.finished = False
        self.stopped: StorageError | None = None
        self.begun = 0
        self._held: dict[str, float] = {}
        self._idle_since: float | None = None
        self._said_waiting = False
        self._nodes: dict[str, str] = {}
        self._beats: dict[str, tuple[int, float]] = {}
        self._hung: set[str] = set()
        self._watched = 0.0
        told = [e["trial_id"] for e in study.journal.events if e["event"] == "told"]
        self._kept = _worth_keeping([study.records[i] for i in told], keep)
        for trial_id in folder.trials() & study.records.keys():
            if study.records[trial_id].finished:
                self._tidy(study.records[trial_id])

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Ray pickles searcher, scheduler and stopper into files that nobody reads."""
        return object, ()

    def begin(self) -> None:
        """A new wave begins."""
        self.begun = 0
        self.running = {}

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Where the storage fails, nothing more is begun and everything ends; other errors pass."""
        try:
            yield
        except Exception as error:
            reason = str(error) if isinstance(error, StorageError) else storage_trouble(error, self.run_dir)
            if reason is None and self.stopped is None:
                raise
            self.stop(reason or "")

    def stop(self, reason: str) -> None:
        """Nothing more can be written."""
        if self.stopped is None:
            self.stopped = StorageError(
                f"{reason}; once that is mended, go on with: mmsearch resume {self.folder.address}"
            )

    def next(self, ray_id: str) -> dict[str, Any] | str | None:
        """The configuration of the next trial."""
        with self.guarded():
            if self.stopped is None:
                return self._next(ray_id)
        return Searcher.FINISHED

    def _next(self, ray_id: str) -> dict[str, Any] | str | None:
        if not self.resources.room([self.study.records[i].method for i in self.running.values()]):
            return None
        if self.begun >= self.wave:
            return None if self.running else Searcher.FINISHED
        if self.again:
            return self._config(ray_id, self.again.pop(0))
        answer = self.source.next()
        if answer is Signal.FINISHED:
            self.finished = not self.running
            return None if self.running else Searcher.FINISHED
        if answer is Signal.WAIT:
            if not self.running:
                raise RuntimeError("the source of trials waits although nothing runs")
            return None
        self.study.issue(answer)
        return self._config(ray_id, self.study.records[answer.trial_id])

    def _config(self, ray_id: str, record: TrialRecord) -> dict[str, Any]:
        self.begun += 1
        self.running[ray_id] = record.trial_id
        return {
            "run": self.folder.address,
            "trial_id": record.trial_id,
            "stage": record.stage,
            "document": record.document,
            "device": self.resources.device,
            "micro_batch": record.micro_batch,
            "resources": self.resources.bundle(record.method),
            "processes": self.resources.processes,
            "checkpoint_seconds": self.checkpoint_seconds,
        }

    def take(self, trial_id: str, events: list[Event], node: str) -> bool:
        """Passes the events of a worker on a node on to the study; says whether the trial is over here."""
        self._nodes[trial_id] = node
        with self.guarded():
            if self.stopped is None:
                return self._take(trial_id, events)
        return True

    def _take(self, trial_id: str, events: list[Event]) -> bool:
        study, record = self.study, self.study.records[trial_id]
        for event in events:
            kind = event["event"]
            fields = {k: v for k, v in event.items() if k != "event"}
            if record.finished:
                break
            if kind == "started":
                study.started(trial_id, event["epoch"])
            elif kind == "epoch":
                study.report(trial_id, fields)
            elif kind == "checkpointed":
                study.checkpointed(trial_id, event["epoch"])
            elif kind == "halved":
                study.halved(trial_id, **fields)
            elif kind == "storage":
                self.stop(event["reason"])
                return True
            else:
                study.tell(trial_id, "complete" if kind == "finished" else "failed", **fields)
        if record.finished:
            self._close(record)
        return record.finished

    def lost(self, trial_id: str, text: str) -> None:
        """A trial's worker is gone, of which Ray says `text`."""
        with self.guarded():
            record = self.study.records[trial_id]
            if self.stopped is not None or record.finished:
                return
            log = log_file(self.run_dir, trial_id)
            log.parent.mkdir(exist_ok=True)
            self.folder.fetch(f"logs/{trial_id}.log")
            with log.open("a") as file:
                file.write(text)
            self.folder.send(f"logs/{trial_id}.log")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            reason = lines[1] if len(lines) > 1 else "the worker was lost"
            if is_bug(text):
                self.study.tell(trial_id, "failed", reason=lines[-1])
                self._close(record)
                return
            kind = "hang" if trial_id in self._hung else kind_of(text, self._nodes.get(trial_id))
            self._hung.discard(trial_id)
            self.study.lost(trial_id, kind, reason)
            if record.stuck(kind) > self.limits[kind]:
                self.study.tell(trial_id, "failed", reason=verdict(kind, record.stuck(kind)))
                self._close(record)

    def left(self, ray_id: str, error: bool) -> None:
        """Ray is done with a trial of its own; where that was a loss, the trial comes again."""
        trial_id = self.running.pop(ray_id, None)
        if trial_id is None:
            return
        self._beats.pop(trial_id, None)
        self._nodes.pop(trial_id, None)
        record = self.study.records[trial_id]
        if error and not record.finished:
            self.again.insert(0, record)

    def watch(self, trials: Collection[Any]) -> None:
        """Notes what machines there are, and kills the workers of which nothing has been heard for too long."""
        with self.guarded():
            if self.stopped is None and self._held != (held := self.resources.held()):
                self._held = held
                self.study.journal.append({"event": "cluster", **held})
        now = time.monotonic()
        self._say_waiting([trial.status for trial in trials], now)
        if self.hang_after is None or now - self._watched < min(self.folder.pace.beat, self.hang_after / 4):
            return
        self._watched = now
        for trial in trials:
            trial_id, actor = trial.config["trial_id"], trial.temporary_state.ray_actor
            if trial.status != "RUNNING" or actor is None or trial_id in self._hung:
                continue
            beat = self.folder.touched(heartbeat(trial_id))
            known = self._beats.get(trial_id)
            if known is None or known[0] != beat:
                self._beats[trial_id] = beat, now
            elif now - known[1] > self.hang_after:
                self._hung.add(trial_id)
                ray.kill(actor)

    def _say_waiting(self, states: Collection[str], now: float) -> None:
        """Says once that nothing runs because no machine has room for a trial."""
        if "PENDING" not in states or "RUNNING" in states:
            self._idle_since = None
            return
        self._idle_since = self._idle_since or now
        if now - self._idle_since > PATIENCE and not self._said_waiting:
            self._said_waiting = True
            many = f"{self.resources.processes} times " if self.resources.processes > 1 else ""
            asked = many + needs(self.resources.bundle())
            with self.guarded():
                reason = f"no machine of the cluster has room for a trial ({asked}); waiting for one"
                self.study.journal.append({"event": "waiting", "reason": reason})

    def _close(self, record: TrialRecord) -> None:
        before = self._kept
        self._kept = _worth_keeping([*(self.study.records[i] for i in before), record], self.keep)
        for trial_id in {*before, record.trial_id}:
            self._tidy(self.study.records[trial_id])
        self.source.told(record)

    def _tidy(self, record: TrialRecord) -> None:
        needed = record.state == "complete" and record.stage in ("teacher", "confirm", "refit")
        tidy(self.folder, record.trial_id, keep=needed or record.trial_id in self._kept)


def _worth_keeping(told: Iterable[TrialRecord], keep: int) -> list[str]:
    """The search trials whose models stay: the last that ran to its end, the best, and the `keep` next to it.

    Args:
        told: in the order in which they were told, which that of the answer follows.
        keep: how many beside the best and the last.
    """
    complete = [r for r in told if r.state == "complete" and r.stage == "search"]
    best = sorted(complete, key=lambda r: -(r.score or 0.0))[: 1 + keep]
    return [r.trial_id for r in complete if r in best or r is complete[-1]]


class _Searcher(Searcher):
    """The source, as Ray asks it. Its state is the journal: it saves and restores nothing."""

    def __init__(self, desk: _Desk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> Any:
        return self._desk.next(trial_id)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        self._desk.left(trial_id, error)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        pass

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a sweep is resumed from its journal")


class _Scheduler(FIFOScheduler):
    """The study's decisions, as Ray asks for them."""

    def __init__(self, desk: _Desk) -> None:
        super().__init__()
        self._desk = desk

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        self._desk.watch(tune_controller.get_live_trials())
        return super().choose_trial_to_run(tune_controller)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        over = self._desk.take(trial.config["trial_id"], result["events"], result["node"])
        return TrialScheduler.STOP if over else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        self._desk.lost(trial.config["trial_id"], text)


class _Stopper(tune.Stopper):
    def __init__(self, desk: _Desk, asked: list[bool]) -> None:
        self._desk = desk
        self._asked = asked

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self._asked) or self._desk.stopped is not None


class _Interruption:
    """Turns Ctrl-C and SIGTERM into a request; `asked` is then no longer empty. The second raises."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self._former: dict[int, Any] = {}

    def __enter__(self) -> _Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked.append(True)


def _name(trial: Any) -> str:
    return str(trial.config["trial_id"])


def _folder(trial: Any) -> str:
    """A trial that comes again has another folder of Ray's, where nothing is said of the loss before."""
    return f"{_name(trial)}-{trial.trial_id}"
