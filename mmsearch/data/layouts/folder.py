"""A plain folder: `class/clip.mp4`, or `train/class/clip.mp4` and `test/class/clip.mp4`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing, Row
from mmsearch.data.layouts._files import files_below, kinds_in, modality, ordered, subfolders, without_ending
from mmsearch.data.layouts._lists import SPLIT_WORDS, read_classes
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import knob


@dataclasses.dataclass
class Folder(Layout):
    """The folders are the classes. A video gives sound and frames, a sound file sound, a picture an image."""

    name: ClassVar[str] = "folder"
    summary: ClassVar[str] = "a folder a class, with videos, sounds or pictures in it"
    expects: ClassVar[str] = (
        "<class>/<clip>.mp4 (any video, sound or picture, at any depth),\nor <train|val|test>/<class>/<clip>.mp4"
    )

    classes: str = knob("", "file with the classes, one a line; without it the folders are the classes", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        if not root.is_dir():
            raise MMSearchError(f"{root}: is no folder")
        parts = split_folders(root)
        folders = sorted({path.name for folder in parts for path in subfolders(root / folder)})
        if not folders:
            raise MMSearchError(f"{root}: no folder in it; looked for <class>/<clip> and <split>/<class>/<clip>")
        classes = read_classes(Path(self.classes)) if self.classes else folders
        listing = Listing(root, root.resolve().name or "folder", classes)
        kinds: set[str] = set()
        for folder, split in parts.items():
            for file in files_below(root / folder):
                if "/" in file:
                    kinds |= self._add(listing, f"{folder}{file}", file.partition("/")[0], split)
        listing.modalities = {kind: modality(kind, "path") for kind in ordered(kinds)}
        return listing

    def _add(self, listing: Listing, cell: str, label: str, split: str) -> set[str]:
        """Adds one file; the modalities in it."""
        if label not in listing.classes:
            raise MMSearchError(
                f"{listing.root / cell}: {label!r} is not among the classes{nearest(label, listing.classes)}"
            )
        kinds = kinds_in(listing.root / cell) & {"sound", "frames", "image"}
        if kinds:
            listing.rows.append(Row(without_ending(cell), label, {"path": cell}, split))
        else:
            listing.missing.add("no video, sound or picture", cell)
        return kinds


def split_folders(root: Path) -> dict[str, str]:
    """Folders to look in and their splits: `train/` and so on, where all folders are called after splits."""
    names = [path.name for path in subfolders(root)]
    if "test" in {SPLIT_WORDS.get(name.lower()) for name in names} and all(n.lower() in SPLIT_WORDS for n in names):
        return {f"{name}/": SPLIT_WORDS[name.lower()] for name in names}
    return {"": ""}
