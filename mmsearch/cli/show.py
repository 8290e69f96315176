"""`mmsearch show`: one trial, or all of them in a table."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import rich
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmsearch.errors import MMSearchError, nearest
from mmsearch.recommend.words import UNKNOWN, count, duration, joint_epochs, knobs, percent
from mmsearch.search.journal import read_events
from mmsearch.search.run_folder import viewed
from mmsearch.search.trials import Records, TrialRecord, records

HELP = "one trial of a run: its document, learning curve, reason and log; without TRIAL a table of all"

LOG_LINES = 50
_BARS = "▁▂▃▄▅▆▇█"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and the trial."""
    parser.add_argument("run_dir", metavar="RUN", help="the run's folder, or its address (s3://...)")
    parser.add_argument("trial", nargs="?", metavar="TRIAL", help="a trial's identity, or enough of its beginning")


def run(args: argparse.Namespace) -> int:
    """Prints the trial, or the table."""
    run_dir = viewed(args.run_dir)
    found = records(read_events(run_dir))
    if args.trial is None:
        rich.print(_table(found))
    else:
        trial = _find(found, args.trial, args.run_dir)
        rich.print(_trial(trial, _log(run_dir, trial.trial_id)))
    return 0


def _find(found: Records, wanted: str, run: str) -> TrialRecord:
    matches = [r for i, r in found.items() if i.startswith(wanted)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise MMSearchError(f"{run}: {wanted!r} begins {count(len(matches), 'trial')}; give more of it")
    raise MMSearchError(f"{run}: no trial {wanted!r}{nearest(wanted, found)}")


def _log(run_dir: Path, trial_id: str) -> list[str]:
    path = run_dir / "logs" / f"{trial_id}.log"
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:] if path.is_file() else []


def _table(found: Records) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("trial", "stage", "method", "seed", "state"):
        table.add_column(name, no_wrap=name != "method")
    for name in ("val", "epochs", "joint epochs", "time"):
        table.add_column(name, justify="right", no_wrap=name != "joint epochs")
    for r in found.values():
        table.add_row(
            r.trial_id,
            r.stage,
            Text(f"{r.method} · {r.fusion}"),
            str(r.document["seed"]),
            r.state,
            percent(r.val),
            f"{r.epoch}/{r.epochs}",
            joint_epochs(r.cost_joint_epochs),
            duration(r.seconds),
        )
    return table


def _trial(r: TrialRecord, log: list[str]) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    rows = [
        ("state", r.state + (f": {r.reason}" if r.reason else "")),
        ("stage", f"{r.stage} ({r.why})"),
        ("val", percent(r.val)),
        ("select", percent(r.select["accuracy"]) if r.select else UNKNOWN),
        ("test", percent(r.test["accuracy"]) if r.test else UNKNOWN),
        ("epochs", f"{r.epoch} of {r.epochs}"),
        ("cost", f"{joint_epochs(r.cost_joint_epochs)} joint epochs, {duration(r.seconds)}"),
        ("lost workers", ", ".join(f"{n} ({kind})" for kind, n in Counter(k for k, _ in r.losses).items()) or "0"),
        *([("micro-batch", count(r.micro_batch, "clip"))] if r.micro_batch else []),
    ]
    for name, value in rows:
        facts.add_row(name, Text(value))
    parts: list[RenderableType] = [Text(f"{r.trial_id}  {r.method} · {r.fusion}", "bold"), facts]
    parts += [Text("\nDocument", "bold"), _pairs(knobs(r.document))]
    if r.curve:
        about = "clips trained on" if r.stage == "refit" else "val"
        parts += [Text(f"\nAccuracy on {about}", "bold"), Text(sparkline([s for _, s in r.curve]))]
        parts.append(Text("  ".join(f"{epoch}: {percent(score)}" for epoch, score in r.curve), "dim"))
    if r.metrics:
        parts += [Text("\nMetrics of the last epoch", "bold"), _pairs([(k, f"{v:.4g}") for k, v in r.metrics.items()])]
    if log:
        parts += [Text(f"\nLog, last {count(len(log), 'line')}", "bold"), Text("\n".join(log))]
    return Group(*parts)


def _pairs(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def sparkline(values: list[float]) -> str:
    """The values as bars of eight heights, the lowest to the highest."""
    low, high = min(values), max(values)
    step = (high - low) / (len(_BARS) - 1) or 1.0
    return "".join(_BARS[round((v - low) / step)] for v in values)
