"""What training takes as data: clips by row, their parts, and batches read from the mapped store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from mmsearch.batch import Batch, Modality, View
from mmsearch.data.splits import PARTS, development_fold, drawn_from, held_part, test_part
from mmsearch.data.store import Store
from mmsearch.errors import MMSearchError, nearest
from mmsearch.files import write_text

if TYPE_CHECKING:
    from mmsearch.data.dataset import Dataset
    from mmsearch.data.pipeline import Prepared

FORMAT = 1
"""Of the file that :meth:`ClipData.save` writes."""


class _Source(Protocol):
    present: np.ndarray

    def read(self, i: int) -> np.ndarray: ...


@dataclasses.dataclass
class _Arrays:
    present: np.ndarray
    arrays: Sequence[np.ndarray] | np.ndarray

    def read(self, i: int) -> np.ndarray:
        return self.arrays[i]


class ClipData:
    """Labelled clips, ready for batches. Made by :func:`clip_data`, :meth:`open` or :meth:`from_arrays`.

    Attributes:
        name: of the dataset.
        digest: short hash of the clips' content, labels and split; the identity of the data in trial documents.
        modalities: what a model must know of each.
        classes: names, in the order of the labels.
        clip_ids: per row.
        label: int64 `[N]`.
        group: int64 `[N]`, or None.
        test: bool `[N]`, the test part.
        quarantined: the clips that were set aside, with `clip_id`, `path` and `reason`.
    """

    def __init__(
        self,
        name: str,
        sources: Mapping[str, _Source],
        modalities: Mapping[str, Modality],
        classes: Sequence[str],
        clip_ids: Sequence[str],
        label: np.ndarray,
        group: np.ndarray | None,
        test: np.ndarray,
        *,
        digest: str,
        origin: tuple[Path, list[str]] | None = None,
        quarantined: Sequence[dict[str, str]] = (),
    ) -> None:
        self.name = name
        self.digest = digest
        self.modalities = dict(modalities)
        self.classes = list(classes)
        self.clip_ids = list(clip_ids)
        self.label = np.asarray(label, np.int64)
        self.group = group
        self.test = np.asarray(test, bool)
        self.quarantined = list(quarantined)
        self._sources = dict(sources)
        self._origin = origin
        self._folds: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.label)

    @classmethod
    def from_arrays(
        cls,
        inputs: Mapping[str, np.ndarray | list[np.ndarray]],
        label: Sequence[int] | np.ndarray,
        *,
        modalities: Mapping[str, Modality],
        classes: Sequence[str] | None = None,
        split: Sequence[str | None] | None = None,
        group: Sequence[Any] | np.ndarray | None = None,
        present: Mapping[str, np.ndarray] | None = None,
    ) -> ClipData:
        """Clips in memory, for tests and notebooks.

        Args:
            inputs: per modality one array a clip: sound int16, or float32 in [-1, 1], `[T]`; frames uint8
                `[F, H, W, 3]`; vector float32 `[D]`.
            label: class of every clip.
            modalities: of every input.
            classes: names; the numbers where not given.
            split: "test" for the test part; without any it is drawn.
            group: clips of one group stay in one part.
            present: per modality bool `[N]`; all present where not given.

        Raises:
            MMSearchError: numbers of clips differ, or no test part can be drawn.
        """
        labels = np.asarray(label, np.int64)
        for name in inputs:
            if name not in modalities:
                raise MMSearchError(f"from_arrays: input {name!r} has no modality{nearest(name, modalities)}")
            if len(inputs[name]) != len(labels):
                raise MMSearchError(
                    f"from_arrays: {name} has {len(inputs[name])} clips, but there are {len(labels)} labels"
                )
        groups = None if group is None else np.unique(np.asarray(group), return_inverse=True)[1].astype(np.int64)
        test = test_part(labels, groups, None if split is None else list(split))
        sources = {
            name: _Arrays(np.ones(len(labels), bool) if not present or name not in present else present[name], arrays)
            for name, arrays in inputs.items()
        }
        names = [str(c) for c in (range(int(labels.max()) + 1) if classes is None else classes)]
        clip_ids = [str(i) for i in range(len(labels))]
        content = hashlib.blake2b(digest_size=16)
        for name in sorted(inputs):
            content.update(f"{modalities[name]}".encode() + sources[name].present.tobytes())
            for array in inputs[name]:
                content.update(np.ascontiguousarray(array).data)
        digest = _digest([content.hexdigest()], labels, groups, test, names)
        return cls("arrays", sources, modalities, names, clip_ids, labels, groups, test, digest=digest)

    def save(self, path: str | Path) -> None:
        """Writes one JSON file that refers to the store.

        Raises:
            MMSearchError: the data is in memory only, or the file cannot be written.
        """
        if self._origin is None:
            raise MMSearchError(f"{path}: clips made from arrays are in no store and cannot be saved")
        store, keys = self._origin
        document = {
            "format": FORMAT,
            "name": self.name,
            "digest": self.digest,
            "store": str(store),
            "modalities": [m.to_dict() for m in self.modalities.values()],
            "classes": self.classes,
            "clip_id": self.clip_ids,
            "key": keys,
            "label": self.label.tolist(),
            "group": None if self.group is None else self.group.tolist(),
            "test": self.test.astype(int).tolist(),
            "quarantined": self.quarantined,
        }
        write_text(Path(path), json.dumps(document))

    @classmethod
    def open(cls, path: str | Path) -> ClipData:
        """The inverse of :meth:`save`; reads nothing of the clips yet.

        Raises:
            MMSearchError: the file is not one of :meth:`save`, or the store lacks a clip.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise MMSearchError(f"{path}: format {document['format']}; this version reads format {FORMAT}")
            modalities = {d["name"]: Modality.from_dict(d) for d in document["modalities"]}
            keys, group = document["key"], document["group"]
            store = Store.open(document["store"])
            return cls(
                document["name"],
                {name: store.column(keys, name) for name in modalities},
                modalities,
                document["classes"],
                document["clip_id"],
                np.array(document["label"], np.int64),
                None if group is None else np.array(group, np.int64),
                np.array(document["test"], bool),
                digest=document["digest"],
                origin=(Path(document["store"]), keys),
                quarantined=document["quarantined"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MMSearchError(f"{path}: not a readable list of clips ({type(error).__name__}: {error})") from None

    def part(self, name: str, fold: int = 0) -> np.ndarray:
        """The rows of one part, int64, in ascending order.

        Args:
            name: "train", "val", "select" or "test"; "held" is cut from train, the same for whoever needs it, and
                "fit" is the rest of train.
            fold: 0 for the search, 1 and up for confirmation; "test" is the same on every fold.

        Raises:
            MMSearchError: no such part, or too few clips or groups for three parts.
        """
        if name in ("held", "fit"):
            rows = self.part("train", fold)
            held = held_part(self.label[rows], None if self.group is None else self.group[rows])
            return rows[held == (name == "held")]
        if name not in PARTS:
            raise MMSearchError(f"unknown part {name!r}{nearest(name, PARTS)}")
        if name == "test":
            return np.flatnonzero(self.test)
        development = np.flatnonzero(~self.test)
        if fold not in self._folds:
            group = None if self.group is None else self.group[development]
            self._folds[fold] = development_fold(self.label[development], group, fold)
        return development[self._folds[fold] == PARTS.index(name)]

    def batches(
        self,
        rows: np.ndarray,
        batch_size: int,
        views: Mapping[str, View],
        *,
        seed: int | None = None,
        epoch: int = 0,
        only: np.ndarray | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Batches of the given rows; only the modalities in `views` are read.

        A pure function of its arguments: what happened before makes no difference.

        Args:
            rows: int64, of :meth:`part`; a row may be there several times.
            batch_size: clips a batch; the last one may be smaller.
            views: which part of every modality to carry.
            seed: None: in the order of `rows`. Else shuffled by seed and epoch, and a last batch of a single clip
                (which batch normalisation cannot take) joins the one before.
            epoch: the epoch, for the shuffle and the random views.
            only: per row the position in `views` of the one modality that counts as present; -1 for all.
            shard: (rank, size): read the inputs of the rank-th of `size` slices of every batch, of the first clip
                where the slice is empty; labels, index and presence are always the whole batch's.

        Yields:
            Batches on the CPU. Frames are uint8 `[B, F, 3, H, W]` (channels last in memory).

        Raises:
            MMSearchError: a view of a modality that is not there.
        """
        for name in views:
            if name not in self.modalities:
                raise MMSearchError(f"unknown modality {name!r}{nearest(name, self.modalities)}")
        rows = np.asarray(rows, np.int64)
        if seed is not None:
            order = np.argsort(_hash(seed, epoch, rows, _SHUFFLE + _repeats(rows)), kind="stable")
            rows, only = rows[order], None if only is None else only[order]
        cuts = list(range(0, len(rows), batch_size))
        if seed is not None and len(cuts) > 1 and len(rows) - cuts[-1] == 1:
            cuts.pop()
        for i, start in enumerate(cuts):
            taken = slice(start, cuts[i + 1] if i + 1 < len(cuts) else len(rows))
            chosen = rows[taken]
            mine = chosen[:1] if shard[0] >= len(chosen) else np.array_split(chosen, shard[1])[shard[0]]
            inputs, present = {}, {}
            for position, (name, view) in enumerate(views.items()):
                there = np.asarray(self._sources[name].present[chosen], bool)
                if only is not None:
                    there = there & np.isin(only[taken], (-1, position))
                present[name] = torch.from_numpy(there)
                inputs[name] = self._gather(name, mine, view, 0 if seed is None else seed, epoch)
            yield Batch(inputs, torch.from_numpy(self.label[chosen]), torch.from_numpy(chosen), present)

    def _gather(self, name: str, rows: np.ndarray, view: View, seed: int, epoch: int) -> torch.Tensor:
        modality, source = self.modalities[name], self._sources[name]
        there = np.flatnonzero(source.present[rows])
        if modality.kind == "sound":
            return _sound(source, rows, there, modality, view, seed, epoch)
        if modality.kind == "vector":
            vectors = np.zeros((len(rows), *modality.shape), np.float32)
            for i in there:
                vectors[i] = source.read(rows[i])
            return torch.from_numpy(vectors)
        total = modality.shape[0]
        count = view.frames or total
        shift = _uniform(_hash(seed, epoch, rows[:, None], np.arange(count)[None])) if view.random else 0.5
        picked = np.minimum(((np.arange(count) + shift) * (total / count)).astype(np.int64), total - 1)
        picked = np.broadcast_to(picked, (len(rows), count))
        pictures = np.zeros((len(rows), count, *modality.shape[1:]), np.uint8)
        for i in there:
            np.take(source.read(rows[i]), picked[i], axis=0, out=pictures[i])
        return torch.from_numpy(pictures).permute(0, 1, 4, 2, 3)


def clip_data(dataset: Dataset, store_dir: str | Path, prepared: Prepared) -> ClipData:
    """The usable clips of a prepared dataset. The test part is drawn before clips are set aside, so that it is
    the dataset's own.

    Raises:
        MMSearchError: a class or a modality has too few usable clips.
    """
    label, group, test = drawn_from(dataset.clips)
    usable = np.array([i for i, key in enumerate(prepared.keys) if key is not None], np.int64)
    keys = [key for key in prepared.keys if key is not None]
    label, test = label[usable], test[usable]
    group = None if group is None else group[usable]
    development = Counter(label[~test].tolist())
    for i, name in enumerate(dataset.classes):
        if not development[i]:
            raise MMSearchError(f"{dataset.path}: class {name!r} has no usable clip outside the test part")
    store = Store.open(Path(store_dir).absolute())
    sources, modalities = {}, {}
    for name, config in dataset.modalities.items():
        column = sources[name] = store.column(keys, name)
        if not column.present.any():
            raise MMSearchError(f"{dataset.path}: no clip has the modality {name!r}; take it out of `modalities`")
        shape = tuple(int(n) for n in column.shape.max(axis=0))
        modalities[name] = Modality(name, config.kind, shape, float(config.settings.get("rate", 0)))
    return ClipData(
        dataset.name,
        sources,
        modalities,
        dataset.classes,
        [dataset.clips[i].clip_id for i in usable],
        label,
        group,
        test,
        digest=_digest([*modalities, *keys], label, group, test, dataset.classes),
        origin=(store.folder, keys),
        quarantined=prepared.quarantined,
    )


def _sound(
    source: _Source, rows: np.ndarray, there: np.ndarray, modality: Modality, view: View, seed: int, epoch: int
) -> torch.Tensor:
    length = modality.shape[0] if view.seconds is None else max(1, round(view.seconds * modality.rate))
    shift = _uniform(_hash(seed, epoch, rows, _CROP)) if view.random else np.full(len(rows), 0.5)
    waves = np.zeros((len(rows), length), np.float32)
    scale = 1.0
    for i in there:
        wave = source.read(rows[i])
        if wave.dtype == np.int16:
            scale = 1 / 32768
        start = int(max(0, len(wave) - length) * shift[i])
        cut = wave[start : start + length]
        waves[i, : len(cut)] = cut
    return torch.from_numpy(waves).mul_(scale)


_SHUFFLE, _CROP = 1 << 32, 1 << 33


def _repeats(rows: np.ndarray) -> np.ndarray:
    """For every row how often it stood before."""
    order = np.argsort(rows, kind="stable")
    first = np.searchsorted(rows[order], rows[order])
    times = np.empty(len(rows), np.int64)
    times[order] = np.arange(len(rows)) - first
    return times


def _hash(seed: int, epoch: int, row: np.ndarray, draw: np.ndarray | int) -> np.ndarray:
    """Independent 64-bit draws for every (seed, epoch, row, draw): splitmix64 (Steele, Lea and Flood 2014), chained."""
    state = np.zeros(1, np.uint64)
    for value in (seed, epoch, row, draw):
        with np.errstate(over="ignore"):
            state = state + np.asarray(value).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def _uniform(bits: np.ndarray) -> np.ndarray:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _digest(
    content: Sequence[str], label: np.ndarray, group: np.ndarray | None, test: np.ndarray, classes: Sequence[str]
) -> str:
    rule = [list(content), label.tolist(), None if group is None else group.tolist(), test.tolist(), list(classes)]
    return hashlib.blake2b(json.dumps(rule).encode(), digest_size=6).hexdigest()
