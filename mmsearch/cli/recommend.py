"""`mmsearch recommend`: the recommendation of a finished run, or one before any sweep."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import rich
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from mmsearch.arguments import Arguments, recorded_sweep
from mmsearch.cli.sweep import count
from mmsearch.cli.validate import ALLOW_ABSOLUTE
from mmsearch.errors import MMSearchError
from mmsearch.recommend import card, terminal
from mmsearch.search.journal import read_events
from mmsearch.search.run_folder import viewed

HELP = "the recommendation of a run: which method, fusion and knobs, how sure, at what cost; --no-sweep: before any"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, or the dataset."""
    parser.add_argument("run_dir", nargs="?", metavar="RUN", help="the run's folder, or its address (s3://...)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    before = parser.add_argument_group("before any sweep")
    before.add_argument("--no-sweep", action="store_true", help="survey a dataset and say what other sweeps tell of it")
    before.add_argument("--dataset", metavar="YAML|demo", help="a dataset YAML, or `demo` for the embedded clips")
    before.add_argument("--space", metavar="YAML", help="the search space of the sweep to come (default: as of sweep)")
    before.add_argument("--max-epochs", type=count, metavar="N", help="epochs of the survey (default: the space's)")
    before.add_argument("--points", type=Path, metavar="YAML", help="write the order and settings for sweep --points")
    before.add_argument("--store", metavar="PLACE", help="the clip store: a folder or s3://... (default: this user's)")
    before.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: a GPU if any)")
    before.add_argument("--allow-absolute", action="store_true", help=ALLOW_ABSOLUTE)


def run(args: argparse.Namespace) -> int:
    """Prints the recorded recommendation, the one that the journal supports, or what is expected without a sweep."""
    if args.no_sweep:
        return _expect(args)
    for name in ("dataset", "space", "max_epochs", "points", "store", "allow_absolute"):
        if getattr(args, name):
            raise MMSearchError(f"--{name.replace('_', '-')}: belongs to --no-sweep")
    if args.run_dir is None:
        raise MMSearchError("RUN: say which run, or `--dataset X --no-sweep` for a recommendation before any sweep")
    recommendation = recorded(viewed(args.run_dir))
    if args.json:
        print(json.dumps(recommendation, indent=2, ensure_ascii=False))
    else:
        rich.print(terminal.render(recommendation))
    return 0


def recorded(run_dir: Path) -> dict[str, Any]:
    """The recommendation in the run's folder; recomputed from the journal where the file is missing.

    Raises:
        MMSearchError: no run there, or its confirmation is not finished.
    """
    events = read_events(run_dir)
    if (run_dir / card.FILE).is_file():
        return card.read(run_dir)
    if not any(e["event"] == "phase" and e["name"] in ("decide", "done") for e in events):
        phase = next((e["name"] for e in reversed(events) if e["event"] == "phase"), "start")
        raise MMSearchError(
            f"{run_dir}: no recommendation yet, the run is in its phase {phase!r}; the best score of a search is no "
            f"evidence, so there is nothing to print before the confirmation ends (`mmsearch status {run_dir}`)"
        )
    from mmsearch.data import ClipData
    from mmsearch.recommend import diagnosis

    built = card.build(events, ClipData.open(run_dir / "data.json"), recorded_sweep(run_dir))
    found = diagnosis.recorded(run_dir, built)
    return built if found is None else {**built, "diagnosis": found}


def _expect(args: argparse.Namespace) -> int:
    """Surveys a dataset and prints what is expected of every method on it."""
    if args.run_dir is not None:
        raise MMSearchError(f"RUN: {args.run_dir} and --no-sweep exclude each other")
    if args.dataset is None:
        raise MMSearchError("--dataset: a dataset YAML is needed, or `--dataset demo` for the embedded clips")
    from mmsearch.data import clip_data, default_store, prepare
    from mmsearch.files import write_text
    from mmsearch.recommend import advice
    from mmsearch.recommend.knowledge import Knowledge, labels_of
    from mmsearch.recommend.survey import survey
    from mmsearch.sweep import dataset_of, space_asked, space_of

    arguments = Arguments(
        dataset=args.dataset, space=args.space, max_epochs=args.max_epochs, allow_absolute=args.allow_absolute
    )
    known = Knowledge.load()
    file = space_asked(arguments)
    dataset = dataset_of(arguments)
    store = args.store or default_store()
    data = clip_data(dataset, store, prepare(dataset, store))
    space = space_of(file, data.modalities, data.digest, arguments)
    console = Console(stderr=True)
    with console.status("survey") as status:

        def progress(what: str, epoch: int, of: int) -> None:
            status.update(f"survey: {what}, epoch {epoch} of {of}")
            if not console.is_terminal and epoch == of:
                console.print(f"survey: {what}, {of} epochs")

        described = survey(data, space, device=args.device, progress=progress)
    found = known.without(data.digest).advise(described, labels_of(space))
    if args.points:
        write_text(args.points, advice.points_yaml(advice.start_of(found, space), found, described))
    if args.json:
        print(json.dumps(advice.as_json(found, described), indent=2, ensure_ascii=False))
        return 0
    rich.print(_render(found, described, data.name))
    if args.points:
        again = f" --space {args.space}" if args.space else ""
        print(f"next: mmsearch sweep --dataset {args.dataset}{again} --points {args.points}")
    return 0


def _render(found, described, name: str) -> Group:  # type: ignore[no-untyped-def]
    """The advice on a terminal."""
    from mmsearch.recommend import advice
    from mmsearch.recommend.words import percent

    colour = "yellow" if found.unsure else "cyan"
    said = Table.grid(padding=(0, 0, 1, 0))
    for text in advice.sentences(found, described):
        said.add_row(Text(text))
    verdict = terminal.verdict(f"{name}: before any sweep", advice.headline(found, described), said, colour)
    table = Table(box=box.SIMPLE_HEAD, title="Expected points over joint training, 95 %", title_justify="left")
    for column in ("", "points", "best", "cost", "cases"):
        table.add_column(column, justify="left" if not column else "right")
    for e in found.order:
        chance = "" if found.unsure else percent(e.p_best)
        cases = str(e.cases) if e.cases else ""
        table.add_row(Text(advice.name_of(e, described)), advice.interval(e), chance, advice.cost(e), cases)
    return Group(verdict, table)
