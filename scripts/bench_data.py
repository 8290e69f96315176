"""Times decoding, the Ray Data route and reading the store beside what they could cost at best, on the same clips.

    MMSEARCH_CLIPS=clips python scripts/bench_data.py
    python scripts/bench_data.py --only read --rounds 40

Three parts, a Markdown table each. In a round everything that is compared takes its turn, so that whatever else the
machine does falls on all alike; a ratio is the median over rounds with a bootstrap interval of 95 %. Exit status 1
where a bound is missed: where all of the interval is on the wrong side of it.

decode: CPU time a clip (getrusage), one process, one thread. mmsearch decodes a shard and writes it; it is compared
with decoding both tracks with PyAV and throwing the frames away.

route: clips a second of decoding all clips, after the first shard of every process. What comes before is shown apart,
and so is the whole. Ray Data is `mmsearch.data.prepare` with an empty store and a Ray of its own; it is compared with
as many processes as there are cores, which decode the same shards. Judged from 1,000 clips on.

read: clips a second of shuffled epochs, by one process and by three at a time. The store is compared with a numpy
memory map of the same arrays, gathered in the same order and batches into arrays of the same size. Parquet (row
groups in random order, shuffled within) and WebDataset (a shuffle buffer) stand beside it; they cannot read in that
order. Then the memory of three readers of one store: PSS counts a page that three share as a third.

The clips are those of GRID below $MMSEARCH_CLIPS, remuxed with a comment of their own as often as is needed, so that
each file has a content of its own; without them the demo's. They stay in --work, and so does what is read.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import importlib
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import yaml

from mmsearch.data import ClipData, Dataset, Store, clip_data, default_store, prepare
from mmsearch.data.decode import decode_clip
from mmsearch.data.pipeline import SHARDS_PER_CORE, decode_shard
from mmsearch.errors import MMSearchError

PARTS = ("decode", "route", "read")
PLAIN, PROCESSES, MAPPED = "PyAV, frames thrown away", "a process per core", "numpy memory map"
DECODED, RAY, RAW = "mmsearch", "Ray Data", "mmsearch, raw"
ROUTE_CLIPS, ROUTE_ROUNDS = 1000, 7
READERS, BATCH = 3, 64
READ_CLIPS, SLOW_CLIPS = 1520, 152
"""Clips a turn of reading, where they are stored as arrays and where not."""


@dataclasses.dataclass(frozen=True)
class Bound:
    """The most or the least that a ratio may be."""

    limit: float
    most: bool

    def verdict(self, low: float, high: float) -> str:
        """`held` or `missed` where the whole interval says so, else `not settled`."""
        if self.most:
            return "held" if high <= self.limit else "missed" if low > self.limit else "not settled"
        return "held" if low >= self.limit else "missed" if high < self.limit else "not settled"

    def __str__(self) -> str:
        return f"{'at most' if self.most else 'at least'} {self.limit:.2f}"


BOUNDS = {DECODED: Bound(1 / 0.75, most=True), RAY: Bound(0.85, most=False), RAW: Bound(0.5, most=False)}


def compare(mine: Sequence[float], reference: Sequence[float], draws: int = 2000) -> tuple[float, float, float]:
    """The median of the rounds' ratios, and the ends of its interval."""
    ratios = np.array(mine) / np.array(reference)
    resampled = np.random.default_rng(0).integers(len(ratios), size=(draws, len(ratios)))
    low, high = np.quantile(np.median(ratios[resampled], axis=-1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


class Table:
    """A Markdown table.

    Attributes:
        missed: a line for every bound missed.
    """

    def __init__(self, *head: str) -> None:
        self.missed: list[str] = []
        self._rows = [list(head), ["---"] * len(head)]

    def add(self, *cells: str) -> None:
        """A row."""
        self._rows.append(list(cells))

    def judge(self, what: str, mine: Sequence[float], reference: Sequence[float], bound: Bound | None) -> list[str]:
        """The cells of a ratio and of its bound."""
        ratio, low, high = compare(mine, reference)
        cell = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        if bound is None:
            return [cell, ""]
        verdict = bound.verdict(low, high)
        if verdict == "missed":
            self.missed.append(f"{what}: {cell}, {bound}")
        return [cell, f"{bound}: {verdict}"]

    def __str__(self) -> str:
        return "\n".join("| " + " | ".join(cells) + " |" for cells in self._rows)


def decode_table(ms: Mapping[str, Sequence[float]]) -> Table:
    """The table of the decode part from CPU milliseconds a clip, round by round; one of them is PLAIN."""
    table = Table("decode", "CPU-ms a clip", "over PyAV (95 %)", "bound")
    for name, own in ms.items():
        table.add(name, f"{np.median(own):.2f}", *table.judge(f"decode, {name}", own, ms[PLAIN], BOUNDS.get(name)))
    return table


@dataclasses.dataclass
class Progress:
    """How a decode went.

    Attributes:
        done: pairs of seconds since its beginning and clips decoded by then.
        whole: seconds until all was over.
    """

    done: list[tuple[float, int]]
    whole: float

    @property
    def start(self) -> float:
        """Seconds until the first clips were done."""
        return next(t for t, clips in self.done if clips)

    def rate(self, skip: int) -> float:
        """Clips a second after the first `skip` of them.

        Raises:
            MMSearchError: there are no others.
        """
        began, before = next(x for x in self.done if x[1] >= skip)
        ended, clips = self.done[-1]
        if clips == before:
            raise MMSearchError("bench_data: all clips were done at the start; give more --clips")
        return (clips - before) / (ended - began)


def route_table(runs: Mapping[str, Sequence[Progress]], skip: int) -> Table:
    """The table of the route part from runs, round by round; one of them is PROCESSES. `skip` clips are the start."""
    table = Table(
        "route", "clips/s after its start", "over processes (95 %)", "bound", "first shard after, s", "whole, s"
    )
    rates = {name: [run.rate(skip) for run in own] for name, own in runs.items()}
    for name, own in runs.items():
        bound = BOUNDS.get(name) if own[0].done[-1][1] >= ROUTE_CLIPS else None
        cells = table.judge(f"route, {name}", rates[name], rates[PROCESSES], bound)
        start, whole = (np.median([getattr(run, x) for run in own]) for x in ("start", "whole"))
        table.add(name, f"{np.median(rates[name]):.1f}", *cells, f"{start:.1f}", f"{whole:.1f}")
    return table


@dataclasses.dataclass
class Reading:
    """A turn of reading: clips a second of all processes together, and CPU milliseconds a clip."""

    rate: float
    cpu: float


def read_table(turns: Mapping[tuple[str, int], Sequence[Reading]], megabytes: Mapping[str, float]) -> Table:
    """The table of the read part.

    Args:
        turns: by format and number of processes, round by round; one of the formats is MAPPED.
        megabytes: on the disk, by format.
    """
    table = Table("read", "processes", "clips/s", "over numpy (95 %)", "bound", "CPU-ms a clip", "MB on disk")
    for (name, processes), own in turns.items():
        rates, reference = [r.rate for r in own], [r.rate for r in turns[MAPPED, processes]]
        cells = table.judge(f"read, {name}, processes: {processes}", rates, reference, BOUNDS.get(name))
        cpu = np.median([r.cpu for r in own])
        table.add(name, f"{processes}", f"{np.median(rates):.0f}", *cells, f"{cpu:.3f}", f"{megabytes[name]:.0f}")
    return table


def memory_table(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]], stored: float) -> str:
    """The table of the readers' memory.

    Args:
        before, after: per reader what :func:`memory` says, before its first batch and after an epoch.
        stored: megabytes of the store.
    """
    table = Table("reader", *(f"{kind} before → after an epoch, MB" for kind in before[0]))
    for i, (b, a) in enumerate(zip(before, after, strict=True), start=1):
        table.add(f"{i}", *(f"{b[kind]:.0f} → {a[kind]:.0f}" for kind in b))
    shared = sum(x["PSS"] - x["private"] for x in after) - sum(x["PSS"] - x["private"] for x in before)
    return f"{table}\n\nTo what they share an epoch of all adds {shared:.0f} MB; the store has {stored:.0f} MB."


def cpu_seconds() -> float:
    """Of this process, all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory() -> dict[str, float]:
    """Megabytes of this process: resident, proportional and its own."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]]
    mb = {line[0]: int(line[1]) / 1e3 for line in lines}
    return {"RSS": mb["Rss:"], "PSS": mb["Pss:"], "private": mb["Private_Clean:"] + mb["Private_Dirty:"]}


def cores() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0))


def rotated(names: Iterable[Any], by: int) -> list[Any]:
    """The turns of a round: nobody is always the first."""
    order = list(names)
    return order[by % len(order) :] + order[: by % len(order)]


def say(text: str) -> None:
    """What the bench is at."""
    print(text, file=sys.stderr, flush=True)


def why(error: Exception) -> str:
    """An error in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def unusable(package: str) -> str:
    """Why a package cannot be used; empty where it can."""
    try:
        importlib.import_module(package)
    except Exception as error:
        return why(error)
    return ""


# clips


def remux(source: Path, target: Path, comment: str) -> None:
    """The same packets with a comment, in a file that is whole or not there."""
    fresh = target.with_name(f".{os.getpid()}.{target.name}")
    with av.open(str(source)) as given, av.open(str(fresh), "w", format="mp4") as made:
        made.metadata["comment"] = comment
        streams = {s.index: made.add_stream_from_template(s) for s in given.streams if s.type in ("audio", "video")}
        for packet in given.demux(*(given.streams[i] for i in streams)):
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                made.mux(packet)
    fresh.replace(target)


def clip_files(count: int, work: Path) -> tuple[str, list[tuple[Path, str]]]:
    """So many clips of different content.

    Returns:
        Where they are from, and per clip its file and label.
    """
    folder = os.environ.get("MMSEARCH_CLIPS")
    if not folder:
        say("MMSEARCH_CLIPS is not set: no clips of GRID; the demo's instead")
        from mmsearch.data.demo import DemoConfig, write_demo

        dataset = Dataset.load(write_demo(work / f"demo-{count}", DemoConfig(n_clips=count)))
        return "the demo's", [(clip.paths["frames"], dataset.classes[clip.label]) for clip in dataset.clips]
    try:
        with (Path(folder) / "grid" / "labels.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise MMSearchError(f"{error.filename}: {error.strerror}; see MMSEARCH_CLIPS") from None
    (work / "grid").mkdir(exist_ok=True)
    found = []
    for i in range(count):
        row, copy = rows[i % len(rows)], i // len(rows)
        found.append((work / "grid" / f"{row['clip_id']}-{copy}.mp4", row["digit"]))
        if not found[-1][0].exists():
            remux(Path(folder) / "grid" / row["path"], found[-1][0], f"copy {copy}")
    return f"{min(count, len(rows))} of GRID, each up to {-(-count // len(rows))} times", found


def open_dataset(
    name: str, clips: Sequence[tuple[Path, str]], work: Path, frames: Mapping[str, Any] = {}, **more: Any
) -> Dataset:
    """The clips as a dataset of sound and frames, with the product's own settings where none are given.

    Raises:
        MMSearchError: a setting is none.
    """
    with (work / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "path", "label"])
        writer.writerows((path.stem, path.relative_to(work), label) for path, label in clips)
    modalities = {"sound": {"kind": "sound"}, "frames": {"kind": "frames", **frames}}
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "manifest": "manifest.csv", "modalities": modalities, **more}))
    return Dataset.load(path)


class Shard:
    """Clips to decode into a store, as a Ray task gets them.

    Args:
        dataset: of the clips.
        some: which of them.
    """

    def __init__(self, dataset: Dataset, some: slice = slice(None)) -> None:
        self.items: list[dict[str, Any]] = [
            {"key": clip.clip_id, "sources": dataset.sources(clip), "start": clip.start, "end": clip.end}
            for clip in dataset.clips[some]
        ]
        self._modalities = {name: (config.kind, None) for name, config in dataset.modalities.items()}

    def __len__(self) -> int:
        return len(self.items)

    def decode(self, folder: str) -> int:
        """Decodes them and says how many they are.

        Raises:
            MMSearchError: one of them could not be read.
        """
        for row in decode_shard(self.items, folder, self._modalities):
            if row["error"] or row["reason"]:
                raise MMSearchError(f"bench_data: {row['error'] or row['reason']}")
        return len(self)

    def throw_away(self) -> None:
        """Decodes all tracks of each, one thread."""
        for item in self.items:
            for path in dict.fromkeys(path for _, path, _ in item["sources"].values()):
                with av.open(path) as container:
                    for stream in container.streams.video:
                        stream.codec_context.thread_count = 1
                    for packet in container.demux():
                        packet.decode()


# decode


def decode_turn(dataset: Dataset | None, shard: Shard, work: Path) -> float:
    """CPU milliseconds a clip: decoded into a store, or without a dataset thrown away.

    Raises:
        MMSearchError: not all clips were stored.
    """
    with tempfile.TemporaryDirectory(dir=work) as folder:
        began = cpu_seconds()
        if dataset is None:
            shard.throw_away()
        else:
            shard.decode(folder)
        used = cpu_seconds() - began
        if dataset is not None and len(Store.open(folder)) < len(shard):
            reason = next(filter(None, (Store.open(folder).reason(item["key"]) for item in shard.items)), "")
            raise MMSearchError(f"bench_data: {dataset.name}: {reason}")
    return 1000 * used / len(shard)


def decode_part(datasets: Mapping[str, Dataset], work: Path, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds a clip, round by round; every round has other clips."""
    given = next(iter(datasets.values()))
    turns: dict[str, Dataset | None] = {PLAIN: None, **datasets}
    for dataset in turns.values():
        decode_turn(dataset, Shard(dataset or given, slice(4)), work)
    times: dict[str, list[float]] = {name: [] for name in turns}
    ends = np.linspace(0, len(given.clips), rounds + 1).astype(int).tolist()
    for i, (start, end) in enumerate(itertools.pairwise(ends)):
        say(f"decode: round {i + 1} of {rounds}")
        for name in rotated(turns, i):
            dataset = turns[name]
            times[name].append(decode_turn(dataset, Shard(dataset or given, slice(start, end)), work))
    return times


# route


def by_processes(dataset: Dataset, folder: Path, size: int) -> Progress:
    """Decodes shards of a size by as many processes as there are cores."""
    began, done = time.perf_counter(), [(0.0, 0)]
    with ProcessPoolExecutor(cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
        shards = [Shard(dataset, slice(i, i + size)) for i in range(0, len(dataset.clips), size)]
        for future in as_completed([pool.submit(shard.decode, str(folder)) for shard in shards]):
            done.append((time.perf_counter() - began, done[-1][1] + future.result()))
    return Progress(done, time.perf_counter() - began)


def by_ray(dataset: Dataset, folder: Path, size: int) -> Progress:
    """Decodes through the product."""
    began, done = time.perf_counter(), []

    def note(clips: int, _: int) -> None:
        done.append((time.perf_counter() - began, clips))

    prepare(dataset, folder, shard_clips=size, on_progress=note)
    return Progress(done, time.perf_counter() - began)


class Decoding:
    """A torch dataset that decodes a clip when it is asked for."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, i: int) -> dict[str, Any]:
        import torch

        item = self._shard.items[i]
        return {u: torch.from_numpy(x) for u, x in decode_clip(item["sources"], item["start"], item["end"]).items()}


def padded(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch."""
    from torch.nn.utils.rnn import pad_sequence

    return {u: pad_sequence([clip[u] for clip in clips], batch_first=True) for u in clips[0]}


def by_loader(dataset: Dataset, folder: Path, size: int) -> Progress:
    """Decodes by the workers of a torch DataLoader, in batches of a size; nothing is written."""
    from torch.utils.data import DataLoader

    began, done = time.perf_counter(), [(0.0, 0)]
    whole = Decoding(Shard(dataset))
    for batch in DataLoader(  # type: ignore[var-annotated]
        whole,  # type: ignore[arg-type]
        batch_size=size,
        num_workers=2,
        collate_fn=padded,
        multiprocessing_context="spawn",
    ):
        done.append((time.perf_counter() - began, done[-1][1] + len(batch["frames"])))
    return Progress(done, time.perf_counter() - began)


def route_part(dataset: Dataset, work: Path, rounds: int, size: int) -> dict[str, list[Progress]]:
    """Decodes everything by every route, round by round, in shards of a size."""
    routes = {PROCESSES: by_processes, RAY: by_ray, "torch DataLoader, 2 workers": by_loader}
    runs: dict[str, list[Progress]] = {name: [] for name in routes}
    for i in range(rounds):
        for name in rotated(routes, i):
            say(f"route: round {i + 1} of {rounds}, {name}")
            with tempfile.TemporaryDirectory(dir=work) as folder:
                runs[name].append(routes[name](dataset, Path(folder), size))
    return runs


# read

Epoch = Callable[[int], Iterator[int]]
"""From a seed to the sizes of an epoch's batches, each of them in memory when its size comes."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A way to keep clips.

    Attributes:
        opens: gives the epochs of what is there.
        where: the file or folder.
        kept: the file or folder whose size counts.
        clips: to read a turn.
    """

    opens: Callable[[Path], Epoch]
    where: Path
    kept: Path
    clips: int

    @property
    def megabytes(self) -> float:
        """On the disk."""
        files = [self.kept, *self.kept.rglob("*")]
        return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def open_clips(where: Path) -> Epoch:
    """Through ClipData, every view the whole clip."""
    from mmsearch.batch import View

    data = ClipData.open(where)
    views = {name: View() for name in data.modalities}
    return lambda seed: (len(batch) for batch in data.batches(np.arange(len(data)), BATCH, views, seed=seed))


def open_mapped(where: Path) -> Epoch:
    """Through memory maps, in the order of ClipData."""
    data = ClipData.open(where / "clips.json")
    maps = [np.load(path, mmap_mode="r").view(np.ndarray) for path in sorted(where.glob("*.npy"))]

    def epoch(seed: int) -> Iterator[int]:
        for batch in data.batches(np.arange(len(data)), BATCH, {}, seed=seed):
            rows = batch.index.numpy()
            held = [as_input(array[rows]) for array in maps]
            yield len(held[0])

    return epoch


def open_parquet(where: Path) -> Epoch:
    """Row groups in random order, shuffled within; a row group is a batch."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(where, memory_map=True)
    layouts = json.loads(file.schema_arrow.metadata[b"layouts"])

    def epoch(seed: int) -> Iterator[int]:
        rng = np.random.default_rng(seed)
        for group in rng.permutation(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            rows = rng.permutation(table.num_rows)
            columns = {name: table[name].combine_chunks().buffers()[1] for name in layouts}
            held = [as_input(np.frombuffer(b, layouts[n][0]).reshape(layouts[n][1])[rows]) for n, b in columns.items()]
            yield len(held[0])

    return epoch


def open_webdataset(where: Path) -> Epoch:
    """A shuffle buffer of four batches."""
    import webdataset

    urls = [str(path) for path in sorted(where.iterdir())]

    def epoch(seed: int) -> Iterator[int]:
        clips = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=seed).shuffle(4 * BATCH).decode()
        for arrays in clips.to_tuple("frames.npy", "sound.npy").batched(BATCH):
            held = [as_input(array) for array in arrays]
            yield len(held[0])

    return epoch


def as_input(array: np.ndarray) -> np.ndarray:
    """Of the type that it has in a batch: sound is float32."""
    return array.astype(np.float32) if array.dtype == np.int16 else array


def reader(formats: Mapping[str, Format], calls: Any) -> None:
    """A process that answers calls until it gets None.

    A call is a format, a seed and a number of clips to read on from where the last call of that format ended. The
    answer: when it began and ended, how many it read, its CPU seconds, its memory.
    """
    import torch

    torch.set_num_threads(1)
    streams: dict[str, Iterator[int]] = {}
    while (call := calls.recv()) is not None:
        name, seed, clips = call
        if name not in streams:
            epoch = formats[name].opens(formats[name].where)
            streams[name] = itertools.chain.from_iterable(map(epoch, itertools.count(seed)))
        read, began, used = 0, time.monotonic(), cpu_seconds()
        while read < clips:
            read += next(streams[name])
        calls.send((began, time.monotonic(), read, cpu_seconds() - used, memory()))


class Readers:
    """Processes that read; used as a context."""

    def __init__(self, formats: Mapping[str, Format]) -> None:
        context = multiprocessing.get_context("spawn")
        self._calls, self._processes = [], []
        for _ in range(READERS):
            mine, theirs = context.Pipe()
            self._calls.append(mine)
            self._processes.append(context.Process(target=reader, args=(formats, theirs), daemon=True))
            self._processes[-1].start()
            theirs.close()

    def read(self, name: str, processes: int, clips: int) -> tuple[Reading, list[dict[str, float]]]:
        """Some of them read so many clips each, all at a time, each in orders of its own.

        Returns:
            What it took, and the memory of each afterwards.

        Raises:
            MMSearchError: one of them died.
        """
        try:
            for i, call in enumerate(self._calls[:processes]):
                call.send((name, 10_000 * i, clips))
            answers = [call.recv() for call in self._calls[:processes]]
        except (EOFError, OSError):
            raise MMSearchError(f"bench_data: a process that read {name} died") from None
        began, ended, read, cpu, held = zip(*answers, strict=True)
        return Reading(sum(read) / (max(ended) - min(began)), 1000 * sum(cpu) / max(1, sum(read))), list(held)

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *exc: object) -> None:
        for call, process in zip(self._calls, self._processes, strict=True):
            with contextlib.suppress(OSError):
                call.send(None)
            process.join()


def keep(dataset: Dataset, work: Path, clips: int) -> Format:
    """The dataset in a store of its own, with no other clips in it."""
    say(f"read: the store of {dataset.name}")
    store, where = work / f"store-{dataset.name}", work / f"{dataset.name}.json"
    prepared = prepare(dataset, store)
    if len(Store.open(store)) > prepared.stored:
        shutil.rmtree(store)
        prepared = prepare(dataset, store)
    clip_data(dataset, store, prepared).save(where)
    return Format(open_clips, where, store, clips)


def keep_otherwise(raw: Format, work: Path) -> dict[str, Format]:
    """The arrays of a store in the other formats, written where they are not there yet."""
    data = ClipData.open(raw.where)
    mapped, parquet, tars = (work / f"{kind}-{data.digest}" for kind in ("numpy", "parquet", "webdataset"))
    for path, write in ((mapped, write_mapped), (parquet, write_parquet), (tars, write_webdataset)):
        if not path.exists() and not (path == tars and unusable("webdataset")):
            say(f"read: writing {path.name}")
            fresh = work / f".{path.name}-{os.getpid()}"
            write(fresh, raw if path == mapped else mapped)
            fresh.replace(path)
    formats = {
        MAPPED: Format(open_mapped, mapped, mapped, READ_CLIPS),
        "Parquet": Format(open_parquet, parquet, parquet, SLOW_CLIPS),
    }
    if not unusable("webdataset"):
        formats["WebDataset"] = Format(open_webdataset, tars, tars, SLOW_CLIPS)
    return formats


def write_mapped(folder: Path, raw: Any) -> None:
    """One array a modality, shorter sounds padded with zeros; and the list of clips, for their order."""
    data, store = ClipData.open(raw.where), Store.open(raw.kept)
    keys = json.loads(raw.where.read_text(encoding="utf-8"))["key"]
    folder.mkdir()
    data.save(folder / "clips.json")
    for name, modality in data.modalities.items():
        column = store.column(keys, name)
        dtype = column.read(0).dtype
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (len(keys), *modality.shape))
        for i in np.flatnonzero(column.present):
            clip = column.read(i)
            array[i, : len(clip)] = clip
        array.flush()


def write_parquet(path: Path, mapped: Path) -> None:
    """A column of `fixed_size_binary` a modality."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, layouts = {}, {}
    for file in sorted(mapped.glob("*.npy")):
        array = np.load(file, mmap_mode="r")
        layouts[file.stem] = (array.dtype.str, (-1, *array.shape[1:]))
        columns[file.stem] = pa.Array.from_buffers(pa.binary(array[0].nbytes), len(array), [None, pa.py_buffer(array)])
    table = pa.table(columns).replace_schema_metadata({"layouts": json.dumps(layouts)})
    pq.write_table(table, path, BATCH, compression="none", use_dictionary=False)


def write_webdataset(folder: Path, mapped: Path) -> None:
    """A member a modality, as `.npy`."""
    import webdataset

    arrays = {file.name: np.load(file, mmap_mode="r") for file in sorted(mapped.glob("*.npy"))}
    folder.mkdir()
    with webdataset.ShardWriter(str(folder / "%03d.tar"), maxcount=2 * BATCH, verbose=0) as sink:
        for i, clip in enumerate(zip(*arrays.values(), strict=True)):
            sink.write({"__key__": f"{i:06}", **dict(zip(arrays, clip, strict=True))})


def read_part(formats: Mapping[str, Format], rounds: int) -> tuple[dict[tuple[str, int], list[Reading]], list[Any]]:
    """Reads by one process and by all, round by round, when all has been read once.

    Returns:
        The turns by format and number of processes; and of every reader the memory before its first batch and after
        an epoch of the store, before anything else.
    """
    turns: dict[tuple[str, int], list[Reading]] = {(name, n): [] for name in formats for n in (1, READERS)}
    with Readers(formats) as readers:
        readers.read(RAW, READERS, 0)
        held = [readers.read(RAW, READERS, clips)[1] for clips in (0, READ_CLIPS)]
        for name in formats:
            readers.read(name, READERS, formats[name].clips)
        for i in range(rounds):
            say(f"read: round {i + 1} of {rounds}")
            for name, processes in rotated(turns, i):
                turns[name, processes].append(readers.read(name, processes, formats[name].clips)[0])
    return turns, held


class Bench:
    """The parts of a run.

    Attributes:
        source: where the clips are from.
        missed: a line for every bound missed so far.
    """

    def __init__(self, count: int, rounds: int, work: Path) -> None:
        self._rounds, self._work = rounds, work
        self.missed: list[str] = []
        work.mkdir(parents=True, exist_ok=True)
        self.source, self._clips = clip_files(count, work)

    def decode(self) -> str:
        """The decode part."""
        datasets, note = {DECODED: open_dataset("raw", self._clips, self._work)}, ""
        try:
            other = open_dataset("torchcodec", self._clips, self._work, decoder="torchcodec")
            decode_turn(other, Shard(other, slice(1)), self._work)
            datasets[f"{DECODED}, torchcodec"] = other
        except MMSearchError as error:
            note = f"\n\nWithout torchcodec: {why(error)}"
        return self._told(decode_table(decode_part(datasets, self._work, self._rounds))) + note

    def route(self) -> str:
        """The route part."""
        dataset = open_dataset("raw", self._clips, self._work)
        size = max(1, len(dataset.clips) // (SHARDS_PER_CORE * cores()))
        runs = route_part(dataset, self._work, min(ROUTE_ROUNDS, self._rounds), size)
        return self._told(route_table(runs, size * cores()))

    def read(self) -> str:
        """The read part."""
        raw = keep(open_dataset("raw", self._clips, self._work), self._work, READ_CLIPS)
        jpeg = keep(open_dataset("jpeg", self._clips, self._work, {"codec": "jpeg"}), self._work, SLOW_CLIPS)
        others = keep_otherwise(raw, self._work)
        formats = {MAPPED: others.pop(MAPPED), RAW: raw, "mmsearch, JPEG": jpeg, **others}
        turns, (before, after) = read_part(formats, self._rounds)
        text = self._told(read_table(turns, {name: kept.megabytes for name, kept in formats.items()}))
        if reason := unusable("webdataset"):
            text += f"\n\nWithout WebDataset: {reason}"
        return f"{text}\n\n{memory_table(before, after, raw.megabytes)}"

    def _told(self, table: Table) -> str:
        self.missed += table.missed
        return str(table)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1520, help="of different content (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=20, help=f"at most {ROUTE_ROUNDS} of routes (default: %(default)s)"
    )
    parser.add_argument(
        "--work", type=Path, default=default_store().parent / "bench_data", help="(default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    args = parser.parse_args(arguments)
    try:
        bench = Bench(args.clips, args.rounds, args.work.absolute())
        print(f"{args.clips} clips ({bench.source}), {cores()} cores, {args.rounds} rounds\n")
        for part in args.only:
            print(getattr(bench, part)() + "\n", flush=True)
    except MMSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in bench.missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if bench.missed else 0


if __name__ == "__main__":
    sys.exit(main())
