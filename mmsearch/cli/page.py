"""The documentation page of methods and fusions, out of their own declarations."""

from __future__ import annotations

from typing import Any

from mmsearch.cli.components import COLUMNS, describe, facts, knob_rows
from mmsearch.cli.matrix import LEGEND, PAIR, Matrix
from mmsearch.fusion import FUSIONS
from mmsearch.methods import METHODS
from mmsearch.recommend.words import listed
from mmsearch.registry import Registry

_HEAD = """# Methods and fusions

Written by `python -m mmsearch methods --markdown > docs/methods.md` from what every method and fusion declares of
itself; `mmsearch methods NAME` and `mmsearch fusions NAME` print the same. Times are shares of the planned training."""


def page() -> str:
    """The page as Markdown."""
    sections = [_HEAD, _matrix(), *_all("Methods", METHODS), *_all("Fusions", FUSIONS)]
    return "\n\n".join(sections)


def _matrix() -> str:
    matrix = Matrix.of_all()
    rows = [[f"[{m}](#{m})", *matrix.marks(m)] for m in matrix.rows]
    reasons = "\n".join(f"{i}. {reason}" for i, reason in enumerate(matrix.reasons, 1))
    title = f"## Which method goes with which fusion\n\nFor {listed(PAIR)} under their default encoders."
    return "\n\n".join([title, _table(["", *matrix.fusions], rows), f"{LEGEND}:", reasons])


def _all(title: str, registry: Registry[Any]) -> list[str]:
    return [f"## {title}", *(_one(describe(registry.get(n))) for n in registry.names())]


def _one(c: dict[str, Any]) -> str:
    lines = [f"- {label}: {f'`{text}`' if label == 'formula' else text}" for label, text in facts(c)]
    knobs = _table(list(COLUMNS), knob_rows(c)) if c["knobs"] else "It has no knobs."
    return "\n\n".join([f"### {c['name']}", "\n".join(lines), knobs])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
