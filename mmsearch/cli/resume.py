"""`mmsearch resume`: goes on with a sweep that was stopped or killed."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch.cli.sweep import add_budgets, add_session, conduct

HELP = "go on with a sweep that was stopped or killed, from its journal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and what may grow."""
    parser.add_argument("out", type=Path, metavar="RUN", help="the run's folder")
    add_budgets(parser)
    add_session(parser)


def run(args: argparse.Namespace) -> int:
    """Resumes."""
    from mmsearch.arguments import recorded

    given = {k: getattr(args, k) for k in ("trials", "time_budget") if getattr(args, k) is not None}
    return conduct(recorded(args.out).grown(given), args.out, args, resume=True)
