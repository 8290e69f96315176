"""Decoding a dataset into the clip store with Ray Data. The only file of the data room that imports Ray.

A task decodes a few dozen clips into one shard. What is in the store already is not decoded again, whatever
dataset or label column brought it there; with nothing to decode Ray is not even started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.data import decode
from mmsearch.data.store import ShardWriter, Store, clip_key, content_hashes, remove_orphans
from mmsearch.errors import MMSearchError

if TYPE_CHECKING:
    from mmsearch.data.dataset import Clip, Dataset

SHARD_CLIPS = 128
"""At most this many clips a shard; fewer where there is too little work for every core."""

SHARDS_PER_CORE = 8

TASK_RETRIES = 1
"""How often a task whose worker died runs again; Ray Data's own default is for ever."""


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
    on_progress: Callable[[int, int], None] | None = None,
    max_quarantined: float = 0.5,
    shard_clips: int = SHARD_CLIPS,
) -> Prepared:
    """Decodes what the store does not have yet.

    Uses the Ray this process is connected to, else the cluster of `$RAY_ADDRESS`, else a private one that is
    stopped afterwards. On several machines the store must be on storage they share.

    Args:
        dataset: what to decode.
        store_dir: the store's folder; made where it is missing.
        on_progress: called with the clips decoded so far and the clips to decode.
        max_quarantined: the share of clips that may be set aside before the dataset counts as broken.
        shard_clips: at most this many clips are lost by killing a task.

    Returns:
        Counts, keys, and the clips set aside.

    Raises:
        MMSearchError: the store cannot be written, or too many clips cannot be decoded.
    """
    folder = Path(store_dir).absolute()
    _check_writable(folder)
    remove_orphans(folder)
    keys, failed = _keys(dataset, folder)
    store = Store.open(folder)
    work = {key: i for i, key in enumerate(keys) if key is not None and key not in store}
    lost: dict[str, str] = {}
    if work:
        items = [_item(dataset, dataset.clips[i], key) for key, i in work.items()]
        lost = _decode_all(items, dataset, folder, shard_clips, on_progress or (lambda done, total: None))
        store = Store.open(folder)
    reasons: list[str | None] = []
    for i, key in enumerate(keys):
        reasons.append(failed.get(i) if key is None else lost.get(key) or store.reason(key))
    _check_vectors(dataset, store, keys, reasons)
    quarantined = [
        {"clip_id": clip.clip_id, "path": str(next(iter(clip.paths.values()))), "reason": reason}
        for clip, reason in zip(dataset.clips, reasons, strict=True)
        if reason is not None
    ]
    if len(quarantined) > max_quarantined * len(dataset.clips):
        first = "; ".join(f"{q['clip_id']}: {q['reason']}" for q in quarantined[:3])
        raise MMSearchError(
            f"{dataset.path}: {len(quarantined)} of {len(dataset.clips)} clips cannot be decoded ({first}); "
            "check the files and the modalities of the dataset"
        )
    usable = [key if reason is None else None for key, reason in zip(keys, reasons, strict=True)]
    decoded = sum(store.reason(key) is None for key in work if key not in lost)
    return Prepared(len(dataset.clips) - len(quarantined), decoded, quarantined, usable)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from None


def _unwritable(folder: Path, reason: str) -> MMSearchError:
    return MMSearchError(f"{folder}: the clip store cannot be written: {reason}; choose another folder or make room")


def _keys(dataset: Dataset, folder: Path) -> tuple[list[str | None], dict[int, str]]:
    """Per clip its key; where a source cannot be read None, and its reason by the clip's index."""
    try:
        hashes = content_hashes(folder, (path for clip in dataset.clips for path in clip.paths.values()))
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from None
    keys: list[str | None] = []
    failed: dict[int, str] = {}
    for i, clip in enumerate(dataset.clips):
        sources = {}
        for name, path in clip.paths.items():
            digest = hashes[path]
            if isinstance(digest, OSError):
                failed[i] = f"{name}: {digest.strerror or digest}"
            config = dataset.modalities[name]
            sources[name] = [config.kind, str(digest), config.settings]
        keys.append(None if i in failed else clip_key(decode.VERSION, sources, clip.start, clip.end))
    return keys, failed


def _item(dataset: Dataset, clip: Clip, key: str) -> dict[str, Any]:
    sources = {
        name: (dataset.modalities[name].kind, str(path), dataset.modalities[name].settings)
        for name, path in clip.paths.items()
    }
    return {"key": key, "sources": sources, "start": clip.start, "end": clip.end}


def decode_shard(items: list[dict[str, Any]], folder: str, kinds: dict[str, str]) -> list[dict[str, str]]:
    """One shard of clips; what a Ray task runs.

    Args:
        items: per clip `key`, `sources` (see :func:`mmsearch.data.decode.decode_clip`), `start` and `end`.
        folder: the store's folder.
        kinds: the kind of every modality.

    Returns:
        Per clip `key` and `reason`: empty, or why the clip could not be read just now. What can never be decoded
        is remembered in the store. One line with `error` alone where the store cannot be written.
    """
    done = []
    try:
        with ShardWriter(Path(folder), {name: decode.LAYOUT[kind] for name, kind in kinds.items()}) as writer:
            for item in items:
                arrays, reason, passing = {}, None, ""
                try:
                    arrays = decode.decode_clip(item["sources"], item["start"], item["end"])
                except decode.DecodeError as error:
                    reason = str(error)
                except Exception as error:
                    passing = f"{type(error).__name__}: {error}"
                if not passing:
                    writer.add(item["key"], arrays, reason)
                done.append({"key": item["key"], "reason": passing, "error": ""})
            writer.commit()
    except OSError as error:
        return [{"key": "", "reason": "", "error": error.strerror or errno.errorcode.get(error.errno or 0, str(error))}]
    return done


def _decode_all(
    items: list[dict[str, Any]],
    dataset: Dataset,
    folder: Path,
    shard_clips: int,
    on_progress: Callable[[int, int], None],
) -> dict[str, str]:
    """Decodes all items; returns the reason of each that could not be decoded now and is not in the store.

    A clip that kills its decoder (FFmpeg crashes on some files) takes its shard with it: what is left after the
    first round is tried again one clip a task, so that it stands alone.
    """
    kinds = {name: config.kind for name, config in dataset.modalities.items()}
    lost: dict[str, str] = {}
    left = {item["key"]: item for item in items}
    with _ray() as cores:
        on_progress(0, len(items))
        for round_clips in (max(1, min(shard_clips, len(items) // (SHARDS_PER_CORE * cores))), 1):
            for rows in _run(list(left.values()), round_clips, str(folder), kinds):
                for row in rows:
                    if row["error"]:
                        raise _unwritable(folder, row["error"])
                    del left[row["key"]]
                    if row["reason"]:
                        lost[row["key"]] = row["reason"]
                on_progress(len(items) - len(left), len(items))
            if not left:
                break
    return lost | dict.fromkeys(left, "the decoder died of it")


def _run(
    items: list[dict[str, Any]], shard_clips: int, folder: str, kinds: dict[str, str]
) -> Iterator[list[dict[str, str]]]:
    """The rows of :func:`decode_shard`, shard by shard as they are finished."""
    import pandas as pd
    import ray.data

    shards = [items[i : i + shard_clips] for i in range(0, len(items), shard_clips)]

    def task(batch: pd.DataFrame) -> pd.DataFrame:
        rows = [row for shard in batch["shard"] for row in decode_shard(json.loads(shard), folder, kinds)]
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


def _check_vectors(dataset: Dataset, store: Store, keys: list[str | None], reasons: list[str | None]) -> None:
    """Sets vectors aside whose length is not that of most."""
    for name, config in dataset.modalities.items():
        if config.kind != "vector":
            continue
        rows = [i for i, reason in enumerate(reasons) if reason is None]
        column = store.column([key for i in rows if (key := keys[i]) is not None], name)
        lengths = column.shape[:, 0]
        usual = Counter(lengths[column.present].tolist()).most_common(1)
        for i, length, present in zip(rows, lengths, column.present, strict=True):
            if present and length != usual[0][0]:
                reasons[i] = f"{name}: {length} numbers, but most clips have {usual[0][0]}"
