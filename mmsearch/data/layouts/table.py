"""A CSV of someone's own: a row a clip, columns named by options or by their usual names."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing, Row
from mmsearch.data.layouts._files import (
    KINDS,
    PICTURES,
    SOUNDS,
    VIDEOS,
    is_file,
    is_folder,
    kinds_in,
    modality,
    ordered,
    without_ending,
)
from mmsearch.data.layouts._lists import looks_like_header, read_cells, read_classes, split_of
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import knob

USUAL = {
    "id": ("clip_id", "id", "clip", "name", "youtube_id", "video_id"),
    "path": ("path", "file", "filename", "file_name", "filepath", "video", "video_path", "clip", "name", "id"),
    "label": ("label", "class", "class_name", "category", "emotion", "target"),
    "split": ("split", "set", "subset", "phase", "partition"),
    "group": ("group", "speaker", "speaker_id", "subject", "actor", "source"),
    "start": ("start", "start_time", "start_seconds"),
    "end": ("end", "end_time", "end_seconds"),
}
"""How people call the columns; the first that is there counts."""


@dataclasses.dataclass
class Table(Layout):
    """Separator, header and byte order mark are found; a column is given by its name or its number from 1.

    Without an option for a modality, the files of column path are looked at: a video gives sound and frames.
    """

    name: ClassVar[str] = "csv"
    summary: ClassVar[str] = "a CSV file of your own, a row a clip"
    expects: ClassVar[str] = (
        "ROOT is the file; any separator, header or none; paths relative to it or to --media,\n"
        "with their ending or without"
    )

    media: str = knob("", "folder that the paths are relative to; without it the file's own", search=False)
    path: str = knob("", "column of the files (default: path, file, filename, video, ...)", search=False)
    label: str = knob("", "column of the classes (default: label, class, category, emotion, ...)", search=False)
    id: str = knob("", "column of the clips' names (default: clip_id, id; else the file's name)", search=False)
    split: str = knob("", "column of the splits (default: split, set, subset, ...)", search=False)
    group: str = knob("", "column of speakers or source videos (default: group, speaker, ...)", search=False)
    start: str = knob("", "column of the segment's beginning in seconds (default: start)", search=False)
    end: str = knob("", "column of the segment's end in seconds (default: end)", search=False)
    sound: str = knob("", "column of sound files", search=False)
    frames: str = knob("", "column of videos or of folders of pictures", search=False)
    image: str = knob("", "column of pictures", search=False)
    text: str = knob("", "column of texts (the text itself)", search=False)
    series: str = knob("", "column of .npy files [T, D]", search=False)
    vector: str = knob("", "column of .npy files [D]", search=False)
    classes: str = knob("", "file with the classes, one a line; without it all labels, sorted", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        if not root.is_file():
            raise MMSearchError(f"{root}: is no file; ROOT is the CSV itself")
        media = Path(os.path.normpath(Path(self.media or root.parent).absolute()))
        if not media.is_dir():
            raise MMSearchError(f"--media: {media} is no folder")
        rows = read_cells(root)
        header = rows[0][1] if self._has_header(rows[0][1]) else []
        columns = _Columns(root, header, max(len(cells) for _, cells in rows))
        modalities = {kind: columns.given(kind, getattr(self, kind)) for kind in KINDS if getattr(self, kind)}
        label = columns.need("label", self.label)
        path = None if modalities else columns.need("path", self.path)
        others = {role: columns.find(role, getattr(self, role)) for role in ("id", "split", "group", "start", "end")}
        reader = _Reader(media, label, modalities if path is None else {"path": path}, others)
        rows = rows[1:] if header else rows
        labels = sorted({cells[label] for _, cells in rows if len(cells) > label and cells[label]}, key=_order)
        classes = read_classes(Path(self.classes)) if self.classes else labels
        listing = Listing(media, root.stem, classes)
        for number, cells in rows:
            if len(cells) != columns.width:
                raise MMSearchError(f"{root}:{number}: {len(cells)} cells, but there are {columns.width} columns")
            reader.add(listing, f"{root}:{number}", cells)
        kinds = list(modalities) or ordered(reader.kinds)
        listing.modalities = {kind: modality(kind, "path" if path is not None else kind) for kind in kinds}
        if "text" in modalities:
            listing.modalities["text"]["inline"] = True
        return listing

    def _has_header(self, cells: list[str]) -> bool:
        named = {getattr(self, field.name) for field in dataclasses.fields(self)}
        return looks_like_header(cells) or any(cell in named for cell in cells if cell and not cell.isdigit())


class _Columns:
    """Positions of columns by name or number."""

    def __init__(self, path: Path, header: list[str], width: int) -> None:
        self.path, self.header, self.width = path, header, len(header) or width

    def given(self, role: str, column: str) -> int:
        """The column an option names."""
        if column in self.header:
            return self.header.index(column)
        if column.isdigit() and 1 <= int(column) <= self.width:
            return int(column) - 1
        known = self.header or [str(i + 1) for i in range(self.width)]
        raise MMSearchError(f"{self.path}: --{role}: no column {column!r}{nearest(column, known)}")

    def find(self, role: str, column: str) -> int | None:
        """The column of a role: the one given, else one of the usual names.

        Of two columns without names the first is the path and the second the label.
        """
        if column:
            return self.given(role, column)
        lower = [name.lower().strip("# ").replace(" ", "_") for name in self.header]
        at = next((lower.index(name) for name in USUAL[role] if name in lower), None)
        if at is None and not self.header and role in ("path", "label") and self.width == 2:
            at = ("path", "label").index(role)
        return at

    def need(self, role: str, column: str) -> int:
        """A column that has to be there."""
        at = self.find(role, column)
        if at is None:
            has = f"has {', '.join(self.header)}" if self.header else f"has {self.width} columns without names"
            raise MMSearchError(f"{self.path}: which column is the {role}? {has}; say --{role} COLUMN")
        return at


class _Reader:
    """Turns cells into rows of a listing; knows in `kinds` which modalities the files of column path hold."""

    def __init__(self, media: Path, label: int, columns: dict[str, int], others: dict[str, int | None]) -> None:
        self.media, self.label, self.columns, self.others = media, label, columns, others
        self.kinds: set[str] = set()

    def add(self, listing: Listing, where: str, cells: list[str]) -> None:
        """Adds one row, or counts it as missing."""
        label = cells[self.label]
        if label not in listing.classes:
            raise MMSearchError(f"{where}: label {label!r} is not among the classes{nearest(label, listing.classes)}")
        given = {column: cells[at] for column, at in self.columns.items() if cells[at]}
        texts = {column: " ".join(text.split()) for column, text in given.items() if column == "text"}
        files: dict[str, str] = {}
        for column in given.keys() - texts.keys():
            files[column], reason = self._file(given[column])
            if reason:
                return listing.missing.add(reason, given[column])
        if not given:
            return listing.missing.add("no file is named", where)
        if "path" in files:
            kinds = kinds_in(self.media / files["path"])
            if not kinds:
                return listing.missing.add("an ending that nothing reads", files["path"])
            self.kinds |= kinds
        other = {role: "" if at is None else cells[at] for role, at in self.others.items()}
        start, end = _seconds(other["start"], where), _seconds(other["end"], where)
        name = other["id"] or (without_ending(min(files.values())) if files else where.rpartition(":")[2])
        clip_id = f"{name}_{start}" if start and not other["id"] else name
        split = split_of(other["split"], where)
        listing.rows.append(Row(clip_id, label, files, split, other["group"], start, end, texts))

    def _file(self, text: str) -> tuple[str, str]:
        """The path relative to the media folder, with the ending that it has on disk; or why there is none."""
        path = Path(os.path.normpath(self.media / text.replace("\\", "/")))
        if not path.is_relative_to(self.media):
            return "", f"outside of {self.media} (--media names the folder that holds all)"
        candidates = [path.with_name(path.name + ending) for ending in ("", *_ENDINGS)]
        found = next((candidate for candidate in candidates if _there(candidate)), None)
        return (found.relative_to(self.media).as_posix(), "") if found else ("", "no file")


_ENDINGS = sorted(VIDEOS | SOUNDS | PICTURES | {".npy"})


def _there(path: Path) -> bool:
    return is_file(path) or (is_folder(path) and bool(kinds_in(path)))


def _seconds(text: str, where: str) -> str:
    try:
        good = not text or 0 <= float(text) < 1e9
    except ValueError:
        good = False
    if not good:
        raise MMSearchError(f"{where}: {text!r} is no time in seconds")
    return text


def _order(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() and name.isascii() and len(name) < 19 else (1, 0, name)
