"""Kinds of media files by their endings, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmsearch.data.decode import PICTURES
from mmsearch.errors import MMSearchError

VIDEOS = frozenset((".mp4", ".avi", ".flv", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".webm"))
SOUNDS = frozenset((".wav", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".aac"))
STORED = frozenset((".npy", ".pt", ".pkl"))
"""Endings of arrays computed beforehand."""


KINDS = ("sound", "frames", "image", "text", "series", "vector")
"""Kinds that a file's ending can tell."""


def pictures_in(folder: Path) -> int:
    """How many pictures a folder holds; 0 where it is none."""
    try:
        with os.scandir(folder) as entries:
            return sum(Path(e.name).suffix.lower() in PICTURES and not e.name.startswith(".") for e in entries)
    except OSError:
        return 0


def is_file(path: Path) -> bool:
    """Whether a file is there; not where its name is too long or may not be looked at."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there; not where its name is too long or may not be looked at."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name; hidden ones and those that cannot be read are left out."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def files_below(folder: Path) -> Iterator[str]:
    """Every file at any depth, relative to the folder with `/`, sorted; hidden ones are left out.

    Links are followed.

    Raises:
        MMSearchError: a link leads back to a folder above it; the message names it.
    """
    yield from _walk(folder, "", [os.path.realpath(folder)])


def _walk(folder: Path, prefix: str, above: list[str]) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield prefix + entry.name
            continue
        real = os.path.realpath(entry.path)
        if real in above:
            raise MMSearchError(f"{entry.path}: the link leads back to {real}")
        yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", [*above, real])


def kind_of(path: Path) -> str | None:
    """The kind of modality in a file by its ending; a video is frames. None for an ending that nothing reads.

    Raises:
        MMSearchError: a `.npy` file that holds no array of one or two dimensions.
    """
    ending = path.suffix.lower()
    if ending == ".npy":
        return _array_kind(path)
    for endings, kind in ((VIDEOS, "frames"), (SOUNDS, "sound"), (PICTURES, "image"), ({".txt"}, "text")):
        if ending in endings:
            return kind
    return None


def kinds_in(path: Path) -> set[str]:
    """The modalities in one file or folder: a video has sound and frames, a folder of pictures frames."""
    if path.is_dir():
        return {"frames"} if pictures_in(path) else set()
    kind = kind_of(path)
    return {"sound", "frames"} if kind == "frames" else {kind} if kind else set()


def ordered(kinds: set[str]) -> list[str]:
    """Kinds in the order of a dataset YAML.

    Raises:
        MMSearchError: pictures beside videos, which are no two modalities of one clip.
    """
    if {"frames", "image"} <= kinds:
        raise MMSearchError("there are videos and single pictures side by side; which of them are the clips?")
    return [kind for kind in KINDS if kind in kinds]


def _array_kind(path: Path) -> str:
    try:
        axes = np.load(path, mmap_mode="r", allow_pickle=False).ndim
    except (OSError, ValueError, EOFError) as error:
        raise MMSearchError(f"{path}: not a .npy array: {error}") from None
    if axes not in (1, 2):
        raise MMSearchError(f"{path}: needs one dimension (vector) or two (series), found {axes}")
    return "vector" if axes == 1 else "series"


def modality(kind: str, column: str) -> dict[str, Any]:
    """What dataset.yaml says of a modality of this kind: its column, and settings other than the usual ones."""
    return {"kind": kind, "column": column, **({"codec": "jpeg"} if kind in ("frames", "image") else {})}


def without_ending(cell: str) -> str:
    """A path without the ending of its last part."""
    return str(PurePosixPath(cell).with_suffix(""))
