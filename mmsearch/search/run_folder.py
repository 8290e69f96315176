"""A run's folder: on a file system that every machine of the cluster sees, or in a bucket with copies where it is used.

In a bucket a run has the same names as in a folder, but for two. The journal is in objects of its own, see
:mod:`mmsearch.search.segments`. A folder of a trial (`weights`, a checkpoint) is one object, `NAME.tar`, so that it is
there whole or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mmsearch.data.places import Place, Seen, cache_folder, each
from mmsearch.errors import MMSearchError
from mmsearch.files import write_bytes
from mmsearch.search import segments
from mmsearch.search.journal import FILE, LOCK, locked
from mmsearch.search.segments import patiently


class Pace(NamedTuple):
    """How often a trial writes.

    Attributes:
        beat: seconds between two signs of life.
        checkpoint: how old its checkpoint may get, in seconds, before an epoch's end writes a new one.
    """

    beat: float
    checkpoint: float


IN_FOLDER, IN_BUCKET = Pace(1.0, 10.0), Pace(5.0, 120.0)
"""In a folder, and in a bucket, where every write takes a request."""

SWEEP = "sweep.json"
"""What a sweep was asked for."""

SCRATCH = ".ray"
"""Where Ray writes what nobody reads."""

_TAR = ".tar"
_OWN = (f"{segments.FOLDER}/", "claims/", f"{SCRATCH}/")


class RunFolder:
    """Where a run is, and where its files are on this machine.

    Names are relative to the run, with `/` between their parts. All that goes to a bucket or comes from it is tried a
    few times.

    Args:
        address: a path, or an address such as `s3://bucket/runs/mine`.
        user: who uses it: every user of a machine has a copy of its own of a run in a bucket.

    Attributes:
        address: the absolute path, or the address.
        said: as a person has written it.
        path: the folder on this machine: the run's own, or the copy.
        away: the bucket; None for a folder.

    Raises:
        MMSearchError: no such kind of place, or the address holds credentials.
    """

    def __init__(self, address: str | Path, user: str = "driver") -> None:
        place = Place(address)
        self.address, self.said = place.text, str(address)
        self.away = None if place.folder is not None else place
        self.path = place.folder or _copy_of(place, user)
        self._sent: dict[str, tuple[int, int]] = {}

    @classmethod
    def of(cls, run: RunFolder | str | Path) -> RunFolder:
        """The run at an address, or the run itself."""
        return run if isinstance(run, RunFolder) else cls(run)

    @property
    def pace(self) -> Pace:
        """How often a trial writes."""
        return IN_FOLDER if self.away is None else IN_BUCKET

    def exists(self, name: str) -> bool:
        """Whether the run has a file of that name.

        Raises:
            OSError: the bucket cannot be read.
        """
        return (self.path / name).is_file() if self.away is None else self.away.seen(name) is not None

    def trials(self) -> set[str]:
        """The trials that have files here or in the bucket.

        Raises:
            OSError: the bucket cannot be listed.
        """
        folder = self.path / "trials"
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return found | {name.split("/")[1] for name in (self.away.tree("trials") if self.away else ())}

    def state(self, name: str) -> object:
        """What changes with every event, and with a file of the run; None where the run cannot be seen just now."""
        with contextlib.suppress(OSError):
            if self.away is not None:
                return list(self.away.files(segments.FOLDER)), self.away.seen(name)
            found = [path.stat() for path in (self.path / FILE, self.path / name) if path.is_file()]
            return [(stat.st_size, stat.st_mtime_ns) for stat in found]
        return None

    def touch(self, name: str) -> None:
        """Leaves a sign of life; one that a bucket does not take is left out.

        Raises:
            OSError: the folder cannot be written to.
        """
        if self.away is None:
            (self.path / name).touch()
        else:
            with contextlib.suppress(OSError):
                self.away.write(name, b"")

    def touched(self, name: str) -> int:
        """When the last sign of life was left, in nanoseconds of the run's own clock; 0 where there is none."""
        with contextlib.suppress(OSError):
            if self.away is None:
                return (self.path / name).stat().st_mtime_ns
            seen = self.away.seen(name)
            return seen.time if seen else 0
        return 0

    def send(self, name: str) -> None:
        """Sends a file, or a folder as one object, from this machine's copy to the bucket; does nothing in a folder.

        Raises:
            StorageError: the bucket cannot be written to.
        """
        away, path = self.away, self.path / name
        if away is None:
            return
        if not path.is_dir():
            with path.open("rb") as file:
                patiently(lambda: away.copy(file, name), f"{away}: {name}")
            return
        with tempfile.TemporaryFile(dir=path.parent) as packed:
            _pack(path, packed)
            patiently(lambda: away.copy(packed, name + _TAR), f"{away}: {name}")

    def send_all(self) -> None:
        """Makes the driver's files in the bucket what they are here; does nothing in a folder.

        Raises:
            StorageError: the bucket cannot be written to.
        """
        away = self.away
        if away is None or not self.path.is_dir():
            return
        stats = {p.relative_to(self.path).as_posix(): p.stat() for p in self.path.rglob("*") if p.is_file()}
        here = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items() if drivers(name)}
        changed = [name for name in here if here[name] != self._sent.get(name)]
        each(self.send, changed)
        for name in self._sent.keys() - here.keys():
            patiently(functools.partial(away.delete, name), f"{away}: {name}")
        self._sent = here

    def fetch(self, name: str = "", only: Callable[[str], bool] = lambda name: True) -> set[str]:
        """Brings a folder of the run from the bucket; does nothing in a folder.

        What is here already with the bucket's own time is not brought again.

        Args:
            name: of the folder, or of a single file; everything by default.
            only: which of its files and packed folders, by name.

        Returns:
            The names of what is there.

        Raises:
            StorageError: the bucket cannot be read.
        """
        away = self.away
        found: dict[str, tuple[str, Seen]] = {}

        def bring() -> None:
            assert away is not None
            found.clear()
            one = away.seen(name) if name else None
            for file, seen in ({name: one} if one else away.tree(name)).items():
                known = file.removesuffix(_TAR)
                if not file.startswith(_OWN) and only(known):
                    found[known] = file, seen
            each(lambda item: self._bring(away, item[0], *item[1]), found.items())

        if away is not None:
            patiently(bring, f"{away}: {name or 'the run'}")
            stats = {n: (self.path / n).stat() for n in found if drivers(n)}
            self._sent |= {n: (stat.st_size, stat.st_mtime_ns) for n, stat in stats.items()}
        return set(found)

    def copy(self, only: Callable[[str], bool]) -> None:
        """Makes this machine's copy what the run is now, its journal too; does nothing in a folder.

        Args:
            only: which files and packed folders, by name; of the others nothing is changed.

        Raises:
            MMSearchError: no run is there, or its journal is damaged.
            StorageError: the bucket cannot be read.
        """
        if self.away is None:
            return
        there = self.fetch(only=only)
        for path in [p for p in self.path.rglob("*") if p.is_file()]:
            names = [p.as_posix() for p in (path.relative_to(self.path), *path.relative_to(self.path).parents)]
            if only(names[0]) and there.isdisjoint(names):
                path.unlink(missing_ok=True)
        journal = segments.read(self.away)
        if not journal and SWEEP not in there:
            raise MMSearchError(f"{self.address}: no run there (it has no {segments.FOLDER})")
        self.path.mkdir(parents=True, exist_ok=True)
        write_bytes(self.path / FILE, journal)

    def taken(self) -> RunFolder:
        """The run, to be gone on with: of one in a bucket this machine's copy is made what the run is now.

        Raises:
            MMSearchError: no run is there, or another process of this machine is running it.
            StorageError: the bucket cannot be read.
        """
        if self.away is not None:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path):
                self.copy(drivers)
        return self

    def begun(self) -> None:
        """Empties this machine's copy for a new run; does nothing in a folder.

        Raises:
            MMSearchError: another process of this machine is running it.
        """
        if self.away is not None and self.path.is_dir():
            with locked(self.path):
                shutil.rmtree(self.path, ignore_errors=True)

    def remove(self, name: str, keep: Collection[str] = ()) -> None:
        """Removes a folder of the run, here and in the bucket.

        Args:
            name: of the folder.
            keep: names of the files and folders in it that stay.

        Raises:
            StorageError: the bucket cannot be written to.
        """
        folder = self.path / name
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if path.name in keep:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        if self.away is not None:
            away = self.away
            patiently(lambda: _remove(away, name, keep), f"{away}: {name}")

    def _bring(self, away: Place, name: str, file: str, seen: Seen) -> None:
        path = self.path / name
        with contextlib.suppress(OSError):
            if path.stat().st_mtime_ns == seen.time:
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            fresh = Path(scratch) / path.name
            with away.open(file) as source:
                if file == name:
                    with fresh.open("wb") as sink:
                        shutil.copyfileobj(source, sink)
                else:
                    with tarfile.open(fileobj=source, mode="r|") as packed:
                        packed.extractall(fresh, filter="data")
            os.utime(fresh, ns=(seen.time, seen.time))
            if not fresh.is_dir():
                fresh.replace(path)
                return
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):  # another process of this machine was faster
                fresh.rename(path)


def _copy_of(place: Place, user: str) -> Path:
    """Where a user of this machine has its copy of a run in a bucket."""
    digest = hashlib.blake2b(place.text.encode(), digest_size=8).hexdigest()
    return cache_folder() / "runs" / digest / user / place.base.rpartition("/")[2]


def _pack(folder: Path, sink: BinaryIO) -> None:
    with tarfile.open(fileobj=sink, mode="w|") as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, path.name)


def _remove(away: Place, name: str, keep: Collection[str]) -> None:
    there = away.tree(name)
    left = [n for n in there if n[len(name) + 1 :].split("/")[0].removesuffix(_TAR) not in keep]
    if left and len(left) == len(there):
        away.remove(name)
    else:
        each(away.delete, left)


def drivers(name: str) -> bool:
    """Whether a file of a run is the driver's to write, and no trial's."""
    return not name.startswith(("trials/", ".")) and name not in (FILE, LOCK)


def without_checkpoints(name: str) -> bool:
    """All files of a run but those from which its trials go on."""
    return "/checkpoint/" not in name


def viewed(address: str | Path) -> Path:
    """A run to be looked at, as a folder of this machine: of one in a bucket a copy, without its models.

    Raises:
        MMSearchError: no run is there.
        StorageError: the bucket cannot be read.
    """
    folder = RunFolder(address, "view")
    folder.copy(lambda name: name.endswith("/select.json") or (drivers(name) and not name.endswith(".safetensors")))
    return folder.path


def near(address: str | Path) -> Path:
    """A model's folder on this machine; one in a bucket is copied.

    Raises:
        StorageError: the bucket cannot be read.
    """
    folder = RunFolder(address, "view")
    folder.fetch()
    return folder.path
