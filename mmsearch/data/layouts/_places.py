"""Where the media of listed clips are: templates such as `AudioWAV/{name}.wav`, tried in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from mmsearch.data.layouts._base import Listing, Row
from mmsearch.data.layouts._convert import Conversion, need_h5py, picture_folder, series_file
from mmsearch.data.layouts._files import STORED, VIDEOS, is_file, is_folder, pictures_in, subfolders
from mmsearch.data.layouts._lists import Entry
from mmsearch.errors import MMSearchError

Names = Callable[[Entry], Sequence[str]]
"""The names under which a clip may be on disk, the likeliest first."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one modality of every clip is.

    Attributes:
        root: the dataset's folder.
        template: relative to it, with `{name}` and perhaps `{split}` and `{label}`.
        what: "sound", "frames" or "flow", for messages.
        least: a folder with fewer pictures counts as missing.
    """

    root: Path
    template: str
    what: str
    least: int = 1

    @property
    def ending(self) -> str:
        """Of its files, such as `.wav`; empty where a clip is a folder of pictures."""
        return PurePosixPath(self.template).suffix

    def find(self, entry: Entry, names: Sequence[str]) -> tuple[str, str]:
        """The clip's path relative to the root, or an empty text and why there is none."""
        for name in names:
            cell = fill(self.template, name, entry)
            if "{uv}" in cell:
                return self._flow(cell)
            path = self.root / cell
            if self.ending and is_file(path):
                return cell, ""
            if (not self.ending or self.ending in VIDEOS) and is_folder(path):
                few = pictures_in(path) < self.least
                return ("", self._few()) if few else (cell, "")
        return "", f"no {self.what}"

    def _flow(self, cell: str) -> tuple[str, str]:
        counts = [pictures_in(self.root / cell.replace("{uv}", part)) for part in "uv"]
        if not min(counts):
            return "", f"no {self.what}"
        if counts[0] != counts[1]:
            return "", "u and v of the flow have different numbers of pictures"
        return cell, ""

    def _few(self) -> str:
        return f"fewer than {self.least} {self.what}" if self.least > 1 else f"no {self.what}"

    def modality(self, kind: str, column: str, **settings: Any) -> dict[str, Any]:
        """What dataset.yaml says of it: sound computed beforehand is a series, and takes no settings."""
        if kind == "sound" and self.ending in STORED:
            return {"kind": "series", "column": column}
        return {"kind": kind, "column": column, **settings}

    def converted(self, cell: str, modality: str, name: str) -> tuple[str, Conversion] | None:
        """The file to write for a clip and how, or None where its own can be decoded."""
        source = self.root / cell
        if self.ending in (".pt", ".pkl"):
            return f"arrays/{modality}/{name}.npy", Conversion(source, series_file)
        if self.ending == ".hdf5":
            return f"arrays/{modality}/{name}", Conversion(source, picture_folder)
        return None


def fill(template: str, name: str, entry: Entry) -> str:
    """The template for one clip; `{uv}` stays."""
    return template.replace("{split}", entry.split).replace("{label}", entry.label).replace("{name}", name)


def plain_names(entry: Entry) -> Sequence[str]:
    """A clip is on disk under the name in the list."""
    return (entry.name,)


def find_place(
    root: Path,
    templates: Sequence[str],
    entries: Sequence[Entry],
    what: str,
    names: Names = plain_names,
    least: int = 1,
) -> Place:
    """The first template under which any of the clips is found, else the first whose folder is there.

    A `*` in a template stands for any name; clips under one of them count.

    Raises:
        MMSearchError: there is no such folder, or a `*` has clips under several names.
    """
    splits = sorted({entry.split for entry in entries}, reverse=True) or [""]
    there: list[Place] = []
    for template in templates:
        places = [Place(root, t, what, least) for t in _expand(root, template, splits)]
        places = [p for p in places if any((root / _folder(p.template, split)).is_dir() for split in splits)]
        full = [place for place in places if any(place.find(entry, names(entry))[0] for entry in entries)]
        if len(full) > 1:
            raise MMSearchError(
                f"{root}: {what} in several folders: {', '.join(p.template for p in full)}; "
                f"say which with --{what} '{full[0].template}'"
            )
        if full:
            if full[0].ending == ".hdf5":
                need_h5py(root / template)
            return full[0]
        there += [place for place in places if _folder(place.template, splits[0])]
    if there:
        return there[0]
    raise MMSearchError(f"{root}: no folder of {what} here; looked for {', '.join(templates)}")


def _folder(template: str, split: str) -> str:
    """The folder above all clips of a split."""
    return template.replace("{split}", split).replace("{uv}", "u").partition("{")[0].rpartition("/")[0]


def _expand(root: Path, template: str, splits: Sequence[str]) -> list[str]:
    """The templates that a `*` in one part stands for, by the folders that are there."""
    if "*" not in template:
        return [template]
    parts = template.split("/")
    at = next(i for i, part in enumerate(parts) if "*" in part)
    above = [root / "/".join(parts[:at]).replace("{split}", split) for split in splits]
    found = {path.name for folder in above for path in subfolders(folder) if fnmatch(path.name, parts[at])}
    return ["/".join([*parts[:at], name, *parts[at + 1 :]]) for name in sorted(found)]


def add_rows(
    listing: Listing,
    entries: Sequence[Entry],
    places: Mapping[str, Place],
    *,
    group: Callable[[str], str],
    names: Names = plain_names,
) -> None:
    """Puts the clips whose every modality is there into the listing, and counts the others as missing."""
    for entry in entries:
        cells: dict[str, str] = {}
        conversions: dict[str, Conversion] = {}
        for modality, place in places.items():
            cell, reason = place.find(entry, names(entry))
            if not cell:
                listing.missing.add(reason, entry.name)
                break
            if rewritten := place.converted(cell, modality, entry.name):
                cell, conversion = rewritten
                conversions[cell] = conversion
            cells[modality] = cell
        else:
            listing.conversions.update(conversions)
            listing.rows.append(Row(entry.name, entry.label, cells, entry.split, group(entry.name)))
