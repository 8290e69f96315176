"""What a layout gives: rows, modalities, classes, what is missing; and the interface of a layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from mmsearch.data.layouts._convert import Conversion

EXAMPLES = 3
"""So many of the clips that are missing for one reason are named."""


@dataclasses.dataclass
class Row:
    """One clip of the manifest.

    Attributes:
        clip_id: unique in the dataset.
        label: name of its class.
        cells: per column its file, folder or `file.npy#row`, relative to the dataset's folder.
        split: "train", "val", "test" or empty.
        group: clips of one group belong together (a speaker, a source video); empty where there are none.
        start, end: the segment in seconds, as text; empty for the whole file.
        texts: per column a text that is the clip itself.
    """

    clip_id: str
    label: str
    cells: dict[str, str]
    split: str = ""
    group: str = ""
    start: str = ""
    end: str = ""
    texts: dict[str, str] = dataclasses.field(default_factory=dict)


class Missing:
    """Clips that are listed and cannot be used, counted by reason, with a few examples of each."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, example: str) -> None:
        """Counts one clip."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.examples.setdefault(reason, [])
        if len(named) < EXAMPLES:
            named.append(example)

    @property
    def total(self) -> int:
        """Clips of all reasons."""
        return sum(self.counts.values())

    def lines(self) -> list[str]:
        """A line a reason, as in `no sound: 2, such as 1076_MTI_NEU_XX`; the most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: -item[1])
        return [f"{reason}: {count}, such as {', '.join(self.examples[reason])}" for reason, count in ordered]


@dataclasses.dataclass
class Listing:
    """A dataset as a layout reads it; nothing has been written yet.

    Attributes:
        root: the folder that cells are relative to.
        name: of the dataset.
        classes: the official class list, in the order of the labels.
        modalities: per modality what dataset.yaml says of it: kind, column and settings.
        rows: the clips that are there.
        missing: those that are listed and are not.
        warnings: what a person should know before using the set.
        notes: comment lines at the head of dataset.yaml.
        conversions: files to write below the output folder, by the cell that names them.
    """

    root: Path
    name: str
    classes: list[str]
    modalities: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    rows: list[Row] = dataclasses.field(default_factory=list)
    missing: Missing = dataclasses.field(default_factory=Missing)
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    conversions: dict[str, Conversion] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Layout:
    """Base of all layouts; fields made with :func:`mmsearch.knobs.knob` are its options.

    Attributes:
        name: on the command line.
        summary: one line of what it reads.
        expects: what has to be on disk, as lines.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    expects: ClassVar[str]

    def read(self, root: Path) -> Listing:
        """Reads the dataset at `root`; opens no clip and writes nothing.

        Raises:
            MMSearchError: `root` does not look like the layout, or a list has a mistake.
        """
        raise NotImplementedError
