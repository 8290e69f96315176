"""What `mmsearch methods` and `mmsearch fusions` share: registered components and their knobs."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import rich
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mmsearch.knobs import Knob, knobs_of
from mmsearch.methods import Method
from mmsearch.recommend.words import listed, number
from mmsearch.registry import Registry

_TEXTS = ("summary", "paper", "formula")
COLUMNS = ("knob", "range", "paper", "what it does", "only with")


def describe(component: type) -> dict[str, Any]:
    """A component as JSON: `name`, `summary`, `paper`, `formula` where it has them, and its `knobs`.

    Of a method also what it declares: `no_op`, `dominance`, `earliest`.
    """
    texts = {t: getattr(component, t) for t in _TEXTS if getattr(component, t, None)}
    knobs = [_knob(k) for k in knobs_of(component).values()]
    declared: dict[str, Any] = {}
    if issubclass(component, Method):
        signal = component.dominance
        declared["no_op"] = dataclasses.asdict(component.no_op)
        declared["dominance"] = None if signal is None else dataclasses.asdict(signal)
        declared["earliest"] = component.earliest
    return {"name": component.name, **texts, **declared, "knobs": knobs}  # type: ignore[attr-defined]


def facts(c: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is to say of a described component, as label and text."""
    found = [(t, c[t]) for t in _TEXTS if t in c]
    if "no_op" in c:
        found.append(("no-op", _no_op(c["name"], c["no_op"])))
    if c.get("dominance"):
        signal, strong = c["dominance"]["signal"], c["dominance"]["strong"]
        found.append(("dominance", f"the modality with the {strong} {signal} is the strong one"))
    if c.get("earliest"):
        found.append(("judged", f"against others after {c['earliest']:.0%} of the training at the earliest"))
    return found


def _no_op(name: str, no_op: dict[str, Any]) -> str:
    if no_op["equals"] is None:
        return f"none: {no_op['reason']}"
    if no_op["equals"] == name:
        return "it is what others equal where they do nothing"
    exact = "bit for bit" if no_op["tolerance"] == 0 else f"to {no_op['tolerance']:g}"
    knobs = listed([f"{k} {number(v)}" for k, v in no_op["knobs"].items()])
    return f"equals {no_op['equals']} {exact}" + (f" with {knobs}" if knobs else "")


def knob_rows(c: dict[str, Any]) -> list[list[str]]:
    """The knobs of a described component, under :data:`COLUMNS`."""
    rows = []
    for k in c["knobs"]:
        when = ", ".join(f"{name} {value}" for name, value in k["when"].items())
        searched = k["range"] if k["searched"] else f"{k['range']} (not searched)"
        rows.append([k["name"], searched, number(k["paper"]), k["help"], when])
    return rows


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
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    for label, text in facts(c):
        grid.add_row(label, Text(text))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column)
    for name, *cells in knob_rows(c):
        table.add_row(Text(name, "bold"), *map(Text, cells))
    knobs = table if c["knobs"] else Text("It has no knobs.")
    return Group(Text(c["name"], "bold"), grid, Text(), knobs)
