"""The clip store: decoded clips in shards, one entry a clip. Needs numpy and pyarrow only.

Below the store's place, a folder or the address of one elsewhere:

* `shards/`: see :mod:`mmsearch.data.shards`;
* `claims/`: which process is decoding what, see :mod:`mmsearch.data.claims`;
* `hashes.jsonl`: content hashes of source files by path, size and time, so that nothing is read twice. Of a store
  elsewhere it lies in this machine's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.data.cache import files_of
from mmsearch.data.places import Place, cache_folder, each, said
from mmsearch.data.shards import DamagedError, Part, Shard, ShardWriter, hasher, read_index
from mmsearch.errors import MMSearchError

__all__ = ["Column", "ShardWriter", "Store", "clip_key", "content_hashes", "default_store"]


def default_store() -> str | Path:
    """The store of this machine's user: `$MMSEARCH_STORE` (a folder or an address), else `store` below the cache."""
    return os.environ.get("MMSEARCH_STORE") or cache_folder() / "store"


def clip_key(*parts: Any) -> str:
    """The identity of a decoded clip: a hash of content, segment and decode settings, as 32 hex digits."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Column:
    """One modality of a list of clips.

    Attributes:
        present: bool `[N]`.
        shape: int64 `[N, axes]`; zeros where absent.
        shard_of: int64 `[N]`, the number of every clip's shard; the same in all columns of one store.
    """

    def __init__(self, store: Store, modality: str, places: Sequence[tuple[int, int]]) -> None:
        self._store, self._modality = store, modality
        self.shard_of, self._row = np.array(places, np.int64).reshape(-1, 2).T
        parts = {s: store.shards[s].parts.get(modality) for s in np.unique(self.shard_of).tolist()}
        self._parts: dict[int, Part] = {s: part for s, part in parts.items() if part}
        axes = max((part.shape.shape[1] for part in self._parts.values()), default=1)
        self.present = np.zeros(len(places), bool)
        self.shape = np.zeros((len(places), axes), np.int64)
        for s, part in self._parts.items():
            here = np.flatnonzero(self.shard_of == s)
            self.present[here] = part.offset[self._row[here]] >= 0
            self.shape[here] = part.shape[self._row[here]]

    def read(self, i: int) -> np.ndarray:
        """The array of clip `i`, which must be present; with the codec raw a read-only view of the file.

        Raises:
            MMSearchError: its bytes cannot be had, or are not what was written.
        """
        part = self._parts[self.shard_of[i]]
        try:
            return part.read(self._store.files.map(part), self._row[i])
        except DamagedError as error:
            raise self._store.mistake(error) from None

    def take(self, i: int, picks: Sequence[int] | np.ndarray) -> np.ndarray:
        """As :meth:`read`, but only these positions of the first axis; of JPEG no other frame is decoded."""
        part = self._parts[self.shard_of[i]]
        try:
            return part.take(self._store.files.map(part), self._row[i], picks)
        except DamagedError as error:
            raise self._store.mistake(error) from None

    def warm(self, rows: Sequence[int] | np.ndarray | None = None) -> bool:
        """Brings the shards of these rows (of all) near, in this order; as :meth:`Store.warm`."""
        shards = self.shard_of if rows is None else self.shard_of[np.asarray(rows, np.int64)]
        return self._store.fetch(self._parts[s] for s in dict.fromkeys(shards.tolist()) if s in self._parts)


class Store:
    """The finished shards of a store, as they were when it was opened or last refreshed.

    Attributes:
        place: where it lies.
        files: how its files are read on this machine.
        shards: those that can be used; the numbers of :attr:`Column.shard_of` count them.
        damaged: per index of a shard that cannot be used the reason; its clips count as not stored.
        decodes: how many clips were ever decoded into it, those set aside included.
    """

    def __init__(self, place: str | Path | Place) -> None:
        self.place = place if isinstance(place, Place) else Place(place)
        self.files = files_of(self.place)
        self.shards: list[Shard] = []
        self.damaged: dict[str, str] = {}
        self.decodes = 0
        self._known: set[str] = set()
        self._places: dict[str, tuple[int, int]] = {}
        self._reasons: dict[str, tuple[str, int]] = {}

    @classmethod
    def open(cls, place: str | Path | Place) -> Store:
        """Reads the shard indexes; a place where nothing is yet is an empty store.

        Raises:
            MMSearchError: the place cannot be read, or a newer mmsearch wrote to it.
        """
        store = cls(place)
        store.refresh()
        return store

    def refresh(self) -> None:
        """Reads the indexes of shards that were added since.

        Raises:
            MMSearchError: as :meth:`open`.
        """
        try:
            seen = self.place.files("shards")
            new = [file for file in sorted(seen) if file.endswith(".arrow") and file not in self._known]
            read = dict(zip(new, each(lambda file: self._read(file, seen[file].size), new), strict=True))
            if any(shard.missing(seen) for shard in read.values() if isinstance(shard, Shard)):
                seen = self.place.files("shards")  # it was being written while it was listed
        except OSError as error:
            raise MMSearchError(f"{self.place}: the clip store cannot be read: {said(error)}") from None
        for file, shard in read.items():
            self._known.add(file)
            if isinstance(shard, DamagedError):
                self.damaged[file] = str(shard)
                continue
            if shard is None:
                continue
            self.decodes += len(shard.keys)
            missing = shard.missing(seen)
            if missing:
                self.damaged[file] = missing
            else:
                self._add(shard)

    def _read(self, file: str, size: int) -> Shard | DamagedError | None:
        """A shard; None where it was removed meanwhile."""
        try:
            return read_index(file, self.files.index(file, size))
        except FileNotFoundError:
            return None
        except DamagedError as error:
            return error
        except MMSearchError as error:
            raise MMSearchError(f"{self.place}: {error}") from None

    def _add(self, shard: Shard) -> None:
        for row, (key, reason) in enumerate(zip(shard.keys, shard.reasons, strict=True)):
            if reason is None:
                self._places[key] = (len(self.shards), row)
            else:
                self._reasons[key] = (reason, len(self.shards))
        self.shards.append(shard)

    def __contains__(self, key: object) -> bool:
        return key in self._places or key in self._reasons

    def __len__(self) -> int:
        return len(self._places)

    @property
    def set_aside(self) -> dict[str, str]:
        """The clips that are known not to be decodable, with their reasons."""
        return {key: reason for key, (reason, _) in self._reasons.items() if key not in self._places}

    def reason(self, key: str) -> str | None:
        """Why the clip was set aside; None for a clip that was stored or is unknown."""
        return None if key in self._places else self._reasons.get(key, (None, 0))[0]

    def is_in(self, key: str, number: int) -> bool:
        """Whether a shard, by its number, is where the clip is read from, or why it was set aside."""
        place = self._places.get(key)
        return place[0] == number if place else self._reasons.get(key, ("", -1))[1] == number

    def read(self, key: str, modality: str) -> np.ndarray | None:
        """One modality of one clip as a read-only view, None where the clip lacks it.

        Raises:
            MMSearchError: the clip is not stored, or its bytes cannot be had.
        """
        column = self.column([key], modality)
        return column.read(0) if column.present[0] else None

    def column(self, keys: Sequence[str], modality: str) -> Column:
        """One modality of many clips, located once and read often.

        Raises:
            MMSearchError: a clip is not stored.
        """
        missing = sum(key not in self._places for key in keys)
        if missing:
            damaged = f" ({len(self.damaged)} of its shards are damaged)" if self.damaged else ""
            raise MMSearchError(
                f"{self.place}: {missing} of {len(keys)} clips are not in this store{damaged}; "
                "prepare the dataset again"
            )
        return Column(self, modality, [self._places[key] for key in keys])

    def warm(self, keys: Sequence[str], modalities: Iterable[str]) -> bool:
        """Brings the shards of clips near before they are read in any order.

        Of a store elsewhere this node fetches what it lacks, in the order of the clips, as much as its quota holds;
        files of this machine are read ahead into its memory.

        Returns:
            Whether all of them are near now. If not, read clips in the order of their shards.

        Raises:
            MMSearchError: a clip is not stored, or its bytes cannot be had.
        """
        columns = [self.column(keys, modality) for modality in modalities]
        return all([column.warm() for column in columns])

    def fetch(self, parts: Iterable[Part]) -> bool:
        """Brings parts of shards near; whether that were all.

        Raises:
            MMSearchError: the bytes of one cannot be had.
        """
        try:
            return self.files.warm(list(parts))
        except DamagedError as error:
            raise self.mistake(error) from None

    def mistake(self, damage: DamagedError) -> MMSearchError:
        """What to say of damage that was found while reading."""
        return MMSearchError(
            f"{self.place}: {damage}; `mmsearch store verify --repair` removes damaged shards, and "
            "`mmsearch prepare` decodes their clips again"
        )


def content_hashes(
    folder: Path, paths: Iterable[Path], files_of: Callable[[Path], list[Path]] = lambda path: [path]
) -> dict[Path, str | OSError]:
    """The hash of what lies at every path, links followed; what cannot be read has its error instead.

    What has the same sizes and times as before is not read again.

    Args:
        folder: where what is known is kept; made where it is missing.
        paths: of files, or of what has several.
        files_of: the files of a path, in order.

    Raises:
        OSError: the folder cannot be written to.
    """
    memory = folder / "hashes.jsonl"
    known: dict[tuple[str, int, int], str] = {}
    with contextlib.suppress(FileNotFoundError), memory.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                path, size, mtime, digest = json.loads(line)
                known[path, size, mtime] = digest

    def look(path: Path) -> tuple[Path, str | OSError, list[Any] | None]:
        try:
            files = files_of(path)
            stats = [file.stat() for file in files]
            times = [stat.st_mtime_ns for stat in stats]
            if len(files) != 1:
                times = [int(clip_key(list(map(str, files)), [stat.st_size for stat in stats], times)[:12], 16)]
            place = (str(path), sum(stat.st_size for stat in stats), times[0])
            if place in known:
                return path, known[place], None
            digests = [_digest(file) for file in files]
            digest = digests[0] if len(files) == 1 else clip_key(digests)
            return path, digest, [*place, digest]
        except OSError as error:
            return path, error, None

    looked = each(look, dict.fromkeys(paths))
    fresh = "".join(json.dumps(line) + "\n" for _, _, line in looked if line)
    if fresh:
        folder.mkdir(parents=True, exist_ok=True)
        with memory.open("a", encoding="utf-8") as file:
            file.write(fresh)
    return {path: digest for path, digest, _ in looked}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, hasher).hexdigest()
