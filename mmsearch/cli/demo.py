"""`mmsearch demo`: writes the embedded demo set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmsearch.data.demo import CONDITIONS, DemoConfig, write_demo
from mmsearch.knobs import knobs_of

HELP = "write a small set of talking digits as real mp4 files, with a dataset.yaml to sweep"

_FLAGS = {"n_clips": "--clips", "n_classes": "--classes"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, the condition, and one option a dial."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; missing or empty")
    conditions = ", ".join(CONDITIONS)
    parser.add_argument(
        "--condition", default="sound_dominates", metavar="NAME", help=f"{conditions} (default: the first)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    dials = parser.add_argument_group("dials", "what is given here changes the condition")
    for name, dial in knobs_of(DemoConfig).items():
        flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
        if isinstance(dial.paper, bool):
            dials.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=dial.help)
        else:
            kind = int if dial.integer else float
            text = f"{dial.help}; {dial.describe()}"
            dials.add_argument(flag, dest=name, type=kind, metavar="N" if kind is int else "X", help=text)


def run(args: argparse.Namespace) -> int:
    """Writes the set and says where it is and what to do with it."""
    dials = {name: getattr(args, name) for name in knobs_of(DemoConfig) if getattr(args, name) is not None}
    config = DemoConfig.of(args.condition, **dials)

    def progress(done: int, total: int) -> None:
        print(f"\r{done} of {total} clips", end="\n" if done == total else "", file=sys.stderr, flush=True)

    path = write_demo(args.out, config, workers=args.workers, on_progress=progress if sys.stderr.isatty() else None)
    print(f"{path}: {config.n_clips - config.n_test} development and {config.n_test} test clips")
    print(f"next: python -m mmsearch.sweep --dataset {path}")
    return 0
