"""`mmsearch manifest`: a dataset as people have it on disk becomes a manifest and its dataset YAML."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from mmsearch.data.layouts import LAYOUTS, Built, build
from mmsearch.data.manifest import SPLITS, printable
from mmsearch.knobs import Knob, knobs_of

HELP = "write the manifest and dataset YAML of a dataset in a known layout"

_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One parser a layout, with an option a field of it."""
    layouts = parser.add_subparsers(metavar="LAYOUT", required=True)
    for name in LAYOUTS.names():
        layout = LAYOUTS.get(name)
        own = layouts.add_parser(
            name,
            help=layout.summary,
            description=f"{layout.summary}.\n\nOn disk:\n  " + layout.expects.replace("\n", "\n  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        own.add_argument("root", type=Path, metavar="ROOT", help="the dataset")
        own.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write into")
        own.add_argument("--force", action="store_true", help="replace a manifest and YAML that are there")
        options = own.add_argument_group("options of the layout")
        for option in knobs_of(layout).values():
            _add_option(options, option)
        own.set_defaults(layout=name, parser=own)


def _add_option(group: argparse._ArgumentGroup, option: Knob) -> None:
    flag = "--" + option.name.replace("_", "-")
    shared = {"dest": f"option_{option.name}", "default": option.paper}
    default = f" (default: {option.paper})" if option.paper not in ("", False) else ""
    text = option.help.replace("%", "%%") + default
    if isinstance(option.paper, bool):
        group.add_argument(flag, action="store_true", help=text, **shared)
    elif option.choices is not None:
        group.add_argument(flag, choices=option.choices, help=text, **shared)
    elif option.integer:
        group.add_argument(flag, type=int, metavar="N", help=f"{text}; {option.describe()}", **shared)
    else:
        group.add_argument(flag, metavar="TEXT", help=text, **shared)


def run(args: argparse.Namespace) -> int:
    """Writes both files and says what was found."""
    values = {name: getattr(args, f"option_{name}") for name in knobs_of(LAYOUTS.get(args.layout))}
    layout = LAYOUTS.create({"name": args.layout, **values}, where=f"mmsearch manifest {args.layout}")

    def progress(done: int, total: int) -> None:
        print(f"\rrewritten {done} of {total} files", end="\n" if done == total else "", file=sys.stderr, flush=True)

    show = progress if sys.stderr.isatty() else None
    _report(build(layout, args.root, args.out, force=args.force, on_progress=show))
    return 0


def _report(built: Built) -> None:
    listing = built.listing
    sizes, parts = Counter(row.label for row in listing.rows), Counter(row.split for row in listing.rows)
    classes = [f"{name} {sizes[name]}" for name in listing.classes]
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    lines = [
        f"{listing.name}: {built.listed} clips listed, {len(listing.rows)} kept, {listing.missing.total} missing",
        *(f"  {line}" for line in listing.missing.lines()),
        f"{len(classes)} classes: {', '.join(classes[:_SHOWN])}{more}",
        "splits: " + ", ".join(f"{part or 'not given'} {parts[part]}" for part in (*SPLITS, "") if parts[part]),
        "modalities: " + ", ".join(f"{name} ({m['kind']})" for name, m in listing.modalities.items()),
    ]
    if built.converted or built.reused:
        lines.append(f"{built.converted} files rewritten, {built.reused} were there")
    lines += [f"warning: {warning}" for warning in listing.warnings]
    print(printable("\n".join([*lines, f"next: mmsearch validate {built.dataset}"])))
