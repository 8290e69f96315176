"""`mmsearch compare`: methods across the datasets of several finished runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import rich
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmsearch.cli.recommend import recorded
from mmsearch.errors import MMSearchError
from mmsearch.recommend.compare import LEVEL, Comparison, Sweep, compare
from mmsearch.recommend.words import count, joint_epochs, listed, points, points_interval
from mmsearch.search.journal import read_events
from mmsearch.search.run_folder import viewed

HELP = "methods across datasets: average ranks with their critical difference, over finished runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, the budget, and what is made of it."""
    parser.add_argument("run_dirs", nargs="+", metavar="RUN", help="runs, one a dataset: folders or addresses")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="N",
        help="joint epochs a method for the ranks at equal cost (default: the median of what a run's methods took)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the critical-difference diagram (svg, png, pdf)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the comparison, and writes the diagram where it is asked for."""
    if args.budget is not None and not args.budget > 0:
        raise MMSearchError(f"--budget: {args.budget:g} is not above 0")
    found = compare([Sweep.of(recorded(r), read_events(r)) for r in map(viewed, args.run_dirs)], args.budget)
    if args.plot:
        from mmsearch.recommend import rank_plot

        rank_plot.write(args.plot, found)
    if args.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        rich.print(_render(found))
        if args.plot:
            print(args.plot)
    return 0


def _render(found: Comparison) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for name in ("average\nrank", "points over joint\nover datasets", *found.datasets, "rank at\nequal cost"):
        table.add_column(name, justify="right")
    for p in found.places:
        gain = points_interval({"mean": p.gain, "ci95": p.ci95})
        table.add_row(p.method, f"{p.rank:.2f}", gain, *map(points, p.gains), f"{p.equal_rank:.2f}")
    return Group(table, *(Text(line) for line in sentences(found)))


def sentences(found: Comparison) -> list[str]:
    """What the table means."""
    names = [p.method for p in found.places]
    datasets = count(len(found.datasets), "dataset")
    say = [
        "Gains are on select, paired by seed, of the best finalist of each method; intervals are over datasets.",
        f"With {count(len(names), 'method')} on {datasets}, average ranks differ beyond chance from "
        f"{found.critical_difference:.2f} on (Nemenyi, 5 %).",
    ]
    if found.p is not None:
        alike = "the methods are not shown to differ at all" if found.p >= LEVEL else "the methods differ"
        say.append(f"Friedman's test (Iman and Davenport): p = {found.p:.2g}; {alike}.")
    if found.critical_difference >= len(names) - 1:
        say.append(f"No ranks of {datasets} can be so far apart: more datasets are needed for any claim.")
    elif found.cliques:
        say += [f"Not told apart: {listed(names[a : b + 1])}." for a, b in found.cliques]
    budgets = listed([f"{joint_epochs(b)} ({d})" for b, d in zip(found.budgets, found.datasets, strict=True)])
    say.append(f"Equal cost: the best accuracy on val after so many joint epochs a method, with teachers: {budgets}.")
    say += [f"{m} is left out: no finalist on {listed(where)}." for m, where in found.missing.items()]
    return say
