"""`mmsearch resume`: goes on with a sweep that was stopped or killed."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch.cli.sweep import DRY_RUN, add_budgets, add_session, begin

HELP = "go on with a sweep that was stopped or killed, from its journal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and what may grow."""
    parser.add_argument("out", type=Path, metavar="RUN", help="the run's folder")
    add_budgets(parser)
    parser.add_argument("--dry-run", action="store_true", help=DRY_RUN)
    add_session(parser)


def run(args: argparse.Namespace) -> int:
    """Resumes."""
    from mmsearch.arguments import GROWS, recorded

    given = {k: getattr(args, k) for k in GROWS if getattr(args, k) is not None}
    return begin(recorded(args.out).grown(given), args.out, args, resume=True)
