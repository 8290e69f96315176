"""`mmsearch fusions`: what there is to choose from."""

from __future__ import annotations

import argparse

from mmsearch.cli.components import show
from mmsearch.fusion import FUSIONS

HELP = "the fusions, or one of them with its source, formula and knobs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one, and the form."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="one fusion; without it all are listed")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the list, or one of them."""
    return show(FUSIONS, args.name, args.json)
