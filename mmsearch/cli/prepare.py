"""`mmsearch prepare`: decodes a dataset into the clip store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmsearch.cli.validate import ALLOW_ABSOLUTE
from mmsearch.data import Dataset, clip_data, default_store, prepare
from mmsearch.data.clips import LIST, is_list
from mmsearch.data.manifest import printable
from mmsearch.data.places import Place
from mmsearch.errors import MMSearchError

HELP = "decode a dataset's clips into the store; what is there already is not decoded again"

MAX_BAD = "stop when more than this share of the clips cannot be decoded"

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The dataset, the store, and what is put up with."""
    parser.add_argument("dataset", type=Path, metavar="DATASET.yaml", help="the dataset")
    parser.add_argument(
        "--out", metavar="STORE", help="the clip store: a folder or s3://... (default: store in $MMSEARCH_CACHE)"
    )
    parser.add_argument(
        "--clips",
        metavar="FILE.json",
        help="also write the list of clips, a file or s3://...: the --dataset of a sweep where the files are not",
    )
    parser.add_argument(
        "--max-bad",
        type=share,
        default=0.5,
        metavar="SHARE",
        help=f"{MAX_BAD} (default: %(default)s)",
    )
    parser.add_argument("--allow-absolute", action="store_true", help=ALLOW_ABSOLUTE)


def share(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; it must be a number from 0 to 1")
    return value


def run(args: argparse.Namespace) -> int:
    """Decodes, and says how many clips were stored and how many set aside."""
    store = args.out or default_store()
    if args.clips and not is_list(args.clips):
        raise MMSearchError(f"--clips: {args.clips} does not end in {LIST}")
    if args.clips and "://" in args.clips and Place(store).folder is not None:
        raise MMSearchError(f"--clips: {args.clips} would refer to a store that is a folder of this machine, {store}")

    def progress(done: int, total: int) -> None:
        print(f"\rdecoded {done} of {total} clips", end="\n" if done == total else "", file=sys.stderr, flush=True)

    dataset = Dataset.load(args.dataset, allow_absolute=args.allow_absolute)
    prepared = prepare(
        dataset,
        store,
        on_progress=progress if sys.stderr.isatty() else None,
        on_wait=lambda line: print(line, file=sys.stderr),
        max_quarantined=args.max_bad,
    )
    aside = prepared.quarantined
    print(f"{dataset.name}: {prepared.stored} clips stored in {store} ({prepared.decoded} decoded now)")
    print(f"{len(aside)} clips set aside" + (":" if aside else ""))
    for clip in aside[:_SHOWN]:
        print(f"  {clip['clip_id']} ({printable(clip['path'])}): {printable(clip['reason'])}")
    if len(aside) > _SHOWN:
        print(f"  and {len(aside) - _SHOWN} more")
    if args.clips:
        clip_data(dataset, store, prepared).send(args.clips)
        print(f"list of clips: {args.clips}")
    return 0
