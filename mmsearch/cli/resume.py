"""`mmsearch resume`: goes on with a sweep that was stopped or killed."""

from __future__ import annotations

import argparse

from mmsearch.cli.sweep import DRY_RUN, add_budgets, add_session, begin

HELP = "go on with a sweep that was stopped or killed, from its journal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and what may grow."""
    parser.add_argument("out", metavar="RUN", help="the run's folder, or its address (s3://...)")
    add_budgets(parser)
    parser.add_argument("--dry-run", action="store_true", help=DRY_RUN)
    add_session(parser)


def run(args: argparse.Namespace) -> int:
    """Resumes."""
    from mmsearch.arguments import GROWS, recorded
    from mmsearch.search.run_folder import RunFolder

    given = {k: getattr(args, k) for k in GROWS if getattr(args, k) is not None}
    folder = RunFolder(args.out).taken()
    return begin(recorded(folder.path).grown(given), folder, args, resume=True)
