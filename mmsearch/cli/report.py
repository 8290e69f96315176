"""`mmsearch report`: writes a run's report again."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch.cli.recommend import recorded
from mmsearch.recommend import report
from mmsearch.search.journal import read_events

HELP = "write the report of a run (one self-contained HTML file) from its recommendation and journal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run and where to write."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write (default: RUN/report.html)")


def run(args: argparse.Namespace) -> int:
    """Writes the file and says where it is."""
    out = args.out or args.run_dir / "report.html"
    recommendation = recorded(args.run_dir)
    print(report.save(out, recommendation, read_events(args.run_dir)))
    return 0
