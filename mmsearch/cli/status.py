"""`mmsearch status`: how far a run is."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import rich

from mmsearch.cli.progress import Plan, elapsed, expected, render, rows
from mmsearch.recommend import card
from mmsearch.recommend.spending import spending
from mmsearch.search.journal import read_events
from mmsearch.search.run_folder import viewed
from mmsearch.search.trials import records

HELP = "how far a run is: trials, costs and best scores by method"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run."""
    parser.add_argument("run_dir", metavar="RUN", help="the run's folder, or its address (s3://...)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the table of the live progress, or the same as JSON."""
    run_dir = viewed(args.run_dir)
    events = read_events(run_dir)
    plan = Plan.of(run_dir, args.run_dir)
    if not args.json:
        rich.print(render(events, plan))
        return 0
    trials = records(events)
    phase = next((e["name"] for e in reversed(events) if e["event"] == "phase"), "")
    status: dict[str, Any] = {
        "run": args.run_dir,
        "phase": phase,
        "seconds": elapsed(events, phase, None),
        "trials_expected": len(trials) if phase in ("decide", "diagnose", "refit", "done") else expected(plan, trials),
        "trials_done": sum(r.finished for r in trials.values()),
        "methods": [dataclasses.asdict(row) for row in rows(trials, plan)],
        "failed": {r.trial_id: r.reason for r in trials.values() if r.state == "failed"},
        "spending": spent.to_dict() if (spent := spending(events)) else None,
        "recommendation": (run_dir / card.FILE).is_file(),
    }
    print(json.dumps(status, indent=2))
    return 0
