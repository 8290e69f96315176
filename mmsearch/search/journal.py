"""The journal: the only truth of a run, one JSON object a line, durable before it takes effect."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from mmsearch.data.places import Place
from mmsearch.errors import MMSearchError, StorageError
from mmsearch.files import write_bytes
from mmsearch.search.segments import Segments

FILE, LOCK = "journal.jsonl", "journal.lock"

Event = dict[str, Any]
"""A line: `event` (its kind), `time` (seconds since 1970) and what belongs to the kind."""


class Journal:
    """The events of a run, open for appending; a context manager.

    Opening replays what is there, cuts off a last line that a kill has torn, and appends `opened`, from which
    :func:`seconds_spent` knows the sessions of a run.

    Args:
        run_dir: the run's folder; None keeps the events in memory alone (the simulator, tests).
        away: where the run lies in a bucket: the journal is there, as in :mod:`mmsearch.search.segments`, and the file
            in `run_dir` a copy.

    Raises:
        MMSearchError: another process has the run open, or a line before the last is damaged.
        StorageError: the bucket cannot be reached.
    """

    def __init__(self, run_dir: Path | None, away: Place | None = None) -> None:
        self._watchers: list[Callable[[Event], None]] = []
        self._file: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._segments: Segments | None = None
        self._length = 0
        self._path: Path | None = None
        self._memory: list[Event] = []
        self._earlier = 0.0
        self._opened = time.time()
        if run_dir is not None:
            run_dir = Path(run_dir)
            self._path = run_dir / FILE
            run_dir.mkdir(parents=True, exist_ok=True)
            self._lock = locked(run_dir)
            if away is not None:
                self._segments = Segments(away)
                write_bytes(self._path, b"".join(self._segments.lines))
                self._segments.lines.clear()
            events, length = _read(self._path)
            self._earlier = seconds_spent(events)
            self._file = self._path.open("ab", buffering=0)
            self._file.truncate(length)
            self._length = length
            _sync_folder(run_dir)
        self.append({"event": "opened"})

    @property
    def events(self) -> list[Event]:
        """All, in order; those of a run are read back from its file, since a long one's would fill the memory."""
        return self._memory if self._path is None else _read(self._path)[0]

    def seconds(self) -> float:
        """Seconds of all sessions, the present one up to now."""
        return self._earlier + time.time() - self._opened

    def append(self, event: Mapping[str, Any]) -> None:
        """Writes an event through to the disk, then tells whoever subscribed. Numbers that JSON lacks become null.

        Raises:
            StorageError: the disk is full or gone; the file then ends with the event before.
        """
        line: Event = _plain({"event": event["event"], "time": time.time(), **event})
        if self._file is not None:
            text = json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
            if self._segments is not None:
                self._segments.append(text)
            self._write(self._file, text)
        else:
            self._memory.append(line)
        for watcher in self._watchers:
            watcher(line)

    def _write(self, file: IO[bytes], text: bytes) -> None:
        try:
            written = 0
            while written < len(text):
                written += file.write(text[written:])
            os.fsync(file.fileno())
        except OSError as e:
            with contextlib.suppress(OSError):
                file.truncate(self._length)
            raise StorageError(f"{file.name}: {(e.strerror or str(e)).lower()}") from e
        if os.fstat(file.fileno()).st_nlink == 0:
            raise StorageError(f"{file.name}: the file is gone")
        self._length += len(text)

    def subscribe(self, watcher: Callable[[Event], None]) -> None:
        """Calls `watcher` with every event appended from now on."""
        self._watchers.append(watcher)

    def unsubscribe(self, watcher: Callable[[Event], None]) -> None:
        """Calls it no more."""
        self._watchers.remove(watcher)

    def close(self) -> None:
        """Lets another process open the run."""
        for file in (self._file, self._lock):
            if file is not None:
                file.close()
        self._file = self._lock = None
        if self._segments is not None:
            self._segments.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_events(run_dir: Path) -> list[Event]:
    """The events of a run that may be running, for reading only.

    Raises:
        MMSearchError: no run is there, or its journal is damaged.
    """
    path = Path(run_dir) / FILE
    if not path.is_file():
        raise MMSearchError(f"{run_dir}: no run there (it has no {FILE})")
    return _read(path)[0]


def seconds_spent(events: list[Event]) -> float:
    """Seconds of all sessions of a run, from each `opened` to the last event before the next."""
    total, start, last = 0.0, None, 0.0
    for event in events:
        if event["event"] == "opened":
            total += last - start if start is not None else 0.0
            start = event["time"]
        last = event["time"]
    return total + (last - start if start is not None else 0.0)


def _read(path: Path) -> tuple[list[Event], int]:
    """The events, and how many bytes of the file are whole lines."""
    text = path.read_bytes() if path.exists() else b""
    lines = text.split(b"\n")
    events: list[Event] = []
    length = 0
    for number, line in enumerate(lines[:-1], 1):
        try:
            event = json.loads(line)
            event["event"], event["time"]
        except (ValueError, TypeError, KeyError):
            if number == len(lines) - 1 and not lines[-1]:
                break
            raise MMSearchError(f"{path}:{number}: not an event; the journal has been damaged") from None
        events.append(event)
        length += len(line) + 1
    return events, length


def locked(run_dir: Path) -> IO[bytes]:
    """The lock of a run's folder, let go when it is closed.

    Raises:
        MMSearchError: another process has it.
    """
    lock = (run_dir / LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise MMSearchError(f"{run_dir}: another process is running this run; stop it or wait for its end") from None
    return lock


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
