"""Shard files as this machine reads them: mapped where they lie, or fetched to the node's cache first.

A store elsewhere is read through `$MMSEARCH_CACHE/shards/<hash of its address>/`. However many processes of a node
ask for a file, it is fetched once: under a lock, to a temporary name, its checksum compared on arrival, then renamed.
`fetched.log` there gets a line for every fetch. The files of all stores together stay within a quota; what was asked
for longest ago goes first. A file that is mapped can be removed: whoever maps it keeps its bytes until he lets go.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from filelock import FileLock

from mmsearch.data.places import CHUNK, Place, each, said
from mmsearch.data.shards import DamagedError, Part, hasher, index_digest
from mmsearch.errors import MMSearchError

T = TypeVar("T")

SHARE = 0.9
"""Of the space that is free, the cache takes at most so much where `MMSEARCH_CACHE_GB` is not set."""

STALE = 60.0
"""Seconds without a new byte after which a fetch counts as dead."""

_WAIT = 0.1
_LOCKS = 64
_AHEAD = 128 << 10


class Files(Protocol):
    """How a store's files are read on this machine."""

    def index(self, file: str, size: int) -> bytes:
        """All bytes of a shard's index."""

    def map(self, part: Part) -> np.ndarray:
        """All bytes of a part, uint8, mapped read-only."""

    def warm(self, parts: Sequence[Part]) -> bool:
        """Brings the parts near, as many as there is room for; whether that were all."""


def files_of(place: Place) -> Files:
    """How the files of a place are read on this machine."""
    return LocalFiles(place.folder / "shards") if place.folder is not None else NodeCache(place)


class LocalFiles:
    """Files that are mapped where they lie.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mapped: dict[str, np.ndarray] = {}

    def index(self, file: str, size: int) -> bytes:
        """All bytes of a shard's index.

        Raises:
            OSError: it cannot be read.
        """
        return (self._folder / file).read_bytes()

    def map(self, part: Part) -> np.ndarray:
        """All bytes of a part, uint8, mapped read-only.

        Raises:
            DamagedError: the file is missing or too short.
        """
        array = self._mapped.get(part.file)
        if array is None:
            array = self._mapped[part.file] = _map(self._folder / part.file, part)
        return array

    def warm(self, parts: Sequence[Part]) -> bool:
        """Reads ahead from the first to the last, as much as memory holds: random reads are not cold then."""
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        for part in parts:
            room -= part.bytes
            if room < 0:
                break
            _read_ahead(self._folder / part.file)
        return True


class NodeCache:
    """The copies that this node has of the files of a place elsewhere.

    Args:
        place: the store's.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._folder = place, place.near
        self._mapped: dict[str, np.ndarray] = {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._error(f"cannot be written: {said(error)}") from None

    def _error(self, what: str) -> MMSearchError:
        return MMSearchError(
            f"{self._folder}: this machine's cache of {self._place} {what}; "
            "set MMSEARCH_CACHE to a folder with room, or MMSEARCH_CACHE_GB"
        )

    def index(self, file: str, size: int) -> bytes:
        """All bytes of a shard's index; once fetched it stays.

        Raises:
            OSError: it cannot be fetched.
            DamagedError: what arrives is not what was written.
        """
        return self._use(file, size, index_digest(file), Path.read_bytes)

    def map(self, part: Part) -> np.ndarray:
        """All bytes of a part, uint8, mapped read-only; fetched first where this node lacks it.

        Raises:
            DamagedError: what arrives, twice, is not what was written.
            MMSearchError: it cannot be fetched, or there is no room for it.
        """
        array = self._mapped.get(part.file)
        if array is None:
            array = self._mapped[part.file] = self._part(part, lambda path: _map(path, part))
        return array

    def warm(self, parts: Sequence[Part]) -> bool:
        """Fetches what this node lacks, the first parts where not all fit into the quota.

        Raises:
            DamagedError, MMSearchError: as :meth:`map`.
        """
        room = self._quota(sum(size for _, size, _ in self._held()))
        fits: list[Part] = []
        for part in parts:
            room -= part.bytes
            if room < 0:
                break
            fits.append(part)
        each(lambda part: self._part(part, _read_ahead), fits)
        return len(fits) == len(parts)

    def _part(self, part: Part, use: Callable[[Path], T]) -> T:
        try:
            return self._use(part.file, part.bytes, part.checksum, use)
        except FileNotFoundError:
            raise DamagedError(f"{part.file} is missing") from None
        except OSError as error:
            raise MMSearchError(f"{self._place}: {part.file} cannot be fetched: {said(error)}") from None

    def _use(self, file: str, size: int, checksum: str | None, use: Callable[[Path], T]) -> T:
        """What `use` makes of this node's copy; it is called while the copy is surely there."""
        found = self._found(file, size, use)
        if found:
            return found[0]
        with FileLock(self._folder / f".{zlib.crc32(file.encode()) % _LOCKS:02}.lock"):
            found = self._found(file, size, use)
            if found:
                return found[0]
            fresh = self._fetch(file, size, checksum)
            used = use(fresh)
            with contextlib.suppress(FileNotFoundError):
                fresh.replace(self._folder / file)
            return used

    def _found(self, file: str, size: int, use: Callable[[Path], T]) -> tuple[T] | None:
        path = self._folder / file
        try:
            if path.stat().st_size != size:
                return None
            now = time.time_ns()
            os.utime(path, ns=(now, now))
            return (use(path),)
        except (FileNotFoundError, DamagedError):
            return None

    def _fetch(self, file: str, size: int, checksum: str | None) -> Path:
        """A new copy under a temporary name; where something else arrives than was written, tries once more."""
        fresh = self._folder / f"{file}.part"
        try:
            for _ in range(2):
                self._make_room(fresh, size)
                arrived = self._download(file, fresh, hasher(checksum))
                if arrived[0] == size and checksum in (None, arrived[1]):
                    for gone in [name for name in list(self._mapped) if not (self._folder / name).exists()]:
                        self._mapped.pop(gone, None)
                    return fresh
            raise DamagedError(f"{file} is damaged")
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def _download(self, file: str, fresh: Path, arrived: Any) -> tuple[int, str]:
        size = 0
        with self._place.open(f"shards/{file}") as source, fresh.open("r+b") as target:
            while chunk := source.read(CHUNK):
                arrived.update(chunk)
                size += len(chunk)
                self._keep(target.write, chunk)
            self._keep(target.flush)
            self._keep(os.fsync, target.fileno())
        with (self._folder / "fetched.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.time():.3f} {os.getpid()} {file}\n")
        return size, arrived.hexdigest()

    def _keep(self, write: Callable[..., object], *args: object) -> None:
        try:
            write(*args)
        except OSError as error:
            raise self._error(f"cannot be written: {said(error)}") from None

    def _held(self) -> list[tuple[int, int, Path]]:
        """Every file of the cache, of all stores: when it was last asked for, its bytes, and where it is."""
        held = []
        for path in [*self._folder.parent.glob("*/*.bin"), *self._folder.parent.glob("*/*.part")]:
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                held.append((stat.st_mtime_ns, stat.st_size, path))
        return sorted(held)

    def _quota(self, held: int) -> int:
        given = os.environ.get("MMSEARCH_CACHE_GB")
        if given is None:
            return int(SHARE * (shutil.disk_usage(self._folder).free + held))
        try:
            return int(float(given) * 1e9)
        except (ValueError, OverflowError):
            raise MMSearchError(f"MMSEARCH_CACHE_GB is {given!r}; it must be a number of gigabytes") from None

    def _make_room(self, fresh: Path, size: int) -> None:
        """Makes an empty file of the size, after removing what was asked for longest ago until it fits."""
        while True:
            with FileLock(self._folder.parent / ".quota.lock"):
                files = [held for held in self._held() if held[2] != fresh]
                used = sum(n for _, n, _ in files)
                quota = self._quota(used)
                if size > quota:
                    raise self._error(f"may hold {quota / 1e9:.3g} GB, less than one file of {size / 1e9:.3g} GB")
                for asked, n, path in files:
                    if used + size <= quota:
                        break
                    if path.suffix != ".part" or time.time() - asked / 1e9 > STALE:
                        path.unlink(missing_ok=True)
                        used -= n
                if used + size <= quota:
                    with fresh.open("wb") as file:
                        self._keep(file.truncate, size)
                    return
            time.sleep(_WAIT)


def _map(path: Path, part: Part) -> np.ndarray:
    """The file closed again: a process may map more files than it may have open."""
    if not part.bytes:
        return np.zeros(0, np.uint8)
    try:
        with pa.memory_map(str(path)) as file:
            array = np.frombuffer(file.read_buffer(), np.uint8)
    except (OSError, ValueError):
        raise DamagedError(f"{part.file} is missing") from None
    if len(array) < part.bytes:
        raise DamagedError(f"{part.file} is cut short")
    return array


def _read_ahead(path: Path) -> None:
    """Asks the system to read a file into memory, in pieces since it cuts a longer wish short."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            for start in range(0, os.fstat(file.fileno()).st_size, _AHEAD):
                os.posix_fadvise(file.fileno(), start, _AHEAD, os.POSIX_FADV_WILLNEED)
