"""The recommendation on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mmsearch.recommend.diagnosis_words import UNDER_TRAINING
from mmsearch.recommend.words import (
    count,
    duration,
    joint_epochs,
    knobs,
    listed,
    objective,
    percent_interval,
    points_interval,
)
from mmsearch.search.objectives import OBJECTIVES

FRONT_ROWS = 6
"""Trials of the front that are shown here; the report has all."""


def render(rec: Mapping[str, Any]) -> RenderableType:
    """The verdict, the sentences, the finalists and the configuration, for `rich.print`."""
    d = rec["decision"]
    colour = {"method": "green", "unimodal": "green", "baseline": "cyan"}.get(d["kind"], "yellow")
    title = f"{rec['provenance']['dataset']['name']}: recommendation"
    return Group(
        verdict(title, d["headline"], _sentences(rec), colour),
        _finalists(rec),
        *_pareto(rec.get("pareto", [])),
        _config(d),
    )


def verdict(title: str, headline: str, said: RenderableType, colour: str) -> Panel:
    """A headline with what is said of it, in a frame."""
    return Panel(
        Group(Text(headline, style=f"bold {colour}"), Text(), said),
        title=Text(title),
        title_align="left",
        border_style=colour,
        box=box.ROUNDED,
        padding=(1, 2),
    )


def _sentences(rec: Mapping[str, Any]) -> Table:
    """What the decision says, and of the diagnosis what the encoders have learned; the report has the rest."""
    table = Table.grid(padding=(0, 2, 1, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for s in rec["decision"]["sentences"]:
        table.add_row(s["about"], Text(s["text"]))
    learned = [s["text"] for s in rec.get("diagnosis", {}).get("sentences", ()) if s["about"] == UNDER_TRAINING]
    if learned:
        table.add_row("Encoders", Text(" ".join(learned)))
    return table


def _finalists(rec: Mapping[str, Any]) -> Table:
    gains = {c["a"]: c for c in rec["comparisons"] if c["b"] == rec["decision"]["reference"]}
    dropped = [f"{f['label']} ({count(len(f['seeds']), 'seed')})" for f in rec["finalists"] if f["dropped"]]
    table = Table(
        box=box.SIMPLE_HEAD,
        title="Finalists: accuracy over seeds, 95 % interval",
        title_justify="left",
        caption=f"dropped early, beaten beyond the noise: {', '.join(dropped)}" if dropped else None,
        caption_justify="left",
    )
    for name in ("", "select", "points over joint", "test", "joint epochs", "time"):
        table.add_column(name, justify="left" if not name else "right")
    for f in [f for f in rec["finalists"] if not f["dropped"]]:
        shared = f["cost_shared_joint_epochs"]
        cost = joint_epochs(f["cost_joint_epochs"]) + (f" + {joint_epochs(shared)} shared" if shared else "")
        chosen = f["label"] == rec["decision"]["label"]
        table.add_row(
            Text(f["label"]),
            percent_interval(f["select"]),
            points_interval(gains.get(f["label"])),
            percent_interval(f["test"]),
            cost,
            duration(f["seconds"]),
            style="bold" if chosen else None,
        )
    return table


def _pareto(front: Sequence[Mapping[str, Any]]) -> list[Table]:
    if len(front) < 2:
        return []
    names = list(front[0]["objectives"])
    title = f"Search trials not bettered in {listed([n.replace('_', ' ') for n in names])} together"
    more = len(front) - FRONT_ROWS
    caption = "measured on val during the search: an indication, no evidence" + (
        f"; {more} more in the report" if more > 0 else ""
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(OBJECTIVES[name].split(",")[0], justify="right")
    table.add_column("trial")
    for f in front[:FRONT_ROWS]:
        values = [objective(n, v) for n, v in f["objectives"].items()]
        table.add_row(Text(f"{f['method']} · {f['fusion']}"), *values, f["trial_id"])
    return [table]


def _config(d: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Configuration handed over", title_justify="left")
    table.add_column("knob")
    table.add_column("value")
    for name, value in knobs(d["config"]):
        table.add_row(Text(name), Text(value))
    return table
