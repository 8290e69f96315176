"""The runner: a source's trials under Ray Tune, with the journal as the only memory."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from mmsearch.errors import MMSearchError
from mmsearch.search.cluster import Resources
from mmsearch.search.job import CHECKPOINT_SECONDS, clips, figures_of, log_file, tidy, weights_dir
from mmsearch.search.journal import Event
from mmsearch.search.sources import Signal, Source
from mmsearch.search.study import Study
from mmsearch.search.trial import Trial
from mmsearch.search.trials import TrialRecord, TrialTable
from mmsearch.training import evaluate

RETRIES = 3
"""How often a trial goes on elsewhere after its worker was lost."""


class Interrupted(MMSearchError):
    """The run was stopped by Ctrl-C or SIGTERM; its journal is whole and it can be resumed."""


def run(
    source: Source,
    study: Study,
    run_dir: Path,
    resources: Resources,
    *,
    retries: int = RETRIES,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    trial_class: type[Trial] = Trial,
) -> None:
    """Runs everything that a source has to ask; Ray must be connected.

    Trials that the journal has as asked and not told come first, under their own identity and from their own
    checkpoints. What Ray writes goes to a folder of its own that is never read and is removed at the end.

    Args:
        source: what to run.
        study: on the run's open journal.
        run_dir: the run's folder, which every worker can reach.
        resources: of a trial.
        retries: see :data:`RETRIES`.
        checkpoint_seconds: how old a trial's checkpoint may get before an epoch's end writes a new one.
        trial_class: the trainable; tests put a subclass here.

    Raises:
        Interrupted: Ctrl-C or SIGTERM. A second one ends the process at once.
    """
    run_dir = Path(run_dir).resolve()
    scratch = run_dir / ".ray"
    shutil.rmtree(scratch, ignore_errors=True)
    desk = _Desk(source, study, run_dir, resources, checkpoint_seconds)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.slots())
    with _Interruption() as interruption:
        try:
            tune.Tuner(
                trial_class,
                tune_config=tune.TuneConfig(
                    search_alg=_Searcher(desk),
                    scheduler=_Scheduler(desk),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    name=uuid.uuid4().hex,
                    storage_path=str(scratch),
                    failure_config=tune.FailureConfig(max_failures=retries),
                    stop=_Stopper(interruption.asked),
                    verbose=0,
                ),
            ).fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if interruption.asked:
            raise Interrupted(f"{run_dir}: stopped; what was done is kept")
    left = study.unfinished()
    if left:
        raise RuntimeError(f"{run_dir}: Ray ended with {len(left)} trials untold, the first {left[0].trial_id}")


def read_test(run_dir: Path, trial_ids: list[str], resources: Resources) -> dict[str, dict[str, Any]]:
    """Evaluates the kept models of trials on the test part, as Ray tasks with a trial's resources.

    Returns:
        Per trial `accuracy`, `macro_f1` and `unimodal`.
    """
    options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": RETRIES}
    task = ray.remote(_read_test).options(**options)
    results = ray.get([task.remote(str(Path(run_dir).resolve()), i) for i in trial_ids])
    return dict(zip(trial_ids, results, strict=True))


def _read_test(run_dir: str, trial_id: str) -> dict[str, Any]:
    data = clips(str(Path(run_dir) / "data.json"))
    return figures_of(evaluate(weights_dir(Path(run_dir), trial_id), data, "test"))


class _Desk:
    """What searcher and scheduler share: the study, the source and which trials run."""

    def __init__(
        self, source: Source, study: Study, run_dir: Path, resources: Resources, checkpoint_seconds: float
    ) -> None:
        self.source = source
        self.study = study
        self.run_dir = run_dir
        self.resources = resources
        self.checkpoint_seconds = checkpoint_seconds
        self.running: dict[str, str] = {}
        self.again = study.unfinished()
        for record in study.records.values():
            if record.finished:
                tidy(run_dir, record.trial_id, record.state)
        study.journal.subscribe(TrialTable(run_dir, study.records))

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Ray pickles searcher and scheduler into a file that nobody reads."""
        return object, ()

    def next(self, ray_id: str) -> dict[str, Any] | str | None:
        """The configuration of the next trial."""
        if len(self.running) >= self.resources.slots():
            return None
        if self.again:
            return self._config(ray_id, self.again.pop(0))
        answer = self.source.next()
        if answer is Signal.FINISHED:
            return Searcher.FINISHED
        if answer is Signal.WAIT:
            if not self.running:
                raise RuntimeError("the source of trials waits although nothing runs")
            return None
        self.study.issue(answer)
        return self._config(ray_id, self.study.records[answer.trial_id])

    def _config(self, ray_id: str, record: TrialRecord) -> dict[str, Any]:
        self.running[ray_id] = record.trial_id
        return {
            "run": str(self.run_dir),
            "trial_id": record.trial_id,
            "stage": record.stage,
            "document": record.document,
            "device": self.resources.device,
            "resources": self.resources.bundle(),
            "checkpoint_seconds": self.checkpoint_seconds,
        }

    def take(self, trial_id: str, events: list[Event]) -> bool:
        """Passes a worker's events on to the study; says whether the trial is over."""
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
            else:
                self.tell(trial_id, "complete" if kind == "finished" else "failed", **fields)
        if record.finished:
            self._close(record)
        return record.finished

    def tell(self, trial_id: str, state: str, **fields: Any) -> None:
        """Ends a trial."""
        self._close(self.study.tell(trial_id, state, **fields))

    def _close(self, record: TrialRecord) -> None:
        tidy(self.run_dir, record.trial_id, record.state)
        self.source.told(record)


class _Searcher(Searcher):
    """The source, as Ray asks it. Its state is the journal: it saves and restores nothing."""

    def __init__(self, desk: _Desk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> Any:
        return self._desk.next(trial_id)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        ours = self._desk.running.pop(trial_id, None)
        if error and ours is not None and not self._desk.study.records[ours].finished:
            record = self._desk.study.records[ours]
            self._desk.tell(ours, "failed", reason=f"its worker was lost {record.retries} times; see the log")

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

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        over = self._desk.take(trial.config["trial_id"], result["events"])
        return TrialScheduler.STOP if over else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        trial_id = trial.config["trial_id"]
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        log = log_file(self._desk.run_dir, trial_id)
        log.parent.mkdir(exist_ok=True)
        with log.open("a") as file:
            file.write(text)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        self._desk.study.lost(trial_id, lines[1] if len(lines) > 1 else "the worker was lost")


class _Stopper(tune.Stopper):
    def __init__(self, asked: list[bool]) -> None:
        self._asked = asked

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return bool(self._asked)


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
