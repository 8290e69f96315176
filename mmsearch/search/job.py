"""A trial in a run's folder: begun or gone on with, one epoch at a time, without Ray."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from mmsearch.data.clips import ClipData
from mmsearch.errors import MMSearchError, StorageError
from mmsearch.files import storage_trouble, write_text
from mmsearch.search.journal import Event
from mmsearch.search.run_folder import RunFolder
from mmsearch.training import EpochResult, Evaluation, train


class Run(Protocol):
    """What a job needs of a training run; see :class:`mmsearch.training.Training`."""

    epoch: int
    ticks: int
    on_step: Callable[[], None]

    @property
    def least_at_once(self) -> int:
        """Clips that a forward pass of training must have."""
        ...

    def __next__(self) -> EpochResult: ...

    def save(self, path: Path) -> None:
        """Writes the state."""
        ...

    def restore(self, path: Path) -> None:
        """Goes on from a saved state."""
        ...

    def save_weights(self, path: Path) -> None:
        """Writes the final model."""
        ...

    def evaluate(self, part: str) -> Evaluation:
        """Evaluates the model as it is."""
        ...


OpenRun = Callable[[Mapping[str, Any], Path, Mapping[str, Path], str, int | None], Run]
"""Makes a training run of document, `data.json`, teachers, device and micro-batch."""


def training(
    document: Mapping[str, Any], data: Path, teachers: Mapping[str, Path], device: str, micro_batch: int | None
) -> Run:
    """The run of a document on the clips that `data` (a `data.json`) refers to."""
    return train(document, clips(str(data)), teachers=teachers, device=device, micro_batch=micro_batch)


@functools.lru_cache(maxsize=1)
def clips(path: str) -> ClipData:
    """The clips of a `data.json`, opened once a process and brought near."""
    data = ClipData.open(Path(path))
    data.warm()
    return data


def trial_dir(run_dir: Path, trial_id: str) -> Path:
    """Where a trial keeps its files."""
    return run_dir / "trials" / trial_id


def weights_dir(run_dir: Path, trial_id: str) -> Path:
    """The final model of a trial."""
    return trial_dir(run_dir, trial_id) / "weights"


def log_file(run_dir: Path, trial_id: str) -> Path:
    """Where the traceback of a failed trial goes."""
    return run_dir / "logs" / f"{trial_id}.log"


def heartbeat(trial_id: str) -> str:
    """The name of a file whose time of change is when the trial's worker last did something."""
    return f"trials/{trial_id}/heartbeat"


def tidy(run: RunFolder | Path, trial_id: str, *, keep: bool) -> None:
    """Removes what a finished trial needs no more: everything, or with `keep` all but its model and figures."""
    RunFolder.of(run).remove(f"trials/{trial_id}", keep={"weights", _SELECT} if keep else ())


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, of a GPU or of the processor, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(text in str(error) for text in ("can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED"))
    )


_CHECKPOINTS, _EPOCHS, _SELECT = "checkpoint", "epochs.jsonl", "select.json"


class Job:
    """Drives the training of one document inside a run's folder.

    Checkpoints are directories named after the epochs trained, rehearsals included, so that an older one goes only
    when the newer is whole; the results of every epoch that counts lie beside them, so that a driver that died before
    it heard of an epoch hears of it later.

    Args:
        run: the run's folder.
        trial_id: the trial.
        stage: of a `confirm` trial the figures on select are kept beside the model.
        document: resolved.
        device: `cpu`, `cuda`, …
        micro_batch: clips a forward pass; None for the whole batch. It is halved where that does not fit in memory.
        checkpoint_seconds: how old a checkpoint may get before an epoch's end writes a new one; None for the folder's
            own pace.
        open_run: makes the training run.
    """

    def __init__(
        self,
        run: RunFolder | Path,
        trial_id: str,
        stage: str,
        document: dict[str, Any],
        *,
        device: str = "auto",
        micro_batch: int | None = None,
        checkpoint_seconds: float | None = None,
        open_run: OpenRun = training,
    ) -> None:
        self.folder = RunFolder.of(run)
        self.run_dir = self.folder.path
        self.trial_id = trial_id
        self.stage = stage
        self.document = document
        self.device = device
        self.micro_batch = micro_batch
        self._every = self.folder.pace.checkpoint if checkpoint_seconds is None else checkpoint_seconds
        self._open_run = open_run
        self._run: Run | None = None
        self._over = False
        self._saved_ticks = 0
        self._saved_at = time.monotonic()
        self._beaten = 0.0
        self._name = f"trials/{trial_id}"
        self._dir = trial_dir(self.run_dir, trial_id)

    def step(self) -> list[Event]:
        """Opens the run (first call, or after `halved`) or trains one epoch.

        Returns:
            Events for the journal: `started` and the epochs already done; then `epoch`, `checkpointed` and last
            `finished` (with the figures on select), `failed` (with the reason; the traceback is in the log) or
            `storage` (the trial can go on once the reason is mended). In between `halved`: the batch did not fit in
            memory and the trial goes on from its checkpoint with half the micro-batch.
        """
        try:
            return list(self._start() if self._run is None else self._epoch(self._run))
        except Exception as error:
            return [self._trouble(error)]

    def close(self) -> None:
        """Keeps what has been done since the last checkpoint, where the trial still runs."""
        run = self._run
        with contextlib.suppress(OSError, MMSearchError):
            if run is not None and not self._over and run.ticks > self._saved_ticks and self._wanted():
                self._save(run)
        self.leave()

    def leave(self) -> None:
        """Ends what the training has started, and removes this machine's copy of the trial's files of a bucket."""
        self._end()
        if self.folder.away is not None:
            shutil.rmtree(self._dir, ignore_errors=True)

    def _end(self) -> None:
        """Ends the processes that train with this one, where there are any."""
        run, self._run = self._run, None
        close = getattr(run, "close", None)
        if close is not None:
            close()

    def _wanted(self) -> bool:
        """Whether the trial has not been told and tidied meanwhile."""
        return self.folder.exists(f"{self._name}/{_EPOCHS}")

    def _trouble(self, error: Exception) -> Event:
        too_large = self._run if out_of_memory(error) else None
        reason = str(error) if isinstance(error, MMSearchError) else f"{type(error).__name__}: {error}"
        try:
            storage = str(error) if isinstance(error, StorageError) else storage_trouble(error, self.run_dir)
            self._log()
        except (OSError, StorageError) as second:
            storage = storage_trouble(second, self.run_dir) or str(second)
        if storage is not None:
            self._over = True
            return {"event": "storage", "reason": storage}
        if too_large is not None:
            self._end()
            size, least = self.micro_batch or self.document["batch_size"], too_large.least_at_once
            if size > least:
                self.micro_batch = max(least, -(-size // 2))
                return {"event": "halved", "micro_batch": self.micro_batch, "reason": reason}
            reason = f"even a micro-batch of {size} does not fit in memory ({reason})"
        self._over = True
        return {"event": "failed", "reason": reason}

    def _log(self) -> None:
        log = log_file(self.run_dir, self.trial_id)
        log.parent.mkdir(exist_ok=True)
        with log.open("a") as file:
            traceback.print_exc(file=file)
        self.folder.send(f"logs/{self.trial_id}.log")

    def _beat(self) -> None:
        if time.monotonic() - self._beaten >= self.folder.pace.beat:
            self.folder.touch(heartbeat(self.trial_id))
            self._beaten = time.monotonic()

    def _start(self) -> Iterator[Event]:
        self.leave()
        self.folder.fetch("data.json")
        if not self.run_dir.is_dir():
            raise FileNotFoundError(self.run_dir)
        self._dir.mkdir(parents=True, exist_ok=True)
        self._beat()
        self.folder.fetch(self._name, only=lambda name: name != heartbeat(self.trial_id))
        if self.micro_batch is not None:
            gc.collect()
            torch.cuda.empty_cache()
        run = self._open_run(self.document, self.run_dir / "data.json", self._teachers(), self.device, self.micro_batch)
        run.on_step = self._beat
        for newest in sorted(self._checkpoints(), reverse=True)[:1]:
            run.restore(self._dir / _CHECKPOINTS / str(newest))
        self._saved_ticks = run.ticks
        self._run = run
        done = [e for e in self._past() if e["epoch"] <= run.epoch]
        write_text(self._dir / _EPOCHS, "".join(json.dumps(e) + "\n" for e in done))
        self.folder.send(f"{self._name}/{_EPOCHS}")
        yield {"event": "started", "epoch": run.epoch}
        yield from done

    def _epoch(self, run: Run) -> Iterator[Event]:
        result = next(run)
        event = {
            "event": "epoch",
            "epoch": result.epoch,
            "epochs": result.epochs,
            "score": float(result.score),
            "metrics": {k: float(v) for k, v in result.metrics.items()},
            "cost_joint_epochs": float(result.cost_joint_epochs),
            "seconds": float(result.seconds),
        }
        if not result.rehearsal:
            with (self._dir / _EPOCHS).open("a") as file:
                file.write(json.dumps(event) + "\n")
            yield event
        self._beat()
        if result.final:
            yield {"event": "finished", "select": self._keep(run)}
            self._over = True
        elif time.monotonic() - self._saved_at >= self._every:
            self._save(run)
            yield {"event": "checkpointed", "epoch": run.epoch}

    def _teachers(self) -> dict[str, Path]:
        folders = {u: weights_dir(self.run_dir, t) for u, t in self.document["teachers"].items()}
        for trial_id in self.document["teachers"].values():
            self.folder.fetch(f"trials/{trial_id}", only=lambda name: name.endswith("/weights"))
        for u, folder in folders.items():
            if not folder.is_dir():
                raise MMSearchError(f"the teacher of {u} (trial {folder.parent.name}) has left no model; it failed")
        return folders

    def _checkpoints(self) -> list[int]:
        folder = self._dir / _CHECKPOINTS
        return [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []

    def _save(self, run: Run) -> None:
        fresh, final = self._dir / _CHECKPOINTS / "fresh", self._dir / _CHECKPOINTS / str(run.ticks)
        run.save(fresh)
        _through(self._dir / _EPOCHS)
        shutil.rmtree(final, ignore_errors=True)
        fresh.rename(final)
        self.folder.send(f"{self._name}/{_EPOCHS}")
        self.folder.send(f"{self._name}/{_CHECKPOINTS}/{run.ticks}")
        self.folder.remove(f"{self._name}/{_CHECKPOINTS}", keep={str(run.ticks)})
        self._saved_ticks, self._saved_at = run.ticks, time.monotonic()

    def _past(self) -> Iterator[Event]:
        path = self._dir / _EPOCHS
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                yield json.loads(line)
            except ValueError:
                return

    def _keep(self, run: Run) -> dict[str, Any] | None:
        run.save_weights(self._dir / "weights")
        self.folder.send(f"{self._name}/weights")
        if self.stage != "confirm":
            return None
        select = run.evaluate("select")
        right = select.probabilities.argmax(1) == select.label
        figures = {**figures_of(select), "right": np.packbits(right[np.argsort(select.index)]).tobytes().hex()}
        rows = range(len(select.label))
        clip_wise = {
            "index": [int(i) for i in select.index],
            "label": [int(y) for y in select.label],
            "predicted": [int(p) for p in select.probabilities.argmax(1)],
            "p_true": [round(float(select.probabilities[i, select.label[i]]), 6) for i in rows],
        }
        write_text(self._dir / _SELECT, json.dumps({**figures, **clip_wise}))
        self.folder.send(f"{self._name}/{_SELECT}")
        return figures


def _through(path: Path) -> None:
    """Waits until the disk has a file, where there is one."""
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def figures_of(evaluation: Evaluation) -> dict[str, Any]:
    """Accuracy, macro F1 and accuracy by modality, as JSON."""
    return {
        "accuracy": float(evaluation.accuracy),
        "macro_f1": float(evaluation.macro_f1),
        "unimodal": {u: float(a) for u, a in evaluation.unimodal.items()},
    }
