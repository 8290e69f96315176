"""What training takes as data: clips by row, their parts, and batches read from the mapped store."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mmsearch.batch import Batch, Modality, View, even_slices
from mmsearch.data._gather import SHUFFLE, WINDOW, Source, Visits, augmentation, gather, hashed
from mmsearch.data.places import beside, said
from mmsearch.data.prefetch import prefetch
from mmsearch.data.quality import Quality
from mmsearch.data.splits import PARTS, development_fold, drawn_from, held_part, test_part
from mmsearch.data.store import Store
from mmsearch.errors import MMSearchError, nearest
from mmsearch.files import write_text

if TYPE_CHECKING:
    from mmsearch.data.dataset import Dataset
    from mmsearch.data.pipeline import Prepared

LIST = ".json"
"""How the name of a list of clips ends, as :meth:`ClipData.save` writes it."""

FORMAT = 2
"""Of the file that :meth:`ClipData.save` writes. Format 1 had an absolute store, one order and no quality."""

ORDERS = ("clips", "shards")
"""How an epoch is shuffled; see :func:`clip_data`."""

WINDOW_SHARDS = 4
"""So many shards of the store are shuffled together where an epoch goes shard by shard."""


@dataclasses.dataclass
class _Arrays:
    present: np.ndarray
    arrays: Sequence[np.ndarray] | np.ndarray

    def read(self, i: int) -> np.ndarray:
        return self.arrays[i]

    def take(self, i: int, picks: np.ndarray) -> np.ndarray:
        return self.arrays[i][picks]


def is_list(address: str) -> bool:
    """Whether a path or an address is by its name one of a list of clips."""
    return address.partition("?")[0].endswith(LIST)


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
        truth: per row what the quality dials did to the clip, as in :class:`mmsearch.data.quality.Applied`; empty
            without any.
        order: one of :data:`ORDERS`, how an epoch is shuffled.
    """

    def __init__(
        self,
        name: str,
        sources: Mapping[str, Source],
        modalities: Mapping[str, Modality],
        classes: Sequence[str],
        clip_ids: Sequence[str],
        label: np.ndarray,
        group: np.ndarray | None,
        test: np.ndarray,
        *,
        digest: str,
        quarantined: Sequence[dict[str, str]] = (),
        truth: Mapping[str, np.ndarray] | None = None,
        shard_of: np.ndarray | None = None,
        document: dict[str, Any] | None = None,
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
        self.truth = dict(truth or {})
        self.order = ORDERS[0] if shard_of is None else ORDERS[1]
        self._sources = dict(sources)
        self._shard_of = shard_of
        self._document = document
        self._folds: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.label)

    @property
    def store(self) -> str:
        """Where its clips lie: a folder, or an address; empty for clips in memory."""
        return str((self._document or {}).get("store", ""))

    @property
    def decoding(self) -> dict[str, dict[str, Any]] | None:
        """Per modality the manifest's `column`, whether its cells are `inline` texts, and the `settings` of decoding.

        None where nothing was decoded, or an older version listed the clips.
        """
        return (self._document or {}).get("decoding")

    @property
    def quality(self) -> dict[str, Any] | None:
        """What was made worse of the clips on purpose, as of :meth:`Quality.identity`; None where nothing was."""
        return (self._document or {}).get("quality")

    @classmethod
    def from_arrays(
        cls,
        inputs: Mapping[str, np.ndarray | Sequence[np.ndarray] | Sequence[str]],
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
                `[F, H, W, 3]`; image uint8 `[1, H, W, 3]`; flow uint8 `[F, H, W, 2]`; text a string, or its UTF-8
                bytes as uint8 `[L]`; series float32 `[T, D]`; vector float32 `[D]`.
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
        clips: dict[str, Any] = {}
        for name, given in inputs.items():
            if name not in modalities:
                raise MMSearchError(f"from_arrays: input {name!r} has no modality{nearest(name, modalities)}")
            if len(given) != len(labels):
                raise MMSearchError(f"from_arrays: {name} has {len(given)} clips, but there are {len(labels)} labels")
            clips[name] = [_as_bytes(text) for text in given] if modalities[name].kind == "text" else given
        groups = None if group is None else np.unique(np.asarray(group), return_inverse=True)[1].astype(np.int64)
        test = test_part(labels, groups, None if split is None else list(split))
        sources = {
            name: _Arrays(np.ones(len(labels), bool) if not present or name not in present else present[name], arrays)
            for name, arrays in clips.items()
        }
        names = [str(c) for c in (range(int(labels.max()) + 1) if classes is None else classes)]
        clip_ids = [str(i) for i in range(len(labels))]
        content = hashlib.blake2b(digest_size=16)
        for name in sorted(clips):
            content.update(f"{modalities[name]}".encode() + sources[name].present.tobytes())
            for array in clips[name]:
                content.update(np.ascontiguousarray(array).data)
        digest = _digest([content.hexdigest()], labels, groups, test, names)
        return cls("arrays", sources, modalities, names, clip_ids, labels, groups, test, digest=digest)

    def save(self, path: str | Path) -> None:
        """Writes one JSON file that refers to the store: by a relative path where the store lies below its folder.

        Raises:
            MMSearchError: the data is in memory only, or the file cannot be written.
        """
        if self._document is None:
            raise MMSearchError(f"{path}: clips made from arrays are in no store and cannot be saved")
        store = self._document["store"]
        folder = Path(path).absolute().parent
        if "://" not in store and Path(store).is_relative_to(folder):
            store = Path(store).relative_to(folder).as_posix()
        write_text(Path(path), json.dumps({**self._document, "store": store}))

    def send(self, address: str) -> None:
        """As :meth:`save`, to a path or to an address such as `s3://bucket/mine.json`.

        Raises:
            MMSearchError: as :meth:`save`.
        """
        if "://" not in address:
            self.save(address)
            return
        place, name = beside(address)
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / name)
            try:
                place.write(name, (Path(folder) / name).read_bytes())
            except OSError as error:
                raise MMSearchError(f"{address}: cannot be written: {said(error)}") from None

    @classmethod
    def fetch(cls, address: str) -> ClipData:
        """As :meth:`open`, from a path or from an address.

        Raises:
            MMSearchError: as :meth:`open`.
        """
        if "://" not in address:
            return cls.open(address)
        place, name = beside(address)
        with tempfile.TemporaryDirectory() as folder:
            try:
                (Path(folder) / name).write_bytes(place.read(name))
            except OSError as error:
                raise MMSearchError(f"{address}: cannot be read: {said(error)}") from None
            return cls.open(Path(folder) / name)

    @classmethod
    def open(cls, path: str | Path) -> ClipData:
        """The inverse of :meth:`save`; reads nothing of the clips yet.

        Raises:
            MMSearchError: the file is not one of :meth:`save`, or the store lacks a clip.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if not 1 <= document["format"] <= FORMAT:
                raise MMSearchError(f"{path}: format {document['format']}; this version reads formats 1 to {FORMAT}")
            document = {"shard": None, "quality": None, **document, "format": FORMAT}
            if "://" not in document["store"]:
                document["store"] = str(Path(path).absolute().parent / document["store"])
            return _of_document(document, Store.open(document["store"]), path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MMSearchError(f"{path}: not a readable list of clips ({type(error).__name__}: {error})") from None

    def part(self, name: str, fold: int | None = 0) -> np.ndarray:
        """The rows of one part, int64, in ascending order.

        Args:
            name: "train", "val", "select" or "test"; "held" is cut from train, the same for whoever needs it, and
                "fit" is the rest of train.
            fold: 0 for the search, 1 and up for confirmation; "test" is the same on every fold. None: the whole
                development part is train, and val and select are those of fold 0, trained on as well.

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
        if fold is None:
            return development if name == "train" else self.part(name, 0)
        if fold not in self._folds:
            group = None if self.group is None else self.group[development]
            self._folds[fold] = development_fold(self.label[development], group, fold)
        return development[self._folds[fold] == PARTS.index(name)]

    def incomplete(self) -> float:
        """The share of the development clips that lack a modality."""
        there = np.all([source.present for source in self._sources.values()], axis=0)
        return float(1 - there[~self.test].mean())

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
        skip: int = 0,
        device: torch.device | None = None,
    ) -> Generator[Batch, None, None]:
        """Batches of the given rows; only the modalities in `views` are read.

        A pure function of its arguments: what happened before makes no difference. With `skip` the batches are
        those that are left of an epoch that was stopped.

        Args:
            rows: int64, of :meth:`part`; a row may be there several times, with other random numbers every time.
            batch_size: clips a batch; the last one may be smaller.
            views: which part of every modality to carry.
            seed: None: in the order of `rows`, and nothing is augmented. Else shuffled by seed and epoch, and a last
                batch of a single clip (which batch normalisation cannot take) joins the one before.
            epoch: the epoch, for the shuffle, the random views and the draws.
            only: per row the position in `views` of the one modality that counts as present; -1 for all.
            shard: (rank, size): read the inputs and draws of the rank-th of `size` slices of every batch, of the
                first clip where the slice is empty; labels, index and presence are always the whole batch's.
            skip: so many batches at the beginning are left out and nothing of them is read.
            device: where the batches are used. For a GPU a thread reads ahead and puts them into pinned memory;
                close the generator where it is left early.

        Yields:
            Batches on the CPU. Frames are uint8 `[B, F, 3, H, W]` (channels last in memory).

        Raises:
            MMSearchError: a view of a modality that is not there.
        """
        for name in views:
            if name not in self.modalities:
                raise MMSearchError(f"unknown modality {name!r}{nearest(name, self.modalities)}")
        clips = Visits.of(np.asarray(rows, np.int64), len(self), seed or 0, epoch)
        if seed is not None:
            order = self._order(clips)
            clips, only = clips[order], None if only is None else only[order]
        starts = list(range(0, len(clips), batch_size))
        if seed is not None and len(starts) > 1 and len(clips) - starts[-1] == 1:
            starts.pop()
        cuts = [slice(a, b) for a, b in itertools.pairwise([*starts, len(clips)])][skip:]
        batches = (self._batch(clips[c], None if only is None else only[c], views, seed, shard) for c in cuts)
        return prefetch(batches, device) if device is not None and device.type == "cuda" else batches

    def stored(self, modality: str, row: int) -> np.ndarray | None:
        """One clip's modality as it is stored, of the shape that :class:`~mmsearch.batch.Modality` says; None without.

        Raises:
            MMSearchError: the store is not there.
        """
        source = self._sources[modality]
        return source.read(row) if source.present[row] else None

    def _order(self, clips: Visits) -> np.ndarray:
        """The shuffle of an epoch; where it goes by shards, windows of them one after the other."""
        key = clips.bits(SHUFFLE)
        if self._shard_of is None:
            return np.argsort(key, kind="stable")
        shards, mine = np.unique(self._shard_of[clips.row], return_inverse=True)
        place = np.argsort(np.argsort(hashed(clips.seed, clips.epoch, shards, WINDOW)))
        return np.lexsort((key, place[mine] // WINDOW_SHARDS))

    def _batch(
        self,
        clips: Visits,
        only: np.ndarray | None,
        views: Mapping[str, View],
        seed: int | None,
        shard: tuple[int, int],
    ) -> Batch:
        rank, size = shard
        mine = clips[:1] if rank >= len(clips) else clips[even_slices(len(clips), size)[rank]]
        inputs, present, draws = {}, {}, {}
        for position, (name, view) in enumerate(views.items()):
            there = np.asarray(self._sources[name].present[clips.row], bool)
            if only is not None:
                there = there & np.isin(only, (-1, position))
            present[name] = torch.from_numpy(there)
            inputs[name] = gather(self._sources[name], self.modalities[name], view, mine)
            if view.draws and seed is not None:
                draws[name] = augmentation(name, view, mine)
        label = torch.from_numpy(self.label[clips.row])
        return Batch(inputs, label, torch.from_numpy(clips.row), present, draws)

    def worse(self, quality: Quality) -> ClipData:
        """The same clips with quality dials turned, on top of what may have been done to them; in memory alone.

        Args:
            quality: reads the clips as they are here; `truth` is then what these dials did.

        Raises:
            MMSearchError: dials of a modality or a class that is not there, or of another kind.
        """
        made = quality.apply(self._sources, self.modalities, self.label, self.test, self.clip_ids, self.classes)
        clip_ids, test = [self.clip_ids[i] for i in made.rows], self.test[made.rows]
        group, shard = (None if x is None else x[made.rows] for x in (self.group, self._shard_of))
        return ClipData(
            self.name,
            made.sources,
            self.modalities,
            self.classes,
            clip_ids,
            made.label,
            group,
            test,
            digest=_digest([self.digest, quality.identity()], made.label, group, test, self.classes),
            quarantined=self.quarantined,
            truth=made.truth,
            shard_of=shard,
        )

    def warm(self) -> None:
        """Brings what is stored elsewhere to this machine."""
        for source in self._sources.values():
            if hasattr(source, "warm"):
                source.warm()


def clip_data(dataset: Dataset, store_dir: str | Path, prepared: Prepared, *, order: str = "clips") -> ClipData:
    """The usable clips of a prepared dataset. The test part is drawn before clips are set aside, so that it is
    the dataset's own.

    Args:
        dataset: as :func:`mmsearch.data.prepare` took it.
        store_dir: the store's folder, or the address of one elsewhere such as `s3://bucket/store`.
        prepared: what came of it.
        order: `clips`: an epoch is shuffled as a whole. `shards`: it goes through windows of a few shards of the store,
            shuffled, and shuffles the clips of a window; for a store that does not fit on the local disk. Part of the
            data's identity, since it changes the training.

    Raises:
        MMSearchError: a class or a modality has too few usable clips.
    """
    if order not in ORDERS:
        raise MMSearchError(f"unknown order {order!r}{nearest(order, ORDERS)}")
    label, group, test = drawn_from(dataset.clips)
    usable = np.array([i for i, key in enumerate(prepared.keys) if key is not None], np.int64)
    keys = [key for key in prepared.keys if key is not None]
    label, test = label[usable], test[usable]
    group = None if group is None else group[usable]
    listed = {clip.label for clip in dataset.clips}
    development = Counter(label[~test].tolist())
    for i, name in enumerate(dataset.classes):
        if i in listed and not development[i]:
            raise MMSearchError(f"{dataset.path}: class {name!r} has no usable clip outside the test part")
    store = Store.open(store_dir)
    modalities = {}
    for name, config in dataset.modalities.items():
        column = store.column(keys, name)
        if not column.present.any():
            raise MMSearchError(f"{dataset.path}: no clip has the modality {name!r}; take it out of `modalities`")
        shape = tuple(int(n) for n in column.shape.max(axis=0))
        modalities[name] = Modality(name, config.kind, shape, float(config.settings.get("rate", 0)))
    content = [*modalities, *keys]
    quality = dataset.quality
    if quality is not None:
        content += ["quality", quality.identity()]
    shard = None
    if order == "shards":
        shard = _by_appearance(column.shard_of).tolist()
        content += ["shards", *map(str, shard)]
    document = {
        "format": FORMAT,
        "name": dataset.name,
        "digest": _digest(content, label, group, test, dataset.classes),
        "store": store.place.text,
        "modalities": [m.to_dict() for m in modalities.values()],
        "decoding": {
            name: {"column": c.column, "inline": c.inline, "settings": dataset.decoding(name)}
            for name, c in dataset.modalities.items()
        },
        "classes": list(dataset.classes),
        "clip_id": [dataset.clips[i].clip_id for i in usable],
        "key": keys,
        "label": label.tolist(),
        "group": None if group is None else group.tolist(),
        "test": test.astype(int).tolist(),
        "quarantined": list(prepared.quarantined),
        "shard": shard,
        "quality": None if quality is None else json.loads(quality.identity()),
    }
    return _of_document(document, store, dataset.path)


def _as_bytes(text: str | np.ndarray) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8) if isinstance(text, str) else text


def _of_document(document: dict[str, Any], store: Store, where: str | Path) -> ClipData:
    """The clips that a file of :meth:`ClipData.save` lists, at their quality; `where` is for errors."""
    modalities = {d["name"]: Modality.from_dict(d) for d in document["modalities"]}
    sources: Mapping[str, Source] = {name: store.column(document["key"], name) for name in modalities}
    clip_ids, classes, truth = document["clip_id"], document["classes"], None
    label, test = np.array(document["label"], np.int64), np.array(document["test"], bool)
    group, shard = (None if document[k] is None else np.array(document[k], np.int64) for k in ("group", "shard"))
    if document["quality"] is not None:
        made = _quality(document["quality"], where).apply(sources, modalities, label, test, clip_ids, classes)
        sources, label, truth, rows = made.sources, made.label, made.truth, made.rows
        clip_ids, test = [clip_ids[i] for i in rows], test[rows]
        group, shard = (None if x is None else x[rows] for x in (group, shard))
    return ClipData(
        document["name"],
        sources,
        modalities,
        classes,
        clip_ids,
        label,
        group,
        test,
        digest=document["digest"],
        quarantined=document["quarantined"],
        truth=truth,
        shard_of=shard,
        document=document,
    )


def _quality(identity: Mapping[str, Any], where: str | Path) -> Quality:
    """The dials of which this is the identity.

    Raises:
        MMSearchError: in this version they would give other clips.
    """
    quality = Quality.from_dict({k: v for k, v in identity.items() if k != "version"})
    if json.loads(quality.identity()) != identity:
        raise MMSearchError(
            f"{where}: this version of mmsearch makes other clips of its quality dials; list them again"
        )
    return quality


def _by_appearance(shard_of: np.ndarray) -> np.ndarray:
    """The same shards, numbered in the order of their first clips: whatever else a store holds, they stay the same."""
    _, first, inverse = np.unique(shard_of, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _digest(
    content: Sequence[str], label: np.ndarray, group: np.ndarray | None, test: np.ndarray, classes: Sequence[str]
) -> str:
    rule = [list(content), label.tolist(), None if group is None else group.tolist(), test.tolist(), list(classes)]
    return hashlib.blake2b(json.dumps(rule).encode(), digest_size=6).hexdigest()
