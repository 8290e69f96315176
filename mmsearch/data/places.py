"""Where a store or a run lies: a folder, or a prefix in a bucket, through pyarrow's file systems.

Files are written whole, one name at a time; whoever lists a place sees a file with all its bytes or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeVar

from mmsearch.errors import MMSearchError

if TYPE_CHECKING:
    from pyarrow import fs

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 8 << 20
"""Bytes that are copied at a time; of a bucket, by one request."""

THREADS = 16
"""Files that are read, fetched or deleted at a time."""

_SECRET = re.compile(r"(key|secret|token|password|sas|signature|credential)", re.IGNORECASE)


class Seen(NamedTuple):
    """A file as a listing shows it: its bytes, and when it was written in nanoseconds of the place's own clock."""

    size: int
    time: int


def cache_folder() -> Path:
    """What this machine keeps for mmsearch: `$MMSEARCH_CACHE`, else `~/.cache/mmsearch`."""
    cache = os.environ.get("MMSEARCH_CACHE")
    return Path(cache) if cache else Path.home() / ".cache" / "mmsearch"


def each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results of `work` on all items, by a few threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


def said(error: BaseException) -> str:
    """The first line of an error, as a person reads it."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")


class Place:
    """A folder, or what lies below an address such as `s3://bucket/prefix`.

    Args:
        address: a path, or an address that `pyarrow.fs` understands: `s3://bucket/prefix?region=...`, `gs://...`,
            `abfs://...`, `hdfs://...`, `file://...`; `endpoint_override=http://host:port` names another S3 service.

    Attributes:
        text: the absolute path, or the address; free of credentials, so fit for files and messages.
        folder: the folder where it is on this machine's file system, else None.
        near: a folder of this machine for what belongs to the place: the folder itself, or the node's cache of it.
        base: the place as its file system knows it, without a `/` at the end.

    Raises:
        MMSearchError: no such kind of place, or the address holds credentials.
    """

    def __init__(self, address: str | Path) -> None:
        self.folder: Path | None = None
        text = str(address)
        scheme = text.split("://")[0] if "://" in text else ""
        if scheme in ("", "file"):
            self.folder = Path(text.removeprefix("file://")).absolute()
            self.text, self.near = str(self.folder), self.folder
            self.base = self.text
            return
        self.text = text
        self._connect(scheme)
        self.near = cache_folder() / "shards" / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def _connect(self, scheme: str) -> None:
        from pyarrow import fs

        names = [pair.split("=")[0] for pair in self.text.partition("?")[2].split("&")]
        secret = next((name for name in names if _SECRET.search(name)), None)
        if "@" in self.text or secret:
            what = f"the parameter {secret!r}" if secret else "what stands before the @"
            raise MMSearchError(
                f"{scheme}://...: credentials do not belong in an address ({what}); "
                "leave them to the environment (AWS_ACCESS_KEY_ID and so on) or to the machine's role"
            )
        try:
            self.filesystem, self.base = fs.FileSystem.from_uri(self.text)
        except (ValueError, OSError) as error:
            raise MMSearchError(f"{self.text}: no place for files: {said(error)}") from None
        self.base = self.base.rstrip("/")
        if not self.base:
            raise MMSearchError(f"{self.text}: no place for files: it names no bucket or folder")

    def __str__(self) -> str:
        return self.text

    @functools.cached_property
    def filesystem(self) -> fs.FileSystem:
        """As pyarrow has it."""
        from pyarrow import fs

        return fs.LocalFileSystem() if self.folder is not None else fs.FileSystem.from_uri(self.text)[0]

    def _at(self, name: str) -> str:
        return f"{self.base}/{name}"

    def files(self, folder: str) -> dict[str, Seen]:
        """The files of one of its folders by name, hidden ones left out; none where the folder is not there.

        Raises:
            OSError: it cannot be listed.
        """
        found: dict[str, Seen] = {}
        if self.folder is not None:
            with contextlib.suppress(FileNotFoundError), os.scandir(self.folder / folder) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        if not entry.name.startswith(".") and entry.is_file():
                            stat = entry.stat()
                            found[entry.name] = Seen(stat.st_size, stat.st_mtime_ns)
            return found
        from pyarrow import fs

        for info in self.filesystem.get_file_info(fs.FileSelector(self._at(folder), allow_not_found=True)):
            if info.type == fs.FileType.File and not info.base_name.startswith("."):
                found[info.base_name] = Seen(info.size, info.mtime_ns or 0)
        return found

    def tree(self, folder: str = "") -> dict[str, Seen]:
        """All files below one of its folders, by name from the place on; none where the folder is not there.

        Raises:
            OSError: it cannot be listed.
        """
        from pyarrow import fs

        selector = fs.FileSelector(self._at(folder).rstrip("/"), recursive=True, allow_not_found=True)
        return {
            info.path[len(self.base) + 1 :]: Seen(info.size, info.mtime_ns or 0)
            for info in self.filesystem.get_file_info(selector)
            if info.type == fs.FileType.File
        }

    def seen(self, name: str) -> Seen | None:
        """A file as a listing shows it; None where it is not there.

        Raises:
            OSError: the place cannot be read.
        """
        from pyarrow import fs

        info = self.filesystem.get_file_info(self._at(name))
        return Seen(info.size, info.mtime_ns or 0) if info.type == fs.FileType.File else None

    def remove(self, folder: str) -> None:
        """Removes one of its folders and all that is in it; one that is gone already is no error.

        Raises:
            OSError: it cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self._at(folder))

    def open(self, name: str) -> BinaryIO:
        """A file for reading from beginning to end.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        if self.folder is not None:
            return (self.folder / name).open("rb")
        return self.filesystem.open_input_stream(self._at(name))

    def read(self, name: str) -> bytes:
        """All of a file.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        with self.open(name) as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file whole; an older one of that name is replaced in one step.

        Raises:
            OSError: it cannot be written.
        """
        if self.folder is None:
            self._upload(name, lambda sink: sink.write(data))
            return
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)

    def staging(self) -> Path:
        """A folder of this machine for files that :meth:`put` takes; made where it is missing.

        Raises:
            OSError: it cannot be made.
        """
        path = self.near if self.folder is None else self.folder / "shards"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, name: str, path: Path) -> None:
        """Moves a finished file out of :meth:`staging` to its name.

        Raises:
            OSError: it cannot be written.
        """
        if self.folder is not None:
            path.replace(self.folder / name)
            return
        with path.open("rb") as file:
            self.copy(file, name)
        path.unlink()

    def copy(self, file: BinaryIO, name: str) -> None:
        """Copies a file of this machine to a name; for a place elsewhere.

        Raises:
            OSError: it cannot be written.
        """
        file.seek(0)
        self._upload(name, lambda sink: shutil.copyfileobj(file, sink, CHUNK))

    def _upload(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        if self.filesystem.type_name in ("s3", "gcs", "abfs"):
            with self.filesystem.open_output_stream(self._at(name)) as sink:
                fill(sink)
            return
        head, _, tail = self._at(name).rpartition("/")
        self.filesystem.create_dir(head)
        fresh = f"{head}/.{tail}.{uuid.uuid4().hex}.tmp"
        with self.filesystem.open_output_stream(fresh) as sink:
            fill(sink)
        self.filesystem.move(fresh, f"{head}/{tail}")

    def delete(self, name: str) -> None:
        """Removes a file; one that is gone already is no error.

        Raises:
            OSError: it cannot be removed.
        """
        with contextlib.suppress(FileNotFoundError):
            if self.folder is not None:
                (self.folder / name).unlink()
            else:
                self.filesystem.delete_file(self._at(name))

    def now(self) -> int:
        """The time by the place's own clock, in nanoseconds; found by writing a small file.

        Raises:
            OSError: the place cannot be written to.
        """
        name = f"probe-{uuid.uuid4().hex}"
        try:
            self.write(f"claims/{name}", b"\0" * 4096)
            return self.files("claims")[name].time
        finally:
            with contextlib.suppress(OSError):
                self.delete(f"claims/{name}")


def beside(address: str) -> tuple[Place, str]:
    """Where the file of an address lies, and its name there.

    Raises:
        MMSearchError: see :class:`Place`.
    """
    path, mark, query = address.partition("?")
    folder, _, name = path.rpartition("/")
    return Place(folder + mark + query), name
