"""`mmsearch report`: a run's report, written again or served while the run goes on."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmsearch.cli.recommend import recorded
from mmsearch.cli.sweep import positive
from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.recommend import report, tables
from mmsearch.recommend.markdown import markdown
from mmsearch.recommend.media import Clips
from mmsearch.recommend.page import page
from mmsearch.recommend.watch import Server
from mmsearch.search.journal import read_events
from mmsearch.search.run_folder import viewed

HELP = "write the report of a run from its recommendation and journal, or serve it while the run goes on"

BEHIND = 10
"""How far the server's priority stands behind that of the trainings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and what is made of it where."""
    parser.add_argument("run_dir", metavar="RUN", help="the run's folder, or its address (s3://...)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the HTML goes (default: RUN/report.html)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write Markdown there")
    parser.add_argument(
        "--csv", type=Path, metavar="FOLDER", help="write finalists, comparisons, trials, curves and clips there"
    )
    parser.add_argument("--price", type=positive, metavar="X", help="of a GPU-hour (a core-hour), to show the cost")
    parser.add_argument(
        "--media",
        action="store_true",
        help="also show and play clips that the recommended model fixes and breaks; they may show people",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="serve the report of a run that may still be running to browsers of this machine, until Ctrl-C",
    )
    parser.add_argument("--port", type=int, metavar="N", help="with --watch: listen there (default: a free port)")


def run(args: argparse.Namespace) -> int:
    """Writes what is asked for and says where it is, or serves until Ctrl-C."""
    written = [name for name in ("out", "markdown", "csv") if getattr(args, name) is not None]
    if args.media and (args.watch or (written and not args.out)):
        raise MMSearchError("--media: belongs to the HTML file")
    if args.watch:
        if written:
            raise MMSearchError(f"--{written[0]}: writes a file, which --watch does not; give one of them")
        return _watch(args.run_dir, args.port or 0)
    if args.port is not None:
        raise MMSearchError("--port: belongs to --watch")
    run_dir = viewed(args.run_dir)
    events, recommendation = read_events(run_dir), recorded(run_dir)
    if args.price is not None:
        recommendation["provenance"]["sweep"].setdefault("arguments", {})["price"] = args.price
    if args.out or not written:
        out = args.out or run_dir / "report.html"
        write_text(out, report.html(recommendation, events, run_dir, _clips(run_dir) if args.media else None))
        print(out)
    if args.markdown:
        write_text(args.markdown, markdown(page(recommendation, events, run_dir)))
        print(args.markdown)
    if args.csv:
        for path in tables.write(args.csv, recommendation, events, run_dir):
            print(path)
    return 0


def _clips(run_dir: Path) -> Clips:
    from mmsearch.data import ClipData

    return ClipData.open(run_dir / "data.json")


def _watch(run: str, port: int) -> int:
    with Server(run, port) as server:
        os.nice(BEHIND)
        print(f"report: {server.address}\nCtrl-C ends it; the run goes on.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
