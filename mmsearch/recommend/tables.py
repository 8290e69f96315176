"""A run as CSV files with its numbers unrounded: finalists, comparisons, trials, curves, clips."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.recommend import explain
from mmsearch.recommend.sections import CLIP_COLUMNS, answers_of, clip_rows
from mmsearch.search.trials import Records, records

Row = dict[str, Any]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that begins with one of these for a formula."""


def write(
    folder: Path, rec: Mapping[str, Any], events: Sequence[Mapping[str, Any]], run_dir: Path | None = None
) -> list[Path]:
    """Writes the files into a folder, which is made, each replaced as a whole.

    Args:
        folder: where.
        rec: the content of `recommendation.json`.
        events: the journal's.
        run_dir: the run's folder, for the clips; None where it is not at hand.

    Returns:
        The files.

    Raises:
        MMSearchError: the place cannot be written to.
    """
    found = records(events)
    tables = {
        "finalists": finalists(rec),
        "comparisons": comparisons(rec),
        "trials": trials(found),
        "curves": curves(found, events),
        "clips": clips(rec, run_dir),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MMSearchError(f"{folder}: cannot be made: {e.strerror or e}") from e
    paths = []
    for name, rows in tables.items():
        if rows:
            paths.append(folder / f"{name}.csv")
            write_text(paths[-1], _csv(rows))
    return paths


def finalists(rec: Mapping[str, Any]) -> list[Row]:
    """A row a finalist and part (`select`, `test`), with its value on each seed."""
    rows = []
    for f in rec["finalists"]:
        for part in ("select", "test"):
            if f[part]:
                low, high = f[part]["ci95"]
                about = {
                    "finalist": f["label"], "method": f["method"], "fusion": f["fusion"], "dropped": f["dropped"],
                    "part": part, "mean": f[part]["mean"], "low": low, "high": high,
                }  # fmt: skip
                cost = {k: f[k] for k in ("cost_joint_epochs", "cost_shared_joint_epochs", "seconds", "seconds_shared")}
                values = f[part]["values"]
                seeds = dict(zip(f["seeds"], values, strict=True)) if len(values) == len(f["seeds"]) else {}
                rows.append({**about, **cost, **{f"seed {s}": v for s, v in seeds.items()}})
    return rows


def comparisons(rec: Mapping[str, Any]) -> list[Row]:
    """A row a paired difference of two finalists on select."""
    return [
        {
            "a": c["a"],
            "b": c["b"],
            "mean": c["mean"],
            "low": c["ci95"][0],
            "high": c["ci95"][1],
            "p": c["p"],
            "p_holm": c["p_holm"],
            "beyond_noise": c["beyond_noise"],
        }
        for c in rec["comparisons"]
    ]


def trials(found: Records) -> list[Row]:
    """A row a trial, with a column a knob."""
    rows = []
    for r in found.values():
        line = {k: v for k, v in r.to_line().items() if k != "config"}
        rows.append({**line, "planned_epochs": r.epochs, "why": r.why, **_flat(r.document)})
    return rows


def curves(found: Records, events: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row a trial, epoch and quantity: the score, the cost so far and everything that was measured."""
    by_epoch: dict[tuple[str, int], dict[str, Any]] = {}
    for e in events:
        if e["event"] == "epoch" and e["trial_id"] in found:
            told = {k: e.get(k) for k in ("score", "cost_joint_epochs", "seconds")}
            by_epoch[e["trial_id"], e["epoch"]] = {**told, **(e.get("metrics") or {})}
    return [
        {"trial_id": i, "method": found[i].method, "stage": found[i].stage, "epoch": epoch, "quantity": k, "value": v}
        for (i, epoch), numbers in by_epoch.items()
        for k, v in numbers.items()
        if v is not None
    ]


def clips(rec: Mapping[str, Any], run_dir: Path | None) -> list[Row]:
    """A row a clip that the recommended model fixes or breaks."""
    told = answers_of(rec, run_dir)
    if told is None or run_dir is None:
        return []
    names = explain.clip_names(run_dir)
    classes = [str(c) for c in rec["provenance"]["dataset"]["classes"]]
    return [
        {"change": change, **dict(zip(CLIP_COLUMNS, row, strict=True))}
        for change, changed in (("fixed", told.fixed), ("broken", told.broken))
        for row in clip_rows(changed, names, classes)
    ]


def _flat(document: Mapping[str, Any], prefix: str = "") -> Row:
    flat: Row = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list | tuple):
            flat[f"{prefix}{key}"] = value
    return flat


def _csv(rows: Sequence[Row]) -> str:
    columns = dict.fromkeys(name for row in rows for name in row)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
