"""What `mmsearch methods` and `mmsearch fusions` share: registered components and their knobs."""

from __future__ import annotations

import json
from typing import Any

import rich
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mmsearch.knobs import Knob, knobs_of
from mmsearch.recommend.words import number
from mmsearch.registry import Registry

_TEXTS = ("summary", "paper", "formula")


def describe(component: type) -> dict[str, Any]:
    """A component as JSON: `name`, `summary`, `paper`, `formula` where it has them, and its `knobs`."""
    texts = {t: getattr(component, t) for t in _TEXTS if getattr(component, t, None)}
    knobs = [_knob(k) for k in knobs_of(component).values()]
    return {"name": component.name, **texts, "knobs": knobs}  # type: ignore[attr-defined]


def _knob(k: Knob) -> dict[str, Any]:
    return {
        "name": k.name,
        "help": k.help,
        "paper": k.paper,
        "range": k.describe(),
        "low": k.low,
        "high": k.high,
        "log": k.log,
        "choices": list(k.choices) if isinstance(k.choices, tuple) else k.choices,
        "when": dict(k.when),
        "searched": k.search,
    }


def show(registry: Registry[Any], name: str | None, as_json: bool) -> int:
    """Prints one component, or the list of all.

    Raises:
        MMSearchError: unknown name; the message has the nearest.
    """
    names = [name] if name else registry.names()
    found = [describe(registry.get(n)) for n in names]
    if as_json:
        print(json.dumps(found[0] if name else found, indent=2, ensure_ascii=False))
    elif name:
        rich.print(_one(found[0]))
    else:
        rich.print(_all(found))
    return 0


def _all(found: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "what it does", "knobs"):
        table.add_column(column)
    for c in found:
        knobs = ", ".join(k["name"] for k in c["knobs"])
        table.add_row(Text(c["name"], "bold"), Text(c.get("summary", "")), Text(knobs))
    return table


def _one(c: dict[str, Any]) -> Group:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    for t in _TEXTS:
        if t in c:
            facts.add_row(t, Text(c[t]))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("knob", "range", "paper", "what it does", "only with"):
        table.add_column(column)
    for k in c["knobs"]:
        when = ", ".join(f"{name} {value}" for name, value in k["when"].items())
        searched = k["range"] if k["searched"] else f"{k['range']} (not searched)"
        table.add_row(Text(k["name"], "bold"), Text(searched), Text(number(k["paper"])), Text(k["help"]), Text(when))
    knobs = table if c["knobs"] else Text("It has no knobs.")
    return Group(Text(c["name"], "bold"), facts, Text(), knobs)
