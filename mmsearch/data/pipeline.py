"""Decoding a dataset into the clip store with Ray Data. The only file of the data room that imports Ray.

A task decodes a few dozen clips into one shard, on whichever machine of the cluster has a core for it. What is in the
store already is not decoded again, whatever dataset or label column brought it there, and what another process is
decoding is waited for; with nothing to decode Ray is not even started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.data import decode
from mmsearch.data.claims import Claim, Holder
from mmsearch.data.places import Place, said
from mmsearch.data.shards import ShardWriter
from mmsearch.data.store import Store, clip_key, content_hashes
from mmsearch.data.upkeep import leftovers, remove
from mmsearch.errors import MMSearchError

if TYPE_CHECKING:
    from mmsearch.data.dataset import Clip, Dataset

SHARD_CLIPS = 128
"""At most this many clips a shard; fewer where there is too little work for every core."""

SHARDS_PER_CORE = 6
"""Where there are few clips. Ray Data looks for finished tasks every tenth of a second, and after two or three looks
begins the next one: a core rests for a quarter of a second after every shard."""

TASK_RETRIES = 1
"""How often a task whose worker died runs again; Ray Data's own default is for ever."""

POLL = 1.0
"""Seconds between two looks at the store while another process decodes into it."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` did.

    Attributes:
        stored: clips of the dataset that can be used.
        decoded: clips decoded by this call; 0 where the store had them all.
        quarantined: the clips set aside, each with `clip_id`, `path` and `reason`.
        keys: per clip of the dataset its key in the store, None where it was set aside.
    """

    stored: int
    decoded: int
    quarantined: list[dict[str, str]]
    keys: list[str | None]


def prepare(
    dataset: Dataset,
    store_dir: str | Path,
    *,
    on_begin: Callable[[], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    max_quarantined: float = 0.5,
    shard_clips: int = SHARD_CLIPS,
) -> Prepared:
    """Decodes what the store does not have yet.

    Uses the Ray this process is connected to, else the cluster of `$RAY_ADDRESS`, else a private one that is
    stopped afterwards. On several machines the store must be where all of them reach it. What another process is
    decoding into the store already is waited for.

    Args:
        dataset: what to decode.
        store_dir: the store's folder, made where it is missing, or the address of one elsewhere; see
            :class:`mmsearch.data.places.Place`.
        on_begin: called before anything is decoded, where there is something to decode.
        on_progress: called with the clips that are in the store by now and those that were not at first.
        on_wait: called with a line for people when the rest of the work is another process's.
        max_quarantined: the share of clips that may be set aside before the dataset counts as broken.
        shard_clips: at most this many clips are lost by killing a task.

    Returns:
        Counts, keys, and the clips set aside.

    Raises:
        MMSearchError: the store cannot be written, or too many clips cannot be decoded.
    """
    place = Place(store_dir)
    try:
        remove(place, leftovers(place))
        keys, failed = clip_keys(dataset, place)
        store = Store.open(place)
        work = {key: i for i, key in enumerate(keys) if key is not None and key not in store}
        items = {key: _item(dataset, dataset.clips[i], key) for key, i in work.items()}
        mine: set[str] = set()
        lost: dict[str, str] = {}
        if items:
            if on_begin is not None:
                on_begin()
            on_progress, on_wait = on_progress or (lambda done, total: None), on_wait or (lambda line: None)
            mine, lost = _decode(items, _stored_as(dataset), store, shard_clips, on_progress, on_wait)
    except OSError as error:
        raise _unwritable(place, said(error)) from None
    reasons: list[str | None] = []
    for i, key in enumerate(keys):
        reasons.append(failed.get(i) if key is None else lost.get(key) or store.reason(key))
    _check_lengths(dataset, store, keys, reasons)
    quarantined = [
        {"clip_id": clip.clip_id, "path": clip.place, "reason": reason}
        for clip, reason in zip(dataset.clips, reasons, strict=True)
        if reason is not None
    ]
    if len(quarantined) > max_quarantined * len(dataset.clips):
        first = "; ".join(f"{q['clip_id']}: {q['reason']}" for q in quarantined[:3])
        raise MMSearchError(
            f"{dataset.path}: {len(quarantined)} of {len(dataset.clips)} clips cannot be decoded ({first}); "
            "check the files and the modalities of the dataset, or allow more with --max-bad"
        )
    usable = [key if reason is None else None for key, reason in zip(keys, reasons, strict=True)]
    decoded = sum(store.reason(key) is None for key in mine if key not in lost)
    return Prepared(len(dataset.clips) - len(quarantined), decoded, quarantined, usable)


def _unwritable(place: Place, reason: str) -> MMSearchError:
    return MMSearchError(f"{place}: the clip store cannot be written: {reason}; choose another place or make room")


def clip_keys(dataset: Dataset, place: Place) -> tuple[list[str | None], dict[int, str]]:
    """Per clip its key in a store; where a source cannot be read None, and its reason by the clip's index.

    Raises:
        OSError: what was found out cannot be kept near the place.
    """
    hashes = content_hashes(
        place.near, (path for clip in dataset.clips for path in clip.paths.values()), decode.source_files
    )
    keys: list[str | None] = []
    failed: dict[int, str] = {}
    for i, clip in enumerate(dataset.clips):
        sources = {}
        for name, (kind, _, settings) in dataset.sources(clip).items():
            content = hashes[clip.paths[name]] if name in clip.paths else ""
            if isinstance(content, OSError):
                failed[i] = f"{name}: {said(content)}"
            sources[name] = [kind, str(content), settings]
        keys.append(None if i in failed else clip_key(decode.VERSION, sources, clip.start, clip.end))
    return keys, failed


def _item(dataset: Dataset, clip: Clip, key: str) -> dict[str, Any]:
    return {"key": key, "sources": dataset.sources(clip), "start": clip.start, "end": clip.end}


def _stored_as(dataset: Dataset) -> dict[str, tuple[str, int | None]]:
    """Per modality its kind, and the quality of its JPEGs where it is kept so."""
    return {
        name: (config.kind, config.settings["quality"] if config.settings.get("codec") == "jpeg" else None)
        for name, config in dataset.modalities.items()
    }


def decode_shard(
    items: list[dict[str, Any]], address: str, modalities: dict[str, tuple[str, int | None]]
) -> list[dict[str, str]]:
    """One shard of clips; what a Ray task runs.

    Args:
        items: per clip `key`, `sources` (see :func:`mmsearch.data.decode.decode_clip`), `start` and `end`.
        address: the store's.
        modalities: per modality its kind, and the quality of its JPEGs where it is kept so.

    Returns:
        Per clip `key` and `reason`: empty, or why the clip could not be read just now. What can never be decoded
        is remembered in the store. One line with `error` alone, for people, where no shard could be written at all.
    """
    place = Place(address)
    layouts = {name: decode.LAYOUT[kind] for name, (kind, _) in modalities.items()}
    jpeg = {name: quality for name, (_, quality) in modalities.items() if quality is not None}
    done = []
    try:
        if place.folder is not None and not place.folder.is_dir():
            raise OSError(f"{socket.gethostname()} does not reach this folder")
        with ShardWriter(place, layouts, jpeg) as writer:
            for item in items:
                arrays, reason, passing = {}, None, ""
                try:
                    arrays = decode.decode_clip(item["sources"], item["start"], item["end"])
                except decode.DecodeError as error:
                    reason = str(error)
                except MMSearchError:
                    raise
                except Exception as error:
                    passing = f"{type(error).__name__}: {error}"
                if not passing:
                    writer.add(item["key"], arrays, reason)
                done.append({"key": item["key"], "reason": passing, "error": ""})
            writer.commit()
    except OSError as error:
        return [{"key": "", "reason": "", "error": str(_unwritable(place, said(error)))}]
    except MMSearchError as error:
        return [{"key": "", "reason": "", "error": str(error)}]
    return done


def _decode(
    items: dict[str, dict[str, Any]],
    modalities: dict[str, tuple[str, int | None]],
    store: Store,
    shard_clips: int,
    on_progress: Callable[[int, int], None],
    on_wait: Callable[[str], None],
) -> tuple[set[str], dict[str, str]]:
    """Decodes the items that no other process decodes, waits for the rest, and brings the store up to date.

    Returns the keys of those decoded here, and the reason of each that could not be decoded now and is not in the
    store.
    """
    lost: dict[str, str] = {}
    mine: set[str] = set()
    left = set(items)
    waited: Holder | None = None
    with Claim(store.place, items) as claim:
        while left:
            free, holder = claim.free(left)
            store.refresh()
            left -= {key for key in left if key in store}
            on_progress(len(items) - len(left), len(items))
            free &= left
            if free:
                wanted, before = [item for key, item in items.items() if key in free], len(items) - len(left)
                for done, reasons in _decode_all(wanted, store.place, modalities, shard_clips):
                    lost |= reasons
                    on_progress(before + done, len(items))
                mine |= free
                left -= free
            elif left:
                if holder and holder.name != (waited and waited.name):
                    on_wait(f"waiting for another process that is decoding into this store ({holder})")
                waited = holder
                time.sleep(POLL)
    store.refresh()
    return mine, lost


def _decode_all(
    items: list[dict[str, Any]], place: Place, modalities: dict[str, tuple[str, int | None]], shard_clips: int
) -> Iterator[tuple[int, dict[str, str]]]:
    """Decodes all items; tells as it goes on how many are done, and the reasons of some that could not be decoded now.

    A clip that kills its decoder (FFmpeg crashes on some files) takes its shard with it: what is left after the
    first round is tried again one clip a task, so that it stands alone.
    """
    left = {item["key"]: item for item in items}
    with _ray() as cores:
        for round_clips in (max(1, min(shard_clips, len(items) // (SHARDS_PER_CORE * cores))), 1):
            for rows in _run(list(left.values()), round_clips, place.text, modalities):
                error = next((row["error"] for row in rows if row["error"]), "")
                if error:
                    raise MMSearchError(error)
                for row in rows:
                    left.pop(row["key"], None)
                yield len(items) - len(left), {row["key"]: row["reason"] for row in rows if row["reason"]}
            if not left:
                return
    yield len(items), dict.fromkeys(left, "the decoder died of it")


def _run(
    items: list[dict[str, Any]], shard_clips: int, address: str, modalities: dict[str, tuple[str, int | None]]
) -> Iterator[list[dict[str, str]]]:
    """The rows of :func:`decode_shard`, shard by shard as they are finished.

    A task whose worker died runs :data:`TASK_RETRIES` times more. What is missing after that is tried again as long
    as machines were lost meanwhile: their end is no fault of a clip.
    """
    left = {item["key"]: item for item in items}
    lost_machines = True
    while left and lost_machines:
        machines = _machines()
        for rows in _round(list(left.values()), shard_clips, address, modalities):
            for row in rows:
                left.pop(row["key"], None)
            yield rows
        lost_machines = not machines <= _machines()


def _machines() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _round(
    items: list[dict[str, Any]], shard_clips: int, address: str, modalities: dict[str, tuple[str, int | None]]
) -> Iterator[list[dict[str, str]]]:
    import pandas as pd
    import ray.data

    shards = [items[i : i + shard_clips] for i in range(0, len(items), shard_clips)]

    def task(batch: pd.DataFrame) -> pd.DataFrame:
        rows = [row for shard in batch["shard"] for row in decode_shard(json.loads(shard), address, modalities)]
        return pd.DataFrame(rows, columns=["key", "reason", "error"])

    with _quiet():
        blocks = ray.data.from_items([{"shard": json.dumps(s)} for s in shards], override_num_blocks=len(shards))
        with warnings.catch_warnings():
            # max_retries has no named parameter yet (Ray 2.60)
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
            done = blocks.map_batches(
                task, batch_size=None, batch_format="pandas", num_cpus=1, max_retries=TASK_RETRIES
            )
        for batch in done.iter_batches(batch_size=None, batch_format="pandas"):
            yield [dict(row) for _, row in pd.DataFrame(batch).iterrows()]


@contextlib.contextmanager
def _ray() -> Iterator[int]:
    """A connection to Ray, and its number of cores."""
    import ray

    started = not ray.is_initialized()
    if started and os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    elif started:
        ray.init(
            address="local",
            num_cpus=len(os.sched_getaffinity(0)),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if started:
            ray.shutdown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without bars and log lines, and a block whose worker died skipped; as before afterwards."""
    from ray.data import DataContext

    context = DataContext.get_current()
    wanted = {
        "enable_progress_bars": False,
        "enable_operator_progress_bars": False,
        "print_on_execution_start": False,
        "max_errored_blocks": -1,
    }
    before = {name: getattr(context, name) for name in wanted}
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    for name, value in wanted.items():
        setattr(context, name, value)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            setattr(context, name, value)


def _check_lengths(dataset: Dataset, store: Store, keys: list[str | None], reasons: list[str | None]) -> None:
    """Sets vectors and series aside that do not have as many numbers (a step) as most."""
    for name, config in dataset.modalities.items():
        if config.kind not in ("vector", "series"):
            continue
        rows = [i for i, reason in enumerate(reasons) if reason is None]
        column = store.column([key for i in rows if (key := keys[i]) is not None], name)
        lengths = column.shape[:, -1]
        usual = Counter(lengths[column.present].tolist()).most_common(1)
        for i, length, present in zip(rows, lengths, column.present, strict=True):
            if present and length != usual[0][0]:
                reasons[i] = f"{name}: {length} numbers, but most clips have {usual[0][0]}"
