"""What a report is made of, before it is drawn: an answer, and sections of figures, tables and sentences."""

from __future__ import annotations

import dataclasses

from mmsearch.recommend.figures import Figure, numeric

STATES = {"complete": "complete", "pruned": "stopped", "failed": "failed", "running": "running", "asked": "waiting"}
"""The journal's states in the report's words."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with a name of its own; the first cell of a row names the row.

    Attributes:
        note: how to read it.
        shape: `card` among the figures, `wide` below them, `long` below them and opened on demand.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    shape: str = "card"

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone."""
        return numeric(self.rows, len(self.columns))


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Sentences, each under what it is about."""

    name: str
    title: str
    sentences: list[dict[str, str]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Media:
    """Clips to look at and listen to.

    Attributes:
        items: `{"name", "text", "picture", "sound"}`, the last two data URIs or empty.
    """

    name: str
    title: str
    items: list[dict[str, str]]
    note: str = ""
    shape: str = "wide"


Block = Figure | Table | Sentences | Media


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report with a heading of its own."""

    name: str
    title: str
    note: str
    blocks: list[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        kind: of the verdict; `running` before there is one.
        facts: `{"name", "value", "note"}`, the numbers beside the headline.
        steps: `{"text", "command"}`, what to do next.
        reasons: `{"about", "text"}`.
        foot: when what it rests on was known.
    """

    kind: str
    verdict: str
    dataset: str
    headline: str
    lead: str
    facts: list[dict[str, str]]
    steps: list[dict[str, str]]
    reasons: list[dict[str, str]]
    sections: list[Section]
    foot: str
