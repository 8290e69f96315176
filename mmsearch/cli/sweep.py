"""`mmsearch sweep` (also `python -m mmsearch.sweep`): from clips to a recommendation."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console

from mmsearch.cli import plan
from mmsearch.cli.prepare import MAX_BAD, share
from mmsearch.cli.validate import ALLOW_ABSOLUTE
from mmsearch.errors import Interrupted, MMSearchError

if TYPE_CHECKING:
    from mmsearch.cli.progress import JsonLines, Progress
    from mmsearch.search.machines import Cluster
    from mmsearch.search.run_folder import RunFolder

HELP = "from clips to a recommendation: which balancing method, which fusion, which knobs, how sure, at what cost"
DRY_RUN = "check the request and print the plan; nothing is started"
DEMO_DEFAULTS = {"trials": 10, "seeds": 4}
"""On the embedded clips, so that the whole sweep takes minutes on two cores."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sweep's own arguments; a default of None tells `--resume` what was not said."""
    parser.add_argument(
        "--dataset",
        metavar="YAML|demo",
        help="a dataset YAML, `demo` for the embedded clips, or a list of `mmsearch prepare --clips`",
    )
    parser.add_argument("--space", metavar="YAML", help="the search space (default: search_spaces/default.yaml)")
    parser.add_argument("--out", metavar="RUN", help="a folder or s3://... (default: runs/NAME of the dataset)")
    parser.add_argument("--methods", type=names, metavar="A,B", help="only these methods, and the baselines")
    parser.add_argument("--fusions", type=names, metavar="A,B", help="only these fusions")
    add_budgets(parser)
    parser.add_argument("--max-epochs", type=count, metavar="N", help="epochs of every trial (default: the space's)")
    parser.add_argument(
        "--equal-cost",
        action="store_true",
        default=None,
        help="every method the same joint epochs instead of epochs",
    )
    parser.add_argument("--allocation", metavar="NAME", help="who gets the next trial: equal (default), race or joint")
    parser.add_argument("--sampler", metavar="NAME", help="tpe, random, gp, cmaes or qmc (default: tpe)")
    parser.add_argument("--points", metavar="YAML", help="settings to try first, a list below each method's name")
    parser.add_argument("--warm-start", metavar="RUN", help="a sweep whose trials the sampler knows from the start")
    parser.add_argument("--optuna", metavar="URL", help="a database for the Optuna studies, beside RUN/optuna.log")
    parser.add_argument("--seeds", type=count, metavar="N", help="fresh seeds of every finalist, at most (default: 5)")
    parser.add_argument(
        "--margin", type=_margin, metavar="POINTS", help="a smaller gain over joint training is none (default: 0.5)"
    )
    parser.add_argument("--seed", type=_seed, metavar="S", help="where seeds start (default: 0)")
    parser.add_argument("--cpus-per-trial", type=positive, metavar="N", help="cores of a trial (default: 1)")
    parser.add_argument(
        "--gpus-per-trial",
        type=_gpus,
        metavar="N",
        help="GPUs, a process each; or auto: what each method needs (default: one if any)",
    )
    parser.add_argument("--keep", type=_seed, metavar="N", help="models kept beside the best and the last (default: 0)")
    parser.add_argument("--hang-after", type=_duration, metavar="10m", help="kill a silent worker (default: after 1h)")
    parser.add_argument("--store", metavar="PLACE", help="the clip store: a folder or s3://... (default: this user's)")
    parser.add_argument("--max-bad", type=share, metavar="SHARE", help=f"{MAX_BAD} (default: 0.5)")
    parser.add_argument("--allow-absolute", action="store_true", default=None, help=ALLOW_ABSOLUTE)
    parser.add_argument(
        "--stream", action="store_true", default=None, help="read shard by shard: the store is larger than a disk"
    )
    parser.add_argument(
        "--objectives", type=names, metavar="A,B",
        help="what the Pareto front weighs: accuracy, worst_modality, cost, size (default: accuracy,cost)",
    )  # fmt: skip
    parser.add_argument("--log", type=names, metavar="A,B", help="tell trackers too: tensorboard, mlflow, wandb")
    parser.add_argument("--log-clips", action="store_true", default=None, help="with class names and paths")
    parser.add_argument("--price", type=positive, metavar="X", help="of a GPU-hour (a core-hour), for the report")
    parser.add_argument(
        "--no-refit", action="store_true", default=None,
        help="hand over the confirmation's model of the median seed; none is trained on all development clips",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action="store_true", help="go on with the sweep that --out holds; with --dataset, begin one if none"
    )
    parser.add_argument("--dry-run", action="store_true", help=DRY_RUN)
    add_session(parser)


def add_budgets(parser: argparse.ArgumentParser) -> None:
    """What may grow when a run is resumed."""
    parser.add_argument("--trials", type=count, metavar="N", help="trials of the search (default: 48)")
    parser.add_argument(
        "--budget", type=positive, metavar="JOINT_EPOCHS", help="of the whole sweep; 60 %% of it searches"
    )
    parser.add_argument(
        "--time-budget", type=_duration, metavar="90m", help="90s, 90m, 2h, 1h30m; 60 %% of it searches"
    )


def add_session(parser: argparse.ArgumentParser) -> None:
    """What may differ every time."""
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="a running Ray cluster (default: $RAY_ADDRESS, else this machine)"
    )
    parser.add_argument(
        "--concurrent",
        type=count,
        metavar="N",
        help="trials at once; on a cluster that grows, how far (default: what its machines hold now)",
    )
    parser.add_argument("--gpu-kind", metavar="NAME", help="of which kind a trial's GPU is, such as A100")
    parser.add_argument("--memory-per-trial", type=positive, metavar="GIB", help="memory that a trial asks for")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--plain", action="store_true", help="progress as plain lines, for logs")
    shown.add_argument("--jsonl", action="store_true", help="every event as a line of JSON, for log collectors")


RECORDED = (
    "dataset", "space", "methods", "fusions", "trials", "budget", "time_budget", "max_epochs", "equal_cost",
    "allocation", "seeds", "margin", "seed",
    "cpus_per_trial", "gpus_per_trial", "keep", "hang_after",
    "store", "max_bad", "allow_absolute", "stream", "objectives", "log",
    "log_clips", "sampler", "points", "warm_start", "optuna", "price", "no_refit",
)  # fmt: skip
"""The arguments that make a sweep what it is."""


def run(args: argparse.Namespace) -> int:
    """Runs the sweep, or resumes it."""
    from mmsearch.arguments import Arguments, recorded
    from mmsearch.search.run_folder import RunFolder
    from mmsearch.sweep import DEMO, holds_sweep

    given = {k: getattr(args, k) for k in RECORDED if getattr(args, k) is not None}
    for key in ("dataset", "space", "points", "warm_start"):
        if key in given and given[key] != DEMO and "://" not in given[key]:
            given[key] = str(Path(given[key]).absolute())
    if given.get("optuna", "").startswith("sqlite:///"):
        given["optuna"] = f"sqlite:///{Path(given['optuna'].removeprefix('sqlite:///')).absolute()}"
    if args.resume and args.out is None:
        raise MMSearchError("--resume: say which run with --out RUN")
    if args.resume and (args.dataset is None or holds_sweep(RunFolder(args.out))):
        folder = RunFolder(args.out).taken()
        return begin(recorded(folder.path).grown(given), folder, args, resume=True)
    if args.dataset is None:
        raise MMSearchError("--dataset: a dataset YAML is needed, or `--dataset demo` for the embedded clips")
    if args.dataset == DEMO:
        given = {**DEMO_DEFAULTS, **given}
    out = args.out or Path("runs") / (DEMO if args.dataset == DEMO else Path(args.dataset.partition("?")[0]).stem)
    return begin(Arguments(**given), RunFolder(out), args, resume=False)


def begin(arguments, folder: RunFolder, args: argparse.Namespace, *, resume: bool) -> int:  # type: ignore[no-untyped-def]
    """Runs or resumes a sweep, or only prints its plan."""
    if not args.dry_run:
        return conduct(arguments, folder, args, resume=resume)
    from mmsearch.sweep import request

    print(plan.render(request(arguments, folder, resume=resume, cluster=cluster_of(args)).plan))
    return 0


def cluster_of(args: argparse.Namespace) -> Cluster:
    """The machines that are asked for."""
    from mmsearch.search.machines import Cluster

    address = {"address": args.address} if args.address else {}
    memory = args.memory_per_trial * 2**30 if args.memory_per_trial else None
    return Cluster(**address, concurrent=args.concurrent, gpu_kind=args.gpu_kind, memory=memory)


def conduct(arguments, folder: RunFolder, args: argparse.Namespace, *, resume: bool) -> int:  # type: ignore[no-untyped-def]
    """Runs a sweep with the progress on the screen, and prints its recommendation."""
    from mmsearch.sweep import sweep

    def display(stream: TextIO, folder: RunFolder, events: list[dict[str, Any]]) -> Progress | JsonLines:
        from mmsearch.cli.progress import JsonLines, Plan, Progress

        if args.jsonl:
            return JsonLines(stream, folder.said)
        plan = Plan.of(folder.path, folder.said)
        return Progress(stream, args.plain or not stream.isatty(), plan, events)

    try:
        recommendation = sweep(
            arguments,
            folder,
            resume=resume,
            cluster=cluster_of(args),
            display=display,
            on_plan=lambda intended: None if args.jsonl else print(plan.render(intended), flush=True),
        )
    except Interrupted as e:
        print(f"{e}\ngo on with: python -m mmsearch resume {folder.said}")
        return 130
    if args.jsonl:
        return 0
    from mmsearch.recommend import terminal

    Console().print(terminal.render(recommendation))
    out = folder.path if folder.away else Path(folder.said)
    if folder.away:
        print(f"run: {folder.address}; a copy of it:")
    print(f"report: {out / 'report.html'}")
    print(f"model: {out / 'best'} (`mmsearch predict {out / 'best'} CLIPS`)")
    return 0


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them, at least one."""
    found = tuple(n.strip() for n in text.split(",") if n.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} has no name in it")
    return found


def count(text: str) -> int:
    """A whole number of at least one."""
    return _number(text, int, 1)


def _seed(text: str) -> int:
    return _number(text, int, 0)


def positive(text: str) -> float:
    """A number above zero."""
    value = _number(text, float, 0)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def _margin(text: str) -> float:
    value = _number(text, float, 0)
    if value >= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not below 100 points")
    return value


def _gpus(text: str) -> float | str:
    return text if text == "auto" else _number(text, float, 0)


def _number(text: str, kind, least):  # type: ignore[no-untyped-def]
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number") from None
    if not value >= least:
        raise argparse.ArgumentTypeError(f"{text} is less than {least}")
    return value


def _duration(text: str) -> float:
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if not text or match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90m, 2h or 1h30m")
    seconds = sum(float(n) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True) if n)
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return seconds
