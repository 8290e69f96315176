"""`mmsearch prepare`: decodes a dataset into the clip store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmsearch.data import Dataset, default_store, prepare

HELP = "decode a dataset's clips into the store; what is there already is not decoded again"

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The dataset and the store."""
    parser.add_argument("dataset", type=Path, metavar="DATASET.yaml", help="the dataset")
    parser.add_argument(
        "--out", type=Path, metavar="STORE", help="folder of the clip store (default: store in $MMSEARCH_CACHE)"
    )


def run(args: argparse.Namespace) -> int:
    """Decodes, and says how many clips were stored and how many set aside."""
    store = args.out or default_store()

    def progress(done: int, total: int) -> None:
        print(f"\rdecoded {done} of {total} clips", end="\n" if done == total else "", file=sys.stderr, flush=True)

    dataset = Dataset.load(args.dataset)
    prepared = prepare(dataset, store, on_progress=progress if sys.stderr.isatty() else None)
    aside = prepared.quarantined
    print(f"{dataset.name}: {prepared.stored} clips stored in {store} ({prepared.decoded} decoded now)")
    print(f"{len(aside)} clips set aside" + (":" if aside else ""))
    for clip in aside[:_SHOWN]:
        print(f"  {clip['clip_id']} ({clip['path']}): {clip['reason']}")
    if len(aside) > _SHOWN:
        print(f"  and {len(aside) - _SHOWN} more")
    return 0
