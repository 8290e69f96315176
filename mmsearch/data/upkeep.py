"""Keeping a clip store in order: what killed decodes left behind, damage, and shards that nobody needs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from mmsearch.data.claims import live
from mmsearch.data.places import CHUNK, Place, each, said
from mmsearch.data.shards import Part, Shard, hasher
from mmsearch.data.store import Store
from mmsearch.errors import MMSearchError

LEFTOVER_AGE = 3600.0
"""Seconds after which a file that no finished shard names is taken for the rest of a killed decode."""


def leftovers(place: Place, age: float = LEFTOVER_AGE) -> dict[str | Path, int]:
    """What killed decodes left behind: files of unfinished shards and claims that nobody wrote to for `age` seconds.

    Returns:
        Bytes by name in the place, or by path where a file of this machine has not got there.

    Raises:
        OSError: the place cannot be read or written.
    """
    now = place.now()
    found: dict[str | Path, int] = {}
    for folder, finished in (("shards", ".arrow"), ("claims", ".json")):
        files: dict[str | Path, tuple[int, int]] = {f"{folder}/{n}": seen for n, seen in place.files(folder).items()}
        for path in (place.near / folder if place.folder else place.near).glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                files[path] = path.stat().st_size, path.stat().st_mtime_ns
        whole = {_group(name) for name in files if str(name).endswith(finished)}
        newest: dict[str, int] = {}
        for name, (_, written) in files.items():
            newest[_group(name)] = max(written, newest.get(_group(name), 0))
        for name, (size, _) in files.items():
            if _group(name) not in whole and now - newest[_group(name)] > age * 1e9:
                found[name] = size
    return found


def _group(name: str | Path) -> str:
    """The shard or claim that a file belongs to."""
    return Path(name).name.lstrip(".").partition(".")[0]


def remove(place: Place, names: Iterable[str | Path]) -> None:
    """Removes files, one after the other; one that is gone already is no error.

    Raises:
        OSError: one cannot be removed.
    """
    for name in names:
        if isinstance(name, Path):
            name.unlink(missing_ok=True)
        else:
            place.delete(name)


def verify(store: Store, on_progress: Callable[[int, int], None]) -> dict[str, str]:
    """Compares every file of a store with its checksum; of shards of format 1, which have none, with its size.

    Args:
        store: just opened.
        on_progress: called with the bytes read so far and in all.

    Returns:
        What is wrong, by the index of every damaged shard.

    Raises:
        MMSearchError: a file is there but cannot be read.
    """
    total = sum(part.bytes for shard in store.shards for part in shard.parts.values())
    read, counting = 0, threading.Lock()

    def check(job: tuple[Shard, Part]) -> tuple[str, str]:
        nonlocal read
        shard, part = job
        found, size = hasher(part.checksum), 0
        try:
            with store.place.open(f"shards/{part.file}") as file:
                while chunk := file.read(CHUNK):
                    found.update(chunk)
                    size += len(chunk)
                    with counting:
                        read += len(chunk)
                        on_progress(read, total)
        except FileNotFoundError:
            return shard.index, f"{part.file} is missing"
        except OSError as error:
            raise MMSearchError(f"{store.place}: {part.file} cannot be read: {said(error)}") from None
        if size != part.bytes:
            return shard.index, f"{part.file} has {size} bytes, not {part.bytes}"
        whole = part.checksum in (None, found.hexdigest())
        return shard.index, "" if whole else f"{part.file} is not what was written (checksum)"

    checked = each(check, [(shard, part) for shard in store.shards for part in shard.parts.values()])
    return store.damaged | {index: what for index, what in checked if what}


def files_of_shards(place: Place, indexes: Iterable[str]) -> dict[str, int]:
    """The files of shards with their bytes, every index before what it names, so that no shard lacks a part.

    Args:
        place: the store's.
        indexes: names of the shards' indexes.

    Raises:
        OSError: the place cannot be listed.
    """
    seen = place.files("shards")
    found: dict[str, int] = {}
    for index in indexes:
        parts = (name for name in sorted(seen) if _group(name) == _group(index))
        found |= {f"shards/{name}": seen[name].size for name in (index, *parts) if name in seen}
    return found


def unneeded(store: Store, keep: Set[str] | None) -> list[str]:
    """The indexes of shards none of whose clips is needed: each is in another shard too, or not among `keep`.

    Args:
        store: just opened.
        keep: keys of the clips to keep; None: of all.
    """
    return [
        shard.index
        for number, shard in enumerate(store.shards)
        if not any((keep is None or key in keep) and store.is_in(key, number) for key in shard.keys)
    ]


def refuse_while_decoding(place: Place) -> None:
    """Nothing may be removed while another process counts on what it saw.

    Raises:
        MMSearchError: a process is decoding into the store.
        OSError: the place cannot be read or written.
    """
    holders = live(place, place.files("claims"), place.now(), {})
    if holders:
        raise MMSearchError(f"{place}: {holders[0]} is decoding into this store; try again when it is done")
