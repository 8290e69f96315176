"""The clip store: decoded clips in memory-mapped shards, one entry a clip. Needs numpy and pyarrow only.

On disk, below the store's folder:

* `shards/<shard>.<modality>.bin`: the arrays of one modality, little-endian, one after the other;
* `shards/<shard>.arrow`: per clip its key, why it was set aside (or null), and per modality offset and shape.
  It is written last and renamed into place, so a killed decode loses the shard under way and nothing else;
* `hashes.jsonl`: content hashes of source files by path, size and time, so that nothing is read twice.

Shard names are unique: any number of processes may add to one store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmsearch.errors import MMSearchError

ORPHAN_AGE = 24 * 3600.0
"""Seconds after which a file that no finished shard names is taken for the rest of a killed decode."""


def default_store() -> Path:
    """The store of this machine's user: `store` below `$MMSEARCH_CACHE`, else below `~/.cache/mmsearch`."""
    cache = os.environ.get("MMSEARCH_CACHE")
    return (Path(cache) if cache else Path.home() / ".cache" / "mmsearch") / "store"


def clip_key(*parts: Any) -> str:
    """The identity of a decoded clip: a hash of content, segment and decode settings, as 32 hex digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclasses.dataclass
class _Shard:
    path: Path
    dtype: dict[str, np.dtype]
    offset: dict[str, np.ndarray]
    shape: dict[str, np.ndarray]
    bytes: dict[str, int]
    mapped: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def map(self, modality: str) -> np.ndarray:
        if modality not in self.mapped:
            path = self.path.with_name(f"{self.path.stem}.{modality}.bin")
            try:
                array = np.asarray(np.memmap(path, np.uint8, "r"))
            except (OSError, ValueError):
                array = np.zeros(0, np.uint8)
            if array.size < self.bytes[modality]:
                raise MMSearchError(f"{path}: missing or damaged; delete {self.path.name} beside it and prepare again")
            self.mapped[modality] = array
        return self.mapped[modality]


class Column:
    """One modality of a list of clips.

    Attributes:
        present: bool `[N]`.
        shape: int64 `[N, axes]`; zeros where absent.
    """

    def __init__(self, shards: list[_Shard], modality: str, places: Sequence[tuple[int, int]]) -> None:
        self._modality = modality
        self._shards = shards
        self._shard = np.array([s for s, _ in places], np.int64)
        self._offset = np.full(len(places), -1, np.int64)
        row = np.array([r for _, r in places], np.int64)
        used = [s for s in np.unique(self._shard) if modality in shards[s].dtype]
        axes = max((shards[s].shape[modality].shape[1] for s in used), default=1)
        self.shape = np.zeros((len(places), axes), np.int64)
        for s in used:
            here = np.flatnonzero(self._shard == s)
            self._offset[here] = shards[s].offset[modality][row[here]]
            self.shape[here] = shards[s].shape[modality][row[here]]
        self.present = self._offset >= 0

    def read(self, i: int) -> np.ndarray:
        """The array of clip `i`, which must be present; a read-only view of the file."""
        shard = self._shards[self._shard[i]]
        dtype, shape, offset = shard.dtype[self._modality], self.shape[i], int(self._offset[i])
        size = int(shape.prod()) * dtype.itemsize
        return shard.map(self._modality)[offset : offset + size].view(dtype).reshape(shape)


class Store:
    """The finished shards of a store's folder, as they were when it was opened.

    Attributes:
        folder: where it lies.
        decodes: how many clips were ever decoded into it, those set aside included.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.decodes = 0
        self._shards: list[_Shard] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._reasons: dict[str, str] = {}

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Reads the shard indexes; a folder that is not there is an empty store.

        Raises:
            MMSearchError: a shard index is damaged or cannot be read.
        """
        store = cls(Path(folder))
        for path in sorted((store.folder / "shards").glob("[!.]*.arrow")):
            try:
                with pa.OSFile(str(path)) as file:
                    store._add(path, pa.ipc.open_file(file).read_all())
            except (pa.ArrowException, OSError, KeyError, ValueError) as error:
                raise MMSearchError(f"{path}: not a readable shard ({error}); delete it and prepare again") from None
        return store

    def _add(self, path: Path, table: pa.Table) -> None:
        meta = json.loads(table.schema.metadata[b"modalities"])
        shard = _Shard(path, {}, {}, {}, {})
        for name, layout in meta.items():
            shard.dtype[name] = np.dtype(layout["dtype"])
            shard.bytes[name] = layout["bytes"]
            shard.offset[name] = table[f"{name}.offset"].to_numpy()
            flat = table[f"{name}.shape"].combine_chunks().flatten().to_numpy()
            shard.shape[name] = flat.reshape(table.num_rows, layout["axes"])
        number = len(self._shards)
        self._shards.append(shard)
        self.decodes += table.num_rows
        for row, (key, reason) in enumerate(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True)):
            if reason is None:
                self._places[key] = (number, row)
            else:
                self._reasons[key] = reason

    def __contains__(self, key: object) -> bool:
        return key in self._places or key in self._reasons

    def __len__(self) -> int:
        return len(self._places)

    def reason(self, key: str) -> str | None:
        """Why the clip was set aside; None for a clip that was stored or is unknown."""
        return None if key in self._places else self._reasons.get(key)

    def read(self, key: str, modality: str) -> np.ndarray | None:
        """One modality of one clip as a read-only view, None where the clip lacks it.

        Raises:
            MMSearchError: the clip is not stored.
        """
        column = self.column([key], modality)
        return column.read(0) if column.present[0] else None

    def column(self, keys: Sequence[str], modality: str) -> Column:
        """One modality of many clips, located once and read often.

        Raises:
            MMSearchError: a clip is not stored.
        """
        missing = [key for key in keys if key not in self._places]
        if missing:
            raise MMSearchError(
                f"{self.folder}: {len(missing)} of {len(keys)} clips are not in this store; prepare the dataset again"
            )
        return Column(self._shards, modality, [self._places[key] for key in keys])


class ShardWriter:
    """Writes one shard: :meth:`add` clips, then :meth:`commit`. Used as a context; what is not committed vanishes.

    Args:
        folder: the store's folder.
        layouts: per modality dtype and number of axes.
    """

    def __init__(self, folder: Path, layouts: Mapping[str, tuple[str, int]]) -> None:
        self._layouts = dict(layouts)
        self._name = uuid.uuid4().hex
        self._shards = folder / "shards"
        self._shards.mkdir(parents=True, exist_ok=True)
        self._keys: list[str] = []
        self._reasons: list[str | None] = []
        self._offset: dict[str, list[int]] = {m: [] for m in layouts}
        self._shape: dict[str, list[Sequence[int]]] = {m: [] for m in layouts}
        self._files = {m: self._bin(m).open("wb") for m in layouts}

    def _bin(self, modality: str) -> Path:
        return self._shards / f"{self._name}.{modality}.bin"

    def add(self, key: str, arrays: Mapping[str, np.ndarray], reason: str | None = None) -> None:
        """One clip; a modality that is not in `arrays` is absent. With a reason: a clip set aside."""
        self._keys.append(key)
        self._reasons.append(reason)
        for name, (dtype, axes) in self._layouts.items():
            array = arrays.get(name)
            self._offset[name].append(-1 if array is None else self._files[name].tell())
            self._shape[name].append((0,) * axes if array is None else array.shape)
            if array is not None:
                self._files[name].write(np.ascontiguousarray(array, dtype).data)

    def commit(self) -> None:
        """Makes the shard visible, all of it or nothing."""
        modalities = {}
        columns: dict[str, pa.Array] = {
            "key": pa.array(self._keys, pa.string()),
            "reason": pa.array(self._reasons, pa.string()),
        }
        for name, (dtype, axes) in self._layouts.items():
            file = self._files[name]
            file.flush()
            os.fsync(file.fileno())
            modalities[name] = {"dtype": dtype, "axes": axes, "bytes": file.tell()}
            file.close()
            flat = np.array(self._shape[name], np.int64).reshape(-1)
            columns[f"{name}.offset"] = pa.array(self._offset[name], pa.int64())
            columns[f"{name}.shape"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), axes)
        table = pa.table(columns).replace_schema_metadata({"modalities": json.dumps(modalities)})
        temporary = self._shards / f".{self._name}.arrow"
        with temporary.open("wb") as file:
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._shards / f"{self._name}.arrow")
        self._files = {}

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        for name, file in self._files.items():
            with contextlib.suppress(OSError):
                file.close()
            self._bin(name).unlink(missing_ok=True)
        if self._files:
            (self._shards / f".{self._name}.arrow").unlink(missing_ok=True)


def remove_orphans(folder: Path, age: float = ORPHAN_AGE) -> int:
    """Deletes what killed decodes left behind longer than `age` seconds ago; returns how many files."""
    shards = folder / "shards"
    finished = {path.stem for path in shards.glob("[!.]*.arrow")}
    removed = 0
    for path in [*shards.glob("*.bin"), *shards.glob(".*.arrow")]:
        name = path.name.removeprefix(".").split(".")[0]
        with contextlib.suppress(OSError):
            if name not in finished and time.time() - path.stat().st_mtime > age:
                path.unlink()
                removed += 1
    return removed


def content_hashes(folder: Path, paths: Iterable[Path]) -> dict[Path, str | OSError]:
    """The content hash of every file, links followed; what cannot be read has its error instead.

    A file whose path, size and time are as before is not read again.
    """
    memory = folder / "hashes.jsonl"
    known: dict[tuple[str, int, int], str] = {}
    with contextlib.suppress(FileNotFoundError), memory.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, TypeError):
                path, size, mtime, digest = json.loads(line)
                known[path, size, mtime] = digest

    def look(path: Path) -> tuple[Path, str | OSError, list[Any] | None]:
        try:
            stat = path.stat()
            place = (str(path), stat.st_size, stat.st_mtime_ns)
            if place in known:
                return path, known[place], None
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            return path, digest, [*place, digest]
        except OSError as error:
            return path, error, None

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        looked = list(pool.map(look, dict.fromkeys(paths)))
    fresh = "".join(json.dumps(line) + "\n" for _, _, line in looked if line)
    if fresh:
        with memory.open("a", encoding="utf-8") as file:
            file.write(fresh)
    return {path: digest for path, digest, _ in looked}
