"""`mmsearch cluster check`: cluster files held against their schemas, and a storage tried, before anything runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsearch.errors import MMSearchError
from mmsearch.recommend.words import count

HELP = "check files for a cluster (Ray launcher, KubeRay) without one, and that its storage can be written to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files and the storage."""
    parser.add_argument("action", choices=["check"], help="what to do")
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="a launcher file, a RayCluster, a RayJob or a runtime environment",
    )
    parser.add_argument(
        "--storage", metavar="PLACE", help="also write to, read from and delete from this folder or bucket"
    )


def run(args: argparse.Namespace) -> int:
    """Prints a line a file that validates; every mistake of the others is the error."""
    from mmsearch.search.cluster_files import problems, storage_problem

    found: list[str] = []
    for path in args.files:
        wrong = problems(path)
        found += wrong
        if not wrong:
            print(f"{path}: valid")
    if args.storage:
        wrong_there = storage_problem(args.storage)
        if wrong_there:
            found.append(wrong_there)
        else:
            print(f"{args.storage}: can be written to")
    if found:
        raise MMSearchError("\n".join([*found, f"{count(len(found), 'mistake')} found"]))
    return 0
