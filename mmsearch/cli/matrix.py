"""Which method goes with which fusion."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import rich
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mmsearch.fusion import FUSIONS, OWN
from mmsearch.knobs import MODALITIES, knobs_of
from mmsearch.methods import METHODS
from mmsearch.registry import Registry
from mmsearch.training import default_encoder, refusal

PAIR = ("sound", "frames")
"""The modalities for which the matrix is drawn, under their default encoders."""

WORKS = "works"
OWN_HEAD = "own head"
REFUSED = "refused"


@dataclasses.dataclass(frozen=True)
class Cell:
    """What becomes of a method with a fusion.

    Attributes:
        answer: `works`, `own head` (no fusion is chosen beside the method) or `refused`.
        reason: of a refusal.
    """

    answer: str
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Every method with every fusion.

    Attributes:
        fusions: the columns.
        rows: per method its cells.
    """

    fusions: list[str]
    rows: dict[str, list[Cell]]

    @staticmethod
    def of_all() -> Matrix:
        """Of everything registered."""
        fusions = FUSIONS.names()
        return Matrix(fusions, {m: [_cell(m, f) for f in fusions] for m in METHODS.names()})

    @property
    def reasons(self) -> list[str]:
        """Every reason once, in the order of appearance; cells refer to them by number, from 1."""
        return list(dict.fromkeys(c.reason for cells in self.rows.values() for c in cells if c.reason))

    def marks(self, method: str) -> list[str]:
        """The cells of a row, short: `yes`, `own`, `no 1`."""
        short = {WORKS: "yes", OWN_HEAD: "own"}
        return [short.get(c.answer) or f"no {self.reasons.index(c.reason) + 1}" for c in self.rows[method]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        cells = {m: dict(zip(self.fusions, map(dataclasses.asdict, row), strict=True)) for m, row in self.rows.items()}
        return {"modalities": list(PAIR), "methods": cells}


def _document(registry: Registry[Any], name: str) -> dict[str, Any]:
    """A component at its paper setting; where it asks for a modality, the first."""
    chosen = {k: PAIR[0] for k, knob in knobs_of(registry.get(name)).items() if knob.choices == MODALITIES}
    return {"name": name, **chosen}


def _cell(method: str, fusion: str) -> Cell:
    component = METHODS.create(_document(METHODS, method))
    document = {"name": OWN} if component.own_fusion else _document(FUSIONS, fusion)
    encoders = {u: default_encoder(u) for u in PAIR}
    refused = refusal(component, document, component.modalities(PAIR), encoders)
    if refused:
        return Cell(REFUSED, refused.partition(": ")[2])
    return Cell(OWN_HEAD if component.own_fusion else WORKS)


LEGEND = "yes: it works; own: the method brings its own head, no fusion is chosen beside it; no: refused, because"


def show_matrix(as_json: bool) -> int:
    """Prints the matrix with the reasons below it; fusions that are alike share a column."""
    matrix = Matrix.of_all()
    if as_json:
        print(json.dumps(matrix.to_dict(), indent=2, ensure_ascii=False))
        return 0
    columns: dict[tuple[str, ...], list[str]] = {}
    for fusion, *marks in zip(matrix.fusions, *map(matrix.marks, matrix.rows), strict=True):
        columns.setdefault(tuple(marks), []).append(fusion)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for fusions in columns.values():
        table.add_column("\n".join(fusions))
    for method, *marks in zip(matrix.rows, *columns, strict=True):
        table.add_row(Text(method, "bold"), *marks)
    reasons = Table.grid(padding=(0, 2))
    for i, reason in enumerate(matrix.reasons, 1):
        reasons.add_row(str(i), Text(reason))
    rich.print(Group(table, Text(LEGEND, "dim"), reasons))
    return 0
