"""A folder a modality, matched by the path of their files below it."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing, Row
from mmsearch.data.layouts._files import KINDS, PICTURES, files_below, kind_of, modality, subfolders, without_ending
from mmsearch.data.layouts._lists import (
    SPLIT_WORDS,
    looks_like_header,
    plain_name,
    read_cells,
    read_classes,
    split_of,
)
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import knob

COLUMNS = ("clip_id", "label", "split", "group", "start", "end")
"""Of a manifest, beside those of the modalities."""


@dataclasses.dataclass
class Paired(Layout):
    """`sound/dog/a.wav` and `frames/dog/a.mp4` are one clip; one of them without the other lacks a modality.

    A modality is called like its folder and is of the kind of most of its files, unless --kinds says another. Where
    that is frames and the files are pictures, a clip is a folder of pictures.
    """

    name: ClassVar[str] = "paired"
    summary: ClassVar[str] = "a folder a modality, files matched by their names"
    expects: ClassVar[str] = (
        "<modality>/<class>/<clip>.<ending>, or <modality>/<split>/<class>/<clip>.<ending>;\n"
        "with --labels also <modality>/<clip>.<ending>"
    )

    labels: str = knob("", "CSV of clip, label and perhaps split, where the folders are not the classes", search=False)
    kinds: str = knob("", "kinds that endings do not tell, as in frames=frames,faces=image", search=False)
    classes: str = knob("", "file with the classes, one a line; without it all labels, sorted", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        folders = [path.name for path in subfolders(root)]
        if len(folders) < 2:
            raise MMSearchError(f"{root}: fewer than two folders in it; looked for a folder a modality")
        kinds = self._kinds(folders)
        clips: dict[str, dict[str, str]] = {}
        listing = Listing(root, root.resolve().name or "paired", [])
        for folder in folders:
            found = self._files(listing, folder, kinds.get(folder))
            if found:
                kind, files = found
                name = modality_name(folder)
                if name in listing.modalities:
                    raise MMSearchError(f"{root / folder}: another folder gives the modality {name} too; rename one")
                listing.modalities[name] = modality(kind, name)
                for key, cell in files.items():
                    clips.setdefault(key, {})[name] = cell
        labelled = read_labels(Path(self.labels), clips) if self.labels else {key: by_folder(key) for key in clips}
        listing.classes = (
            read_classes(Path(self.classes)) if self.classes else sorted({x for x, _ in labelled.values() if x})
        )
        self._rows(listing, clips, labelled)
        return listing

    def _kinds(self, folders: list[str]) -> dict[str, str]:
        pairs = [text.strip().partition("=") for text in self.kinds.split(",") if text.strip()]
        for name, _, kind in pairs:
            if name not in folders:
                raise MMSearchError(f"--kinds: no folder {name!r}{nearest(name, folders)}")
            if kind not in KINDS:
                raise MMSearchError(f"--kinds: {name} has the unknown kind {kind!r}{nearest(kind, KINDS)}")
        return {name: kind for name, _, kind in pairs}

    def _files(self, listing: Listing, folder: str, kind: str | None) -> tuple[str, dict[str, str]] | None:
        """The kind of a modality's folder, and its files (or folders of pictures) by clip."""
        cells = [f"{folder}/{file}" for file in files_below(listing.root / folder)]
        own = {cell: kind_of(listing.root / cell) for cell in cells}
        found = Counter(filter(None, own.values())).most_common(1)
        kind = kind or (found[0][0] if found else None)
        fitting = (kind, {"sound": "frames", "frames": "image"}.get(kind or ""))
        usable = [cell for cell in cells if own[cell] and own[cell] in fitting]
        for cell in sorted(set(cells) - set(usable)):
            listing.missing.add(f"not of kind {kind}" if own[cell] else "an ending that nothing reads", cell)
        if kind is None or not usable:
            return None
        if kind == "frames" and Path(usable[0]).suffix.lower() in PICTURES:
            usable = sorted({cell.rpartition("/")[0] for cell in usable} - {folder})
            return kind, {cell.partition("/")[2]: cell for cell in usable}
        return kind, {without_ending(cell.partition("/")[2]): cell for cell in usable}

    def _rows(self, listing: Listing, clips: dict[str, dict[str, str]], labelled: dict[str, tuple[str, str]]) -> None:
        lacking = dict.fromkeys(listing.modalities, 0)
        for key in sorted({*clips, *labelled}):
            label, split = labelled.get(key, ("", ""))
            if key not in clips:
                listing.missing.add("no file", key)
            elif not label:
                listing.missing.add("no label", key)
            elif label not in listing.classes:
                raise MMSearchError(
                    f"{listing.root}: clip {key}: {label!r} is not among the classes{nearest(label, listing.classes)}"
                )
            else:
                listing.rows.append(Row(key, label, clips[key], split))
                for name in set(listing.modalities) - set(clips[key]):
                    lacking[name] += 1
        listing.warnings += [f"{count} clips have no {name}" for name, count in lacking.items() if count]


def modality_name(folder: str) -> str:
    """A folder's name as a modality's: letters, digits and `_`, and none of the manifest's own columns."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", folder)[:60]
    return name if name[0].isalpha() and name not in COLUMNS else f"m_{name}"


def by_folder(key: str) -> tuple[str, str]:
    """Class and split of a clip from its path: `class/...` or `split/class/...`; no class where there is no folder."""
    parts = key.split("/")[:-1]
    if len(parts) > 1 and parts[0].lower() in SPLIT_WORDS:
        return parts[1], SPLIT_WORDS[parts[0].lower()]
    return (parts[0] if parts else ""), ""


def read_labels(path: Path, clips: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Label and split of every clip of a list, the clips called as their files are.

    The name stands in the first column or in the last: where more rows name a file. The label is the first of the
    other columns, the split the third column where there is one.

    Raises:
        MMSearchError: no row names a file, or a row has one cell only.
    """
    keys = {**{key.rpartition("/")[2]: key for key in clips}, **{key: key for key in clips}}

    def called(cell: str) -> str:
        spellings = (cell, without_ending(cell), plain_name(cell))
        return next((keys[spelling] for spelling in spellings if spelling in keys), "")

    rows = read_cells(path)
    first, last = (sum(bool(called(cells[at])) for _, cells in rows) for at in (0, -1))
    if not first and not last:
        raise MMSearchError(f"{path}: no row names a file, such as {next(iter(keys), 'a/b')}")
    if not called(rows[0][1][0 if first >= last else -1]) and looks_like_header(rows[0][1]):
        rows = rows[1:]
    labelled = {}
    for number, cells in rows:
        if len(cells) < 2:
            raise MMSearchError(f"{path}:{number}: needs a clip and a label, found {cells[0]!r} only")
        name, label = (cells[0], cells[1]) if first >= last else (cells[-1], cells[0])
        split = split_of(cells[2], f"{path}:{number}") if first >= last and len(cells) > 2 else ""
        labelled[called(name) or name] = (label, split)
    return labelled
