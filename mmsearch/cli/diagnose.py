"""`mmsearch diagnose`: what joint training and the recommended model of a finished run made of the modalities."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

import rich
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmsearch.cli.recommend import recorded
from mmsearch.recommend.words import UNKNOWN, percent, points
from mmsearch.search.journal import read_events
from mmsearch.search.run_folder import RunFolder, without_checkpoints

HELP = "what the models of a finished run made of each modality: under-training, reliance, calibration, robustness"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.add_argument("run_dir", metavar="RUN", help="the run's folder, or its address (s3://...)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Measures, writes the diagnosis into the recommendation and the report, and prints it."""
    folder = RunFolder(args.run_dir, "view")
    folder.copy(without_checkpoints)
    run_dir = folder.path
    recommendation = recorded(run_dir)
    from mmsearch.data import ClipData
    from mmsearch.recommend import diagnosis

    data = ClipData.open(run_dir / "data.json")
    with Console(stderr=True).status("reading the models") as status:
        found = diagnosis.diagnose(run_dir, recommendation, data, say=status.update)
    diagnosis.write(run_dir, found)
    diagnosis.attach(run_dir, recommendation, read_events(run_dir), lambda: found)
    folder.send_all()
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        rich.print(_render(found))
    return 0


def _render(found: Mapping[str, Any]) -> RenderableType:
    said = Table.grid(padding=(0, 2, 1, 0))
    said.add_column(style="dim", no_wrap=True)
    said.add_column()
    last = ""
    for s in found["sentences"]:
        said.add_row(s["about"] if s["about"] != last else "", Text(s["text"]))
        last = s["about"]
    return Group(*(_encoders(m) for m in found["models"].values()), said)


def _encoders(model: Mapping[str, Any]) -> RenderableType:
    """A row a modality."""
    table = Table(box=box.SIMPLE_HEAD, title=Text(model["label"]), title_justify="left", title_style="bold")
    table.add_column("modality", style="bold")
    for name in ("own", "probe", "alone", "gap (95 %)", "share", "without it", "gradients agree"):
        table.add_column(name, justify="right")
    for u, m in model["modalities"].items():
        low, high = m["gap_ci95"]
        gap = UNKNOWN if low is None else f"{points(m['gap'])} ({points(low)} to {points(high)})"
        cosine = m["gradient_agreement"]
        table.add_row(
            Text(u),
            percent(m["own"]),
            percent(m["probe"]),
            percent(m["alone"]),
            gap,
            points(m["shapley"]),
            percent(model["missing"][u]),
            UNKNOWN if cosine is None else f"{cosine:.2f}".replace("-", "−"),
        )
    return table
