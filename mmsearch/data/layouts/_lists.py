"""Lists of clips as people have them: any separator, with or without a header, either column order."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from mmsearch.errors import MMSearchError, nearest

HEADER_WORDS = {
    "audio", "category", "class", "class_name", "clip", "clip_id", "emotion", "file", "filename", "id", "image",
    "image_path", "label", "labels", "name", "path", "phase", "set", "split", "subset", "target", "text", "title",
    "video", "video_id", "videoid", "youtube_id",
}  # fmt: skip
"""A first row with one of these is a header, unless it is a row of clips."""

SPLIT_WORDS = {
    "train": "train", "training": "train", "tr": "train",
    "val": "val", "valid": "val", "validation": "val", "validating": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""How people call the splits."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of a list.

    Attributes:
        name: of the clip.
        label: name of its class.
        split: "train", "val", "test" or empty.
        where: `file:line`, for messages.
    """

    name: str
    label: str
    split: str
    where: str


def read_cells(path: Path, separator: str | None = None) -> list[tuple[int, list[str]]]:
    """Line number and cells of every line that is not empty.

    UTF-8 with or without a byte order mark, LF or CRLF, quotes honoured. Without a `separator` it is found: the one
    of comma, semicolon, tab and bar that cuts the most lines into the same number of cells, else white space.

    Raises:
        MMSearchError: the file cannot be read, is not UTF-8, is empty, or has quotes that do not match.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise MMSearchError(f"{path}: the list cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise MMSearchError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise MMSearchError(f"{path}: not a text file")
    if separator is None:
        separator = _separator(text)
    rows = _cells(path, text, separator)
    if not rows:
        raise MMSearchError(f"{path}: the list is empty")
    return rows


def _separator(text: str) -> str:
    lines = [line for line in text.splitlines()[:200] if line.strip()]
    best, fit = " ", 0.0
    for separator in (",", ";", "\t", "|"):
        widths = [len(row) for row in csv.reader(lines, delimiter=separator)]
        common = max(set(widths), key=lambda width: (widths.count(width), width)) if widths else 1
        share = widths.count(common) / len(widths) if common > 1 else 0.0
        if share > fit:
            best, fit = separator, share
    return best if fit >= 0.5 else " "


def _cells(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    if separator == " ":
        rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), start=1)]
        return [(number, cells) for number, cells in rows if cells]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise MMSearchError(f"{path}:{reader.line_num}: {error}") from None
    return rows


def looks_like_header(cells: Sequence[str]) -> bool:
    """Whether a first row names columns: one of its cells is a usual column name."""
    return any(cell.strip("# ").lower().replace(" ", "_") in HEADER_WORDS for cell in cells)


def read_list(path: Path, labels: Mapping[str, str], split: str = "") -> list[Entry]:
    """Clips and their classes.

    The label stands in the last column or in the first: where more rows have a known one. The name is the first of
    the other columns; of a path only its last part counts, without an ending.

    Args:
        path: the list; see :func:`read_cells` for what it may look like.
        labels: every spelling of a label (a name, a number) and its class.
        split: of the whole list.

    Raises:
        MMSearchError: a line without name and label, or a label that is not among the classes.
    """
    rows = read_cells(path)
    for number, cells in rows:
        if len(cells) < 2:
            raise MMSearchError(f"{path}:{number}: needs a name and a label, found {cells[0]!r} only")
    first = sum(cells[0] in labels for _, cells in rows)
    last = sum(cells[-1] in labels for _, cells in rows)
    label_at, name_at = (0, 1) if first > last else (-1, 0)
    if rows[0][1][label_at] not in labels and looks_like_header(rows[0][1]):
        rows = rows[1:]
    entries = []
    for number, cells in rows:
        where, label = f"{path}:{number}", cells[label_at]
        if label not in labels:
            raise MMSearchError(f"{where}: label {label!r} is not among the classes{nearest(label, labels)}")
        entries.append(Entry(plain_name(cells[name_at]), labels[label], split, where))
    return entries


def plain_name(text: str) -> str:
    """The last part of a path without the ending of a media file."""
    name = PurePosixPath(text.replace("\\", "/")).name
    stem, dot, ending = name.rpartition(".")
    return stem if dot and ending.lower() in ENDINGS else name


ENDINGS = {
    "avi", "flac", "flv", "h5", "hdf5", "jpg", "jpeg", "m4a", "mkv", "mov", "mp3", "mp4", "mpg", "npy", "ogg",
    "pickle", "pkl", "png", "pt", "wav", "webm",
}  # fmt: skip
"""Endings that :func:`plain_name` takes off; a name with any other dot in it stays as it is."""


def find_list(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first of the names that is a file in one of the folders; an earlier folder wins."""
    names = list(names)
    candidates = (folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.is_file()), None)


def split_of(text: str, where: str) -> str:
    """The split that a word means, such as "val" for `validation`; empty for an empty cell.

    Raises:
        MMSearchError: it means none.
    """
    if not text:
        return ""
    split = SPLIT_WORDS.get(text.lower())
    if split is None:
        raise MMSearchError(f"{where}: unknown split {text!r}{nearest(text, ('train', 'val', 'test'))}")
    return split


def read_classes(path: Path) -> list[str]:
    """A class list: one name a line, or `number name` as in classInd.txt; in the order of the file.

    Raises:
        MMSearchError: fewer than two classes, or one that is there twice.
    """
    classes = []
    for number, cells in read_cells(path, separator=" "):
        name = " ".join(cells[1:] if cells[0].isdigit() and len(cells) > 1 else cells)
        if name in classes:
            raise MMSearchError(f"{path}:{number}: class {name!r} is there twice")
        classes.append(name)
    if len(classes) < 2:
        raise MMSearchError(f"{path}: a single class; at least 2 are needed")
    return classes


def numbered(classes: Collection[str]) -> dict[str, str]:
    """Spellings of labels: every class by its name and by its number from 0."""
    return {**{str(i): name for i, name in enumerate(classes)}, **{name: name for name in classes}}
