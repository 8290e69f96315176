"""`mmsearch methods`: what there is to choose from."""

from __future__ import annotations

import argparse

from mmsearch.cli.components import show
from mmsearch.cli.matrix import show_matrix
from mmsearch.cli.page import page
from mmsearch.errors import MMSearchError
from mmsearch.methods import METHODS

HELP = "the methods, or one of them with its source, formula and knobs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one, and the form."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="one method; without it all are listed")
    parser.add_argument("--matrix", action="store_true", help="which method goes with which fusion, and why not")
    parser.add_argument("--markdown", action="store_true", help="the documentation page of all methods and fusions")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the list, one of them, the matrix or the page.

    Raises:
        MMSearchError: arguments that do not go together.
    """
    if (args.matrix or args.markdown) and args.name:
        raise MMSearchError(
            f"{'--matrix' if args.matrix else '--markdown'} is about all methods; leave {args.name} out"
        )
    if args.markdown and (args.matrix or args.json):
        raise MMSearchError("--markdown holds the matrix and is no JSON; give it alone")
    if args.matrix:
        return show_matrix(args.json)
    if args.markdown:
        print(page())
        return 0
    return show(METHODS, args.name, args.json)
