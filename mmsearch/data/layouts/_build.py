"""From a layout's listing to `manifest.csv` and `dataset.yaml`."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mmsearch.data.layouts._base import Layout, Listing, Row
from mmsearch.data.layouts._convert import Unreadable
from mmsearch.data.manifest import printable
from mmsearch.errors import MMSearchError
from mmsearch.files import write_text

MANIFEST, DATASET, MEDIA = "manifest.csv", "dataset.yaml", "media"
"""What is written into the output folder; `media` is a link to the dataset, made where files were converted."""


@dataclasses.dataclass(frozen=True)
class Built:
    """What :func:`build` has written.

    Attributes:
        dataset: the dataset YAML.
        listing: the clips that were kept, and those that are missing.
        converted: files rewritten now.
        reused: files rewritten by an earlier call.
    """

    dataset: Path
    listing: Listing
    converted: int
    reused: int

    @property
    def listed(self) -> int:
        """Clips kept and missing."""
        return len(self.listing.rows) + self.listing.missing.total


def build(
    layout: Layout,
    root: Path,
    out: Path,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Writes the manifest and dataset YAML of a dataset, and the files that have to be rewritten to be decoded.

    Args:
        layout: how the dataset lies on disk.
        root: where.
        out: the folder to write into.
        force: replace a manifest and YAML that are there.
        on_progress: called with files rewritten and files to rewrite.

    Raises:
        MMSearchError: `root` does not look like the layout, nothing of it is left, or `out` holds a manifest
            already or cannot be written to.
    """
    if not root.exists():
        raise MMSearchError(f"{root}: no such file or folder")
    there = [name for name in (MANIFEST, DATASET) if (out / name).exists()]
    if there and not force:
        raise MMSearchError(f"{out / there[0]}: is there already; --force replaces it")
    try:
        listing = layout.read(root)
    except OSError as error:
        raise MMSearchError(f"{error.filename or root}: cannot be read: {error.strerror or error}") from None
    for name in (str(listing.root.resolve()), listing.name, *listing.classes):
        if not _utf8(name):
            raise MMSearchError(f"{printable(name)}: the name is not UTF-8; rename it")
    _keep_usable(listing)
    _need_rows(layout, root, listing)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MMSearchError(f"{out}: cannot be written: {error.strerror or error}") from None
    converted, reused = _convert(listing, out, on_progress)
    _need_rows(layout, root, listing)
    folder = _rooted(listing, out)
    listing.warnings += _warnings(listing)
    write_text(out / MANIFEST, _manifest(listing))
    write_text(out / DATASET, _yaml(layout, listing, folder))
    return Built(out / DATASET, listing, converted, reused)


def _need_rows(layout: Layout, root: Path, listing: Listing) -> None:
    if not listing.rows:
        reasons = "; ".join(listing.missing.lines()) or "no clip is listed"
        raise MMSearchError(f"{root}: nothing is left of {listing.missing.total} clips ({layout.name}): {reasons}")


def _keep_usable(listing: Listing) -> None:
    """Leaves out rows that a manifest cannot hold, and all but one of those with the same name.

    Where some rows have a group, one without is a group of its own.
    """
    kept: dict[str, Row] = {}
    for row in listing.rows:
        reason = _unusable(row)
        if reason:
            listing.missing.add(reason, row.clip_id)
        elif row.clip_id not in kept:
            kept[row.clip_id] = row
        else:
            listing.missing.add("listed more than once", row.clip_id)
            if row.split == "test" != kept[row.clip_id].split:
                kept[row.clip_id] = row
    listing.rows = list(kept.values())
    if any(row.group for row in listing.rows):
        for row in listing.rows:
            row.group = row.group or row.clip_id


def _utf8(text: str) -> bool:
    return printable(text) == text


def _unusable(row: Row) -> str:
    texts = [row.clip_id, row.label, row.group, *row.cells.values(), *row.texts.values()]
    if not all(map(_utf8, texts)):
        return "the name is not UTF-8"
    if any(PurePosixPath(cell).is_absolute() or ".." in PurePosixPath(cell).parts for cell in row.cells.values()):
        return "the path leaves the folder"
    if any(cell != cell.strip() for cell in row.cells.values()):
        return "the name begins or ends with a space"
    return ""


def _convert(listing: Listing, out: Path, on_progress: Callable[[int, int], None] | None) -> tuple[int, int]:
    """Rewrites what is not there yet; a clip whose file cannot be read counts as missing. Files made and reused."""
    used = [file for row in listing.rows for file in _files(row) if file in listing.conversions]
    targets = list(dict.fromkeys(used))
    failed: dict[str, str] = {}
    reused = 0
    for done, target in enumerate(targets, start=1):
        conversion = listing.conversions[target]
        if conversion.done(out / target):
            reused += 1
        else:
            try:
                conversion.run(out / target)
            except Unreadable as error:
                failed[target] = str(error)
        if on_progress:
            on_progress(done, len(targets))
    if failed:
        rows, listing.rows = listing.rows, []
        for row in rows:
            lost = [file for file in _files(row) if file in failed]
            if lost:
                listing.missing.add("cannot be converted", f"{row.clip_id} ({failed[lost[0]]})")
            else:
                listing.rows.append(row)
    return len(targets) - reused - len(failed), reused


def _files(row: Row) -> list[str]:
    return [cell.partition("#")[0] for cell in row.cells.values()]


def _rooted(listing: Listing, out: Path) -> Path | None:
    """The folder that dataset.yaml names as root, None for its own; puts a link there where files lie in two places."""
    root = listing.root.resolve()
    own = [file in listing.conversions for row in listing.rows for file in _files(row)]
    if not any(own):
        return None if root.samefile(out) else root
    if not all(own):
        _link(out / MEDIA, root)
        files = listing.conversions
        for row in listing.rows:
            row.cells = {k: v if v.partition("#")[0] in files else f"{MEDIA}/{v}" for k, v in row.cells.items()}
    return None


def _link(link: Path, root: Path) -> None:
    if link.is_symlink() and link.readlink() == root:
        return
    if link.exists() or link.is_symlink():
        raise MMSearchError(f"{link}: is there already and is no link to {root}; remove it or name another --out")
    try:
        link.symlink_to(root, target_is_directory=True)
    except OSError as error:
        raise MMSearchError(f"{link}: the link to {root} cannot be made: {error.strerror or error}") from None


def _warnings(listing: Listing) -> list[str]:
    found = []
    sizes = Counter(row.label for row in listing.rows)
    empty = [name for name in listing.classes if not sizes[name]]
    if empty:
        found.append(f"{len(empty)} of {len(listing.classes)} classes have no clip left, such as {empty[0]}")
    test = {row.group for row in listing.rows if row.split == "test" and row.group}
    shared = test & {row.group for row in listing.rows if row.split != "test"}
    if shared:
        found.append(f"{len(shared)} groups are in test and outside it, such as {min(shared)}")
    return found


def _manifest(listing: Listing) -> str:
    columns = list(dict.fromkeys(column for row in listing.rows for column in (*row.cells, *row.texts)))
    extra = [c for c in ("split", "group", "start", "end") if any(getattr(row, c) for row in listing.rows)]
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["clip_id", "label", *extra, *columns])
    for row in listing.rows:
        cells = row.cells | row.texts
        table.writerow(
            [row.clip_id, row.label, *(getattr(row, c) for c in extra), *(cells.get(c, "") for c in columns)]
        )
    return text.getvalue()


def _yaml(layout: Layout, listing: Listing, root: Path | None) -> str:
    document: dict[str, Any] = {"name": listing.name, "manifest": MANIFEST}
    if root is not None:
        document["root"] = str(root)
    document |= {"label": "label", "classes": listing.classes, "modalities": listing.modalities}
    notes = [f"Written by `mmsearch manifest {layout.name}`.", *listing.notes]
    head = "".join(f"# {line}\n" for line in notes)
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
