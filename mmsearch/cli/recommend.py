"""`mmsearch recommend`: the recommendation of a finished run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import rich

from mmsearch.errors import MMSearchError
from mmsearch.recommend import card, terminal
from mmsearch.search.journal import read_events

HELP = "the recommendation of a run: which method, fusion and knobs, how sure, at what cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the recorded recommendation, or the one that the journal supports."""
    recommendation = recorded(args.run_dir)
    if args.json:
        print(json.dumps(recommendation, indent=2, ensure_ascii=False))
    else:
        rich.print(terminal.render(recommendation))
    return 0


def recorded(run_dir: Path) -> dict[str, Any]:
    """The recommendation in the run's folder; recomputed from the journal where the file is missing.

    Raises:
        MMSearchError: no run there, or its confirmation is not finished.
    """
    events = read_events(run_dir)
    if (run_dir / "recommendation.json").is_file():
        return card.read(run_dir)
    if not any(e["event"] == "phase" and e["name"] in ("decide", "done") for e in events):
        phase = next((e["name"] for e in reversed(events) if e["event"] == "phase"), "start")
        raise MMSearchError(
            f"{run_dir}: no recommendation yet, the run is in its phase {phase!r}; the best score of a search is no "
            f"evidence, so there is nothing to print before the confirmation ends (`mmsearch status {run_dir}`)"
        )
    from mmsearch.data import ClipData
    from mmsearch.recommend import diagnosis

    built = card.build(events, ClipData.open(run_dir / "data.json"), _sweep(run_dir))
    found = diagnosis.recorded(run_dir, built)
    return built if found is None else {**built, "diagnosis": found}


def _sweep(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "sweep.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise MMSearchError(f"{path}: cannot be read ({e})") from None
