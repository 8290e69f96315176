"""A dataset: a YAML file that names a manifest, both checked before anything is decoded."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

from mmsearch.batch import KINDS
from mmsearch.data.document import Document
from mmsearch.data.manifest import SPLITS, Manifest
from mmsearch.errors import MMSearchError, nearest

SETTINGS: dict[str, dict[str, tuple[int | float, int | float, int | float]]] = {
    "sound": {"rate": (16000, 1000, 192000), "seconds": (10.0, 0.05, 3600.0)},
    "frames": {"frames": (8, 1, 512), "size": (112, 8, 1024)},
    "image": {"size": (112, 8, 1024)},
    "vector": {},
}
"""Decode settings per kind that works now: default, least and most. A kind that is not here comes later.

rate: samples a second. seconds: a longer sound is cut there. frames: that many, spread evenly over the clip.
size: side of the square picture in pixels (short side scaled, middle of the long side kept).
"""

DEFAULT_MODALITIES: dict[str, None] = {"sound": None, "frames": None}
"""Where the YAML names none: both tracks of the file in column `path`."""


@dataclasses.dataclass(frozen=True)
class ModalityConfig:
    """How one modality is found and decoded.

    Attributes:
        kind: one of :data:`SETTINGS`.
        column: the manifest's column with its files.
        settings: decode settings, complete.
    """

    kind: str
    column: str
    settings: dict[str, int | float]


@dataclasses.dataclass(frozen=True)
class Clip:
    """One row of the manifest.

    Attributes:
        clip_id: unique in the dataset.
        paths: per modality its file; a modality whose cell is empty is left out.
        label: position of its class.
        split: "train", "val", "test" or None.
        group: clips of one group are never in two drawn parts; None without a group column.
        start, end: the segment in seconds, None for the file's own.
        row: the manifest's row as a person counts it.
    """

    clip_id: str
    paths: dict[str, Path]
    label: int
    split: str | None
    group: str | None
    start: float | None
    end: float | None
    row: int


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A checked dataset; made by :meth:`load`.

    Attributes:
        name: as in the YAML.
        path: the YAML file.
        manifest: the manifest file.
        label_column: which column is the task.
        classes: names, in the order of the labels.
        modalities: by name.
        clips: in the order of the manifest.
    """

    name: str
    path: Path
    manifest: Path
    label_column: str
    classes: list[str]
    modalities: dict[str, ModalityConfig]
    clips: list[Clip]

    @classmethod
    def load(cls, path: str | Path) -> Dataset:
        """Reads and checks the YAML file and its manifest; opens no clip.

        Raises:
            MMSearchError: the first mistake, with its file and line or row.
        """
        document = Document(Path(path))
        document.check_keys(("name", "manifest", "label", "classes", "modalities"))
        name, label_column = _string(document, "name"), _string(document, "label", "label")
        manifest = Manifest(document.path.parent / _string(document, "manifest"))
        modalities = _modalities(document)
        manifest.need("clip_id", "the clip's unique name")
        manifest.need(label_column, "the label")
        for modality, config in modalities.items():
            manifest.need(config.column, f"the files of modality {modality}")
        clip_ids = _clip_ids(manifest)
        texts = manifest.filled(label_column)
        classes = document.texts("classes") if "classes" in document.data else sorted(set(texts), key=_class_order)
        labels = _labels(manifest, texts, classes, document)
        splits, groups = _splits(manifest), _groups(manifest)
        starts, ends = manifest.seconds("start"), manifest.seconds("end")
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if end is not None and end <= (start or 0.0):
                raise MMSearchError(f"{manifest.at(i)}: end {end:g} s is not after start {start or 0:g} s")
        paths = _paths(manifest, modalities)
        clips = [Clip(*cells) for cells in zip(
            clip_ids, paths, labels, splits, groups, starts, ends, manifest.numbers, strict=True
        )]  # fmt: skip
        dataset = cls(name, document.path, manifest.path, label_column, classes, modalities, clips)
        dataset._check_classes()
        return dataset

    def _check_classes(self) -> None:
        if len(self.classes) < 2:
            raise MMSearchError(f"{self.manifest}: {self.label_column} has a single class; at least 2 are needed")
        clips = Counter(clip.label for clip in self.clips)
        development = Counter(clip.label for clip in self.clips if clip.split != "test")
        if not development:
            raise MMSearchError(f"{self.manifest}: every clip is in the test split; none is left for train")
        if "train" not in {clip.split or "train" for clip in self.clips}:
            raise MMSearchError(f"{self.manifest}: the train split is empty")
        for label, name in enumerate(self.classes):
            if clips[label] == 1:
                row = next(clip.row for clip in self.clips if clip.label == label)
                raise MMSearchError(
                    f"{self.manifest}: row {row}: class {name!r} has this clip only; every class needs at least 2"
                )
            if not development[label]:
                raise MMSearchError(f"{self.manifest}: class {name!r} has no clip outside the test split")


def _string(document: Document, key: str, default: str | None = None) -> str:
    value = document.data.get(key, default)
    if value is None and key not in document.data:
        raise MMSearchError(f"{document.at()}: needs the key {key!r}")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise MMSearchError(f"{document.at(key)}: {key} must be a text, not {value!r}")
    return str(value).strip()


def _modalities(document: Document) -> dict[str, ModalityConfig]:
    given = document.data.get("modalities", DEFAULT_MODALITIES)
    if not isinstance(given, dict) or not given:
        raise MMSearchError(f"{document.at('modalities')}: modalities needs `name: {{kind: ...}}` lines")
    return {str(name): _modality(document, name, config) for name, config in given.items()}


def _modality(document: Document, name: Any, config: Any) -> ModalityConfig:
    where = document.at("modalities", str(name))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", str(name)):
        raise MMSearchError(f"{where}: modality {name!r}: letters, digits and _ make a name, a letter first")
    config = {} if config is None else config
    if not isinstance(config, dict):
        raise MMSearchError(f"{where}: modality {name!r} needs a mapping, as in {{kind: sound}}, not {config!r}")
    kind = config.get("kind", name)
    if kind not in KINDS:
        raise MMSearchError(f"{where}: modality {name!r} has the unknown kind {kind!r}{nearest(str(kind), KINDS)}")
    if kind not in SETTINGS:
        raise MMSearchError(
            f"{where}: modality {name!r}: kind {kind!r} is not available yet; available: {', '.join(SETTINGS)}"
        )
    if config:
        document.check_keys(("kind", "column", *SETTINGS[kind]), "modalities", name)
    column = config.get("column", "path")
    if not isinstance(column, str):
        raise MMSearchError(f"{where}: column must be the name of a manifest column, not {column!r}")
    settings: dict[str, int | float] = {}
    for key, (default, low, high) in SETTINGS[kind].items():
        value = config.get(key, default)
        whole = isinstance(default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not low <= value <= high:
            line, number = document.at("modalities", name, key), "a whole number" if whole else "a number"
            raise MMSearchError(f"{line}: {key} is {value!r}; it must be {number} from {low:g} to {high:g}")
        settings[key] = type(default)(value)
    return ModalityConfig(kind, column, settings)


def _clip_ids(manifest: Manifest) -> list[str]:
    clip_ids = manifest.filled("clip_id")
    first: dict[str, int] = {}
    for i, clip_id in enumerate(clip_ids):
        if clip_id in first:
            before = manifest.numbers[first[clip_id]]
            raise MMSearchError(f"{manifest.at(i)}: clip_id {clip_id!r} was given in row {before} already")
        first[clip_id] = i
    return clip_ids


def _labels(manifest: Manifest, texts: list[str], classes: list[str], document: Document) -> list[int]:
    position = {name: i for i, name in enumerate(classes)}
    if len(position) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise MMSearchError(f"{document.at('classes')}: class {twice!r} is there twice")
    for i, text in enumerate(texts):
        if text not in position:
            raise MMSearchError(f"{manifest.at(i)}: label {text!r} is not among the classes{nearest(text, classes)}")
    unused = [name for name in classes if name not in set(texts)]
    if unused:
        raise MMSearchError(f"{document.at('classes')}: class {unused[0]!r} has no clip{nearest(unused[0], texts)}")
    return [position[text] for text in texts]


def _class_order(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if re.fullmatch(r"-?\d{1,18}", name) else (1, 0, name)


def _splits(manifest: Manifest) -> list[str | None]:
    if "split" not in manifest.columns:
        return [None] * len(manifest.rows)
    for i, text in manifest.cells("split"):
        if text and text not in SPLITS:
            raise MMSearchError(f"{manifest.at(i)}: unknown split {text!r}{nearest(text, SPLITS)}")
    return [text or None for _, text in manifest.cells("split")]


def _groups(manifest: Manifest) -> list[str | None]:
    if "group" not in manifest.columns or not any(text for _, text in manifest.cells("group")):
        return [None] * len(manifest.rows)
    return list(manifest.filled("group"))


def _paths(manifest: Manifest, modalities: dict[str, ModalityConfig]) -> list[dict[str, Path]]:
    folder = manifest.path.absolute().parent
    paths: list[dict[str, Path]] = []
    missing: dict[int, str] = {}
    for i, row in enumerate(manifest.rows):
        found: dict[str, Path] = {}
        for name, config in modalities.items():
            if not row[config.column]:
                continue
            found[name] = folder / row[config.column]
            if found[name] not in list(found.values())[:-1] and not _is_file(found[name]):
                missing.setdefault(i, f"{config.column}: {found[name]} is not a file that can be read")
        if not found:
            columns = sorted({config.column for config in modalities.values()})
            raise MMSearchError(f"{manifest.at(i)}: {' and '.join(columns)} is empty: the clip has no file")
        paths.append(found)
    if missing:
        i, what = next(iter(missing.items()))
        more = f" (and {len(missing) - 1} more rows like it)" if len(missing) > 1 else ""
        raise MMSearchError(f"{manifest.at(i)}: {what}{more}")
    return paths


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
