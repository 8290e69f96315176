"""A dataset: a YAML file that names a manifest, both checked before anything is decoded."""

from __future__ import annotations

import dataclasses
import errno
import functools
import importlib.util
import os
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from mmsearch.batch import KINDS
from mmsearch.data.decode import DECODERS, STORED, UV, uv_folders
from mmsearch.data.document import Document
from mmsearch.data.manifest import SPLITS, Manifest, printable
from mmsearch.data.quality import Quality
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import Knob

DEFAULT_DECODER = "pyav"


def _table(*settings: Knob) -> dict[str, Knob]:
    return {setting.name: setting for setting in settings}


_FRAMES = Knob("frames", 8, "how many pictures, spread evenly over the clip", low=1, high=512)
_SIZE = Knob("size", 112, "side of the square picture in pixels; the middle of the long side is kept", low=8, high=1024)
_CODEC = Knob("codec", "raw", "how the store keeps pictures", choices=("raw", "jpeg"))
_QUALITY = Knob("quality", 90, "of the JPEG pictures", low=1, high=95, when={"codec": ("jpeg",)})

SETTINGS: dict[str, dict[str, Knob]] = {
    "sound": _table(
        Knob("rate", 16000, "samples a second", low=1000, high=192000),
        Knob("seconds", 10.0, "a longer sound is cut there", low=0.05, high=3600.0),
    ),
    "frames": _table(_FRAMES, _SIZE, _CODEC, _QUALITY),
    "image": _table(_SIZE, _CODEC, _QUALITY),
    "flow": _table(_FRAMES, _SIZE, _CODEC, _QUALITY),
    "text": _table(
        Knob("inline", False, "the cell is the text, not the name of its file", choices=(False, True)),
        Knob("bytes", 4096, "a longer text is cut there", low=1, high=65536),
    ),
    "series": _table(Knob("steps", 4096, "a longer series is cut there", low=1, high=100000)),
    "vector": _table(),
}
"""What the dataset YAML may say of a modality, per kind; a setting's `paper` is its default."""

_MEDIA = ("sound", "frames", "image", "flow")
_FOLDERS = ("frames", "image")
_ARRAYS = ("image", "series", "vector")
_ROW = re.compile(r"(.+\.npy)#([0-9]{1,15})", re.IGNORECASE)

DEFAULT_MODALITIES: dict[str, None] = {"sound": None, "frames": None}
"""Where the YAML names none: both tracks of the file in column `path`."""


@dataclasses.dataclass(frozen=True)
class ModalityConfig:
    """How one modality is found and decoded.

    Attributes:
        kind: one of :data:`SETTINGS`.
        column: the manifest's column with its files (or texts).
        settings: those of its kind in :data:`SETTINGS`, complete.
    """

    kind: str
    column: str
    settings: dict[str, Any]

    @property
    def inline(self) -> bool:
        """Whether the cells are the texts themselves."""
        return bool(self.settings.get("inline"))


@dataclasses.dataclass(frozen=True)
class Clip:
    """One row of the manifest.

    Attributes:
        clip_id: unique in the dataset.
        paths: per modality its file, its folder of pictures, or with `{uv}` in it the two folders of a flow; a
            modality whose cell is empty is left out.
        label: position of its class.
        split: "train", "val", "test" or None.
        group: clips of one group are never in two drawn parts; None without a group column.
        start, end: the segment in seconds, None for the file's own.
        row: the manifest's row as a person counts it.
        rows: per modality whose cell is `file.npy#row` the position along the first axis of the array.
        texts: per modality of inline text its text.
    """

    clip_id: str
    paths: dict[str, Path]
    label: int
    split: str | None
    group: str | None
    start: float | None
    end: float | None
    row: int
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where a person finds it: its first file, else its row of the manifest."""
        return next((printable(str(path)) for path in self.paths.values()), f"row {self.row} of the manifest")


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
        decoder: what reads its media files, one of :data:`mmsearch.data.decode.DECODERS`.
        quality: what is made worse of the clips on purpose, None without a section `quality`.
    """

    name: str
    path: Path
    manifest: Path
    label_column: str
    classes: list[str]
    modalities: dict[str, ModalityConfig]
    clips: list[Clip]
    decoder: str = DEFAULT_DECODER
    quality: Quality | None = None

    @classmethod
    def load(cls, path: str | Path, *, allow_absolute: bool = False) -> Dataset:
        """Reads and checks the YAML file and its manifest; opens no clip.

        Args:
            path: the YAML file.
            allow_absolute: whether a cell of the manifest may lead out of the dataset's root, by an absolute path or
                by `..`. Links are always followed.

        Raises:
            MMSearchError: the first mistake, with its file and line or row.
        """
        document = Document(Path(path))
        document.check_keys(("name", "manifest", "root", "label", "classes", "decoder", "modalities", "quality"))
        name, label_column = _string(document, "name"), _string(document, "label", "label")
        manifest = Manifest(document.path.parent / _string(document, "manifest"))
        root, decoder = _root(document, manifest), _decoder(document)
        modalities = _modalities(document)
        manifest.need("clip_id", "the clip's unique name")
        manifest.need(label_column, "the label")
        for modality, config in modalities.items():
            manifest.need(config.column, f"the {'texts' if config.inline else 'files'} of modality {modality}")
        clip_ids = _clip_ids(manifest)
        names = manifest.filled(label_column)
        classes = document.texts("classes") if "classes" in document.data else sorted(set(names), key=_class_order)
        labels = _labels(manifest, names, classes, document)
        quality = Quality.parse(document, modalities, classes)
        splits, groups = _splits(manifest), _groups(manifest)
        starts, ends = manifest.seconds("start"), manifest.seconds("end")
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if end is not None and end <= (start or 0.0):
                raise MMSearchError(f"{manifest.at(i)}: end {end:g} s is not after start {start or 0:g} s")
        cells = _sources(manifest, modalities, root, allow_absolute)
        clips = [
            Clip(clip_id, found.paths, label, split, group, start, end, row, found.rows, found.texts)
            for clip_id, found, label, split, group, start, end, row in zip(
                clip_ids, cells, labels, splits, groups, starts, ends, manifest.numbers, strict=True
            )
        ]
        dataset = cls(name, document.path, manifest.path, label_column, classes, modalities, clips, decoder, quality)
        dataset._check_classes()
        return dataset

    def sources(self, clip: Clip) -> dict[str, tuple[str, str, dict[str, Any]]]:
        """What :func:`mmsearch.data.decode.decode_clip` takes: per modality of the clip kind, path and settings.

        The settings are those that decide what is stored, and no others: with the content of the files they make the
        clip's identity.
        """
        sources = {}
        for name, config in self.modalities.items():
            settings = self.decoding(name)
            if name in clip.rows:
                settings["row"] = clip.rows[name]
            if name in clip.texts:
                settings["text"] = clip.texts[name]
            if name in clip.paths or name in clip.texts:
                sources[name] = (config.kind, str(clip.paths.get(name, "")), settings)
        return sources

    def decoding(self, name: str) -> dict[str, Any]:
        """The settings that decide what is stored of every file of a modality."""
        config = self.modalities[name]
        settings = _deciding(config.settings)
        if config.kind in _MEDIA and self.decoder != DEFAULT_DECODER:
            settings["decoder"] = self.decoder
        return settings

    def _check_classes(self) -> None:
        if len(self.classes) < 2:
            raise MMSearchError(f"{self.manifest}: {self.label_column} has a single class; at least 2 are needed")
        clips = Counter(clip.label for clip in self.clips)
        if len(clips) < 2:
            raise MMSearchError(f"{self.manifest}: all clips are of one class; clips of at least 2 are needed")
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
            if clips[label] and not development[label]:
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
    if config:
        document.check_keys(("kind", "column", *SETTINGS[kind]), "modalities", name)
    column = config.get("column", "path")
    if not isinstance(column, str):
        raise MMSearchError(f"{where}: column must be the name of a manifest column, not {column!r}")
    settings = {
        key: setting.check(config.get(key, setting.paper), document.at("modalities", str(name), key))
        for key, setting in SETTINGS[kind].items()
    }
    return ModalityConfig(kind, column, settings)


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Without the settings that change nothing: where a text is found, and how pictures are kept when kept as such."""
    raw = settings.get("codec") == "raw"
    return {key: value for key, value in settings.items() if key != "inline" and not (raw and key in STORED)}


def _root(document: Document, manifest: Manifest) -> Path:
    if "root" not in document.data:
        return manifest.path.absolute().parent
    root = document.path.absolute().parent / _string(document, "root")
    if not root.is_dir():
        raise MMSearchError(f"{document.at('root')}: root: {printable(str(root))} is not a folder")
    return root


def _decoder(document: Document) -> str:
    decoder = _string(document, "decoder", DEFAULT_DECODER)
    if decoder not in DECODERS:
        raise MMSearchError(f"{document.at('decoder')}: unknown decoder {decoder!r}{nearest(decoder, DECODERS)}")
    if decoder != DEFAULT_DECODER and importlib.util.find_spec(decoder) is None:
        raise MMSearchError(f"{document.at('decoder')}: {decoder} is not installed: pip install 'mmsearch[{decoder}]'")
    return decoder


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


@dataclasses.dataclass
class _Cells:
    """Where one clip's modalities are; see :class:`Clip`."""

    paths: dict[str, Path] = dataclasses.field(default_factory=dict)
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    texts: dict[str, str] = dataclasses.field(default_factory=dict)


def _sources(
    manifest: Manifest, modalities: dict[str, ModalityConfig], root: Path, allow_absolute: bool
) -> list[_Cells]:
    missing: dict[int, str] = {}
    problem = functools.cache(_problem)
    clips = [_Cells() for _ in manifest.rows]
    for name, config in modalities.items():
        for i, cell in manifest.cells(config.column, names_files=not config.inline):
            if not cell:
                continue
            if config.inline:
                clips[i].texts[name] = cell
                continue
            if not allow_absolute and (leads := leads_out(cell)):
                raise MMSearchError(
                    f"{manifest.at(i)}: {config.column}: {printable(cell)} {leads}: make it relative to "
                    f"{printable(str(root))}, or allow it with --allow-absolute"
                )
            cell, array = array_row(cell, config.kind)
            if array is not None:
                clips[i].rows[name] = array
            path = clips[i].paths[name] = root / cell
            if reason := problem(path, config.kind):
                missing.setdefault(i, f"{config.column}: {reason}")
    for i, clip in enumerate(clips):
        if not clip.paths and not clip.texts:
            columns = sorted({config.column for config in modalities.values()})
            raise MMSearchError(f"{manifest.at(i)}: {' and '.join(columns)} is empty: the clip has no file")
    if missing:
        i = min(missing)
        more = f" (and {len(missing) - 1} more rows like it)" if len(missing) > 1 else ""
        raise MMSearchError(f"{manifest.at(i)}: {missing[i]}{more}")
    return clips


def array_row(cell: str, kind: str) -> tuple[str, int | None]:
    """The file of a cell, and of `file.npy#row` the row; None where it names none, or the kind has none."""
    part = _ROW.fullmatch(cell) if kind in _ARRAYS else None
    return (part[1], int(part[2])) if part else (cell, None)


def leads_out(cell: str) -> str | None:
    """How a cell that names a file leads out of the dataset's root; None where it does not."""
    if cell.startswith("/"):
        return "is absolute"
    return "leads out of the dataset's root" if os.path.normpath(cell).split("/")[0] == ".." else None


def _problem(path: Path, kind: str) -> str | None:
    """What is wrong with a source, None where it can be read."""
    stored_flow = kind == "flow" and UV in str(path)
    if kind == "flow" and not stored_flow and importlib.util.find_spec("cv2") is None:
        return f"{UV} in it would name the two folders of a flow; to compute one: pip install 'mmsearch[flow]'"
    for place in uv_folders(path) if stored_flow else [path]:
        name = printable(str(place))
        try:
            mode = place.stat().st_mode
        except OSError as error:
            return f"{name} {_reason(place, error)}"
        if stat.S_ISDIR(mode) and not (kind in _FOLDERS or stored_flow):
            return f"{name} is a folder"
        if stat.S_ISREG(mode) if stored_flow else not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return f"{name} is not a {'folder' if stored_flow else 'file'}"
    return None


def _reason(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        link = next(p for p in (*reversed(path.parents), path) if p.is_symlink() and not _resolves(p))
        return f"cannot be read: {printable(str(link))} is a loop of links"
    if error.errno == errno.ENOENT and path.is_symlink():
        return f"is a link to {printable(str(path.readlink()))}, which is not there"
    if error.errno == errno.ENOENT:
        hint = "" if printable(str(path)) == str(path) else " (its name is not UTF-8: is the manifest?)"
        return f"is not there{hint}"
    return f"cannot be read: {error.strerror}"


def _resolves(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno != errno.ELOOP
    return True
