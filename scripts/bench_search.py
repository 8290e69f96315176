"""Which search recommends best: allocations and peers on generated problems and recorded trainings, at equal cost.

    python scripts/bench_search.py --work /tmp/search --jobs 2
    python scripts/bench_search.py --work /tmp/search --check-peers

A problem is a family of `mmsearch.search.simulate.FAMILIES` and a seed, which draws the methods and fusions of a space
and then the world; or a table of recorded trainings (`--table`) and a seed. Whatever can be tuned is tuned on TUNE;
FINAL and the tables are for the final figure.

On each problem the race searches TRIALS_PER_METHOD trials a method and confirms its finalists. Every other strategy
searches until it has cost as many joint epochs and confirms its finalists in the same way. The peers, Ray's own
searcher and schedulers, do so as well, and once more as they are: all that the race cost goes into the search, and the
trial with the highest last score is recommended. They begin with the paper's setting of every method, as the race
does, and their trials need no teachers. All run one trial at a time.

Regret is the truth of the best setting of the best method less that of the recommended document.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.batch import KINDS, Modality
from mmsearch.recommend.decision import decide
from mmsearch.recommend.evidence import finalists_of, settled
from mmsearch.search.allocation import ALLOCATIONS
from mmsearch.search.finalists import finalists
from mmsearch.search.journal import Journal
from mmsearch.search.simulate import FAMILIES, Curve, Recorded, Synthetic, World, drive
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.space import BASELINES, Space
from mmsearch.search.stopping import FACTOR, SHARES, Halving
from mmsearch.search.study import Ask, Study

TUNE = range(20)
"""Seeds of the problems that allocation and finalists are tuned on, of every family."""

FINAL = range(100, 110)
"""Seeds of the problems of the final figure, of every family."""

TRIALS_PER_METHOD = 8
SEEDS = 5
PEER_TRIALS_PER_METHOD = 40
"""At most; else a peer repeats an ensemble that is best, and costs nothing, for ever."""

EQUAL = 1.03
"""Costs within this ratio count as equal."""

NEAR = 0.005
"""A method whose peak is within so much of the best one's is as good."""

EPOCHS = 27
METHOD_COUNTS = (3, 12)
"""Methods beyond the baselines, from and to."""

OTHERS = (
    "agm", "amco", "cggm", "cml", "diagnose_relearn", "frozen_probe", "g2d", "gradient_blending", "greedy", "inforeg",
    "lfm", "mbsd", "mla", "mmcosine", "mmpareto", "modality_valuation", "mses", "mslr", "ogm", "opm", "pmr", "qmf",
    "reconboost", "uniform",
)  # fmt: skip
"""Methods that a problem draws from; written out, so that a new method changes no problem."""

FUSIONS = ("concat", "sum", "gated")
MODALITIES = {
    "sound": Modality("sound", "sound", (16000,), 16000.0),
    "frames": Modality("frames", "frames", (4, 32, 32, 3), 2.0),
}


OURS = ("race", "equal", "joint", "random")
PEERS = ("optuna+asha", "optuna+hyperband")
LABELS = {
    "race": "race",
    "equal": "equal",
    "joint": "joint",
    "random": "random search, equal shares, same stopping",
    "optuna+asha": "OptunaSearch + ASHAScheduler, finalists confirmed",
    "optuna+asha/argmax": "OptunaSearch + ASHAScheduler, its best trial",
    "optuna+hyperband": "OptunaSearch + HyperBandScheduler, finalists confirmed",
    "optuna+hyperband/argmax": "OptunaSearch + HyperBandScheduler, its best trial",
}


def problem(family: str, seed: int) -> tuple[Space, World]:
    """The world of a family and a seed, on a space of its own: one fusion in two of three problems, else three."""
    digest = hashlib.blake2b(f"{family}/{seed}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest))
    low, high = METHOD_COUNTS
    methods = [*BASELINES, *map(str, rng.permutation(OTHERS)[: rng.integers(low, high, endpoint=True)])]
    fusions = FUSIONS[: 3 if rng.random() < 1 / 3 else 1]
    space = make_space(methods, fusions, seed)
    return space, Synthetic(family, seed, space)


def make_space(methods: list[str], fusions: tuple[str, ...], seed: int) -> Space:
    """A space of these methods and fusions with all their knobs, and SGD; a method that goes with none is left out."""
    lines = [f"epochs: {EPOCHS}", "fusions:", *(f"  {f}:" for f in fusions), "optimizers:", "  sgd:"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "space.yaml"
        path.write_text("\n".join(lines))
        space = Space.load(path, MODALITIES, data="simulated", seed=seed)
    space.methods = {m: space.methods[m] for m in methods if m in space.methods}
    return space


def recorded(table: Path, space_file: Path, seed: int) -> tuple[Space, World]:
    """The world of a table of recorded trainings, on a space file with only the methods and fusions that it has."""
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    documents = [line["document"] for line in lines]
    names = list(documents[0]["encoders"])
    modalities = {u: Modality(u, u if u in KINDS else "vector", _SHAPES.get(u, (8,)), 1.0) for u in names}
    space = Space.load(space_file, modalities, data="recorded", seed=seed)
    methods, fusions = ({d[part]["name"] for d in documents} for part in ("method", "fusion"))
    space.methods = {m: c for m, c in space.methods.items() if m in methods}
    space.fusions = {f: c for f, c in space.fusions.items() if f in fusions}
    space.settings["epochs"] = max(d["epochs"] for d in documents)
    return space, Recorded(lines)


_SHAPES = {m.kind: m.shape for m in MODALITIES.values()}


def ours(strategy: str, space: Space, world: World, budget: float) -> dict[str, Any]:
    """One of our strategies: searched to the budget (joint epochs), then confirmed."""
    study = Study(space, Journal(None), **({"sampler": "random"} if strategy == "random" else {}))
    trials = TRIALS_PER_METHOD * len(space.methods) if strategy == "race" else 10**6
    allocation = ALLOCATIONS["equal" if strategy == "random" else strategy]()
    search = SearchSource(study, trials=trials, allocation=allocation)
    spent = drive(study, Chain({"teachers": TeacherSource(study), "search": search}), world, slots=1, budget=budget)
    return confirmed(study, world, spent.cost)


def confirmed(study: Study, world: World, search_cost: float) -> dict[str, Any]:
    """What is recommended after the finalists of a study were confirmed, and what that is worth.

    Where joint training failed throughout, as a peer may leave it, the highest mean is.
    """
    trials = len(study.records)
    chosen = finalists(study.records)
    over = functools.partial(settled, rows=None, planned=SEEDS)
    spent = drive(study, ConfirmSource(study, finalists, seeds=SEEDS, settled=over), world, slots=1)
    found = finalists_of(study.records)
    if any(f.method == "joint" for f in found):
        decision = decide(found, planned=SEEDS)
        chosen_config, leader, kind = decision.chosen.config, decision.leader.config, decision.kind
    else:
        chosen_config, leader, kind = found[0].config, found[0].config, "nothing to compare against"
    peaks = world.peaks()
    best = max(peaks.values())
    methods = {d["method"]["name"] for d in chosen}
    return {
        "regret": best - world.truth(chosen_config),
        "regret_leader": best - world.truth(leader),
        "kind": kind,
        "finalists": len(chosen),
        "best_in": any(peaks[m] >= best - 1e-9 for m in methods),
        "near_in": any(peaks[m] >= best - NEAR for m in methods),
        "methods": len(peaks),
        "trials": trials,
        "search_cost": search_cost,
        "cost": search_cost + spent.cost,
    }


class PeerSpace:
    """Our space as Optuna's define-by-run function: the method is one more choice.

    Args:
        space: what is searched.
        world: with it a configuration carries its curve, for a trial that is to replay it.
    """

    def __init__(self, space: Space, world: World | None = None) -> None:
        self.space = space
        self.world = world

    def __call__(self, trial: Any) -> dict[str, Any] | None:
        method = trial.suggest_categorical("method", list(self.space.methods))
        document, params = self.space.suggest(trial, method)
        return {"replay": dataclasses.asdict(self.world.curve(document, params))} if self.world else None

    def points(self) -> list[dict[str, Any]]:
        """The paper's setting of every method."""
        return [{"method": m, **self.space.paper_points(m)[0]} for m in self.space.methods]

    def document(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The document of a configuration that the searcher suggests, and its parameters."""
        import optuna

        params = {k: v for k, v in config.items() if k not in ("method", "replay")}
        return self.space.suggest(optuna.trial.FixedTrial(params), config["method"])


def peer(strategy: str, space: Space, world: World | None = None) -> tuple[Any, Any]:
    """Ray's searcher and scheduler; with a world its configurations carry their curves."""
    from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch

    inner = PeerSpace(space, world)
    searcher = OptunaSearch(inner, metric="score", mode="max", points_to_evaluate=inner.points(), seed=space.seed + 1)
    epochs = space.settings["epochs"]
    common = {"time_attr": "epoch", "metric": "score", "mode": "max", "max_t": epochs}
    if strategy == "optuna+asha":
        grace = max(1, math.ceil(SHARES[0] * epochs))
        return searcher, ASHAScheduler(**common, grace_period=grace, reduction_factor=FACTOR)
    return searcher, HyperBandScheduler(**common, reduction_factor=FACTOR)


class PeerTrial:
    """What the schedulers see of a trial."""

    is_saving = False

    def __init__(self, trial_id: str, config: dict[str, Any]) -> None:
        self.trial_id = trial_id
        self.config = config
        self.status = "PENDING"
        self.last_result: dict[str, Any] = {}
        self.epoch = self.iteration = 0
        self.curve: Curve | None = None


class PeerSweep:
    """Ray's searcher and scheduler without Ray: what its controller does with one trial running at a time.

    Attributes:
        trials: in the order in which they were suggested.
        log: a line an epoch: position of the trial, epoch, score (None: it failed), what all have cost.
    """

    def __init__(self, searcher: Any, scheduler: Any, space: Space, world: World, *, ahead: bool) -> None:
        self.searcher, self.scheduler = searcher, scheduler
        self.inner, self.world = PeerSpace(space), world
        self.ahead = ahead
        self.trials: list[PeerTrial] = []
        self.log: list[tuple[int, int, float | None, float]] = []
        self.cost = 0.0

    def get_trials(self) -> list[PeerTrial]:
        """As the controller's."""
        return self.trials

    get_live_trials = get_trials

    def stop_trial(self, trial: PeerTrial) -> None:
        """As the controller's."""
        if trial.status in ("PENDING", "PAUSED"):
            self.scheduler.on_trial_remove(self, trial)
            self.searcher.on_trial_complete(trial.trial_id)
        elif trial.status == "RUNNING":
            self.scheduler.on_trial_complete(self, trial, trial.last_result)
            self.searcher.on_trial_complete(trial.trial_id, result=trial.last_result)
        trial.status = "TERMINATED"

    def run(self, *, budget: float = math.inf, trials: int = 10**6) -> None:
        """Until the budget (joint epochs) is spent or so many trials have ended."""
        while self.cost < budget:
            self._suggest(trials)
            trial = self.scheduler.choose_trial_to_run(self)
            if trial is None:
                return
            trial.status = "RUNNING"
            self._suggest(trials)
            while trial.status == "RUNNING" and self.cost < budget:
                self._epoch(trial)

    def _suggest(self, trials: int) -> None:
        waiting = [t for t in self.trials if t.status == "PENDING"]
        running = [t for t in self.trials if t.status == "RUNNING"]
        if waiting or len(self.trials) >= trials or (running and not self.ahead):
            return
        trial_id = f"{len(self.trials):05d}"
        trial = PeerTrial(trial_id, self.searcher.suggest(trial_id))
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)

    def _epoch(self, trial: PeerTrial) -> None:
        curve = trial.curve = trial.curve or self.world.curve(*self.inner.document(trial.config))
        epochs = self.inner.space.settings["epochs"]
        epoch = epochs if curve.at_once else trial.epoch + 1
        self.cost += curve.cost
        position = int(trial.trial_id)
        if curve.fails_at is not None and epoch >= curve.fails_at:
            self.log.append((position, epoch, None, self.cost))
            self.scheduler.on_trial_error(self, trial)
            self.searcher.on_trial_complete(trial.trial_id, error=True)
            trial.status = "ERROR"
            return
        score = curve.scores[epoch - 1]
        trial.epoch, trial.iteration = epoch, trial.iteration + 1
        self.log.append((position, epoch, score, self.cost))
        result = {"score": score, "epoch": epoch, "training_iteration": trial.iteration, "done": epoch >= epochs}
        decision = "STOP" if result["done"] else self.scheduler.on_trial_result(self, trial, result)
        if decision != "STOP":
            self.searcher.on_trial_result(trial.trial_id, result)
        trial.last_result = result
        if decision == "STOP":
            self.stop_trial(trial)
        elif decision == "PAUSE":
            trial.status = "PAUSED"


def peers(strategy: str, space: Space, world: World, search_cost: float, cost: float) -> Iterator[dict[str, Any]]:
    """A peer as it is, and with our finalists and confirmation on what it had tried after `search_cost`.

    Where that costs more than `cost`, which is the race's in all, it stops searching earlier.
    """
    searcher, scheduler = peer(strategy, space)
    sweep = PeerSweep(searcher, scheduler, space, world, ahead=strategy != "optuna+asha")
    sweep.run(budget=cost, trials=PEER_TRIALS_PER_METHOD * len(space.methods))
    last = {i: score for i, _, score, _ in sweep.log}
    chosen = sweep.trials[max((i for i in last if last[i] is not None), key=lambda i: last[i])]
    peaks = world.peaks()
    yield {
        "strategy": f"{strategy}/argmax",
        "regret": max(peaks.values()) - world.truth(sweep.inner.document(chosen.config)[0]),
        "regret_leader": max(peaks.values()) - world.truth(sweep.inner.document(chosen.config)[0]),
        "methods": len(peaks),
        "trials": len(sweep.trials),
        "cost": sweep.cost,
    }
    for share in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5):
        study, spent = replayed(sweep, space, share * search_cost)
        figures = confirmed(study, world, spent)
        if figures["cost"] <= EQUAL * cost:
            break
    yield {"strategy": strategy, **figures}


def replayed(sweep: PeerSweep, space: Space, budget: float) -> tuple[Study, float]:
    """A peer's trials up to a budget as a study of ours, and what they had cost."""
    study = Study(space, Journal(None), Halving(shares=()))
    ends: dict[str, str] = {}
    identities: dict[int, str] = {}
    spent = 0.0
    for position, epoch, score, cost in sweep.log:
        if cost > budget:
            break
        spent = cost
        if position not in identities:
            document, params = sweep.inner.document(sweep.trials[position].config)
            ask = Ask.of(document, stage="search", why="peer", params=params)
            identities[position] = ask.trial_id
            if ask.trial_id not in study.records:
                study.issue(ask)
                study.started(ask.trial_id, 0)
        record = study.records[identities[position]]
        if score is None:
            ends[record.trial_id] = "failed"
        elif not record.finished:
            result = {"epoch": epoch, "epochs": record.epochs, "score": score, "metrics": {}}
            study.report(record.trial_id, {**result, "cost_joint_epochs": 0.0, "seconds": 0.0})
            if epoch >= record.epochs:
                study.tell(record.trial_id, "complete")
    for record in study.unfinished():
        study.tell(record.trial_id, ends.get(record.trial_id, "pruned"), reason="peer")
    return study, spent


def check_peers(strategies: Sequence[str], problems: Sequence[tuple[str, int]], trials: int = 25) -> int:
    """Whether the peers driven without Ray try the same configurations up to the same epochs as under Ray Tune.

    Under Ray the trials replay the curves at once, one at a time: the only processor is taken by the one that runs.
    """
    import os

    os.environ |= {"RAY_TRAIN_ENABLE_V2_DEPRECATION_WARNINGS": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    import ray
    from ray import tune

    class Replay(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.curve, self.epoch = config["replay"], 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            scores, fails_at = self.curve["scores"], self.curve["fails_at"]
            self.epoch = len(scores) if self.curve["at_once"] else self.epoch + 1
            if fails_at is not None and self.epoch >= fails_at:
                raise RuntimeError("simulated")
            return {"score": scores[self.epoch - 1], "epoch": self.epoch, "done": self.epoch >= len(scores)}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            (Path(checkpoint_dir) / "epoch").write_text(str(self.epoch))

        def load_checkpoint(self, checkpoint: Any) -> None:
            self.epoch = int((Path(checkpoint) / "epoch").read_text())

    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False, address="local")
    differing = 0
    for strategy in strategies:
        same = 0
        for name, seed in problems:
            space, world = problem(name, seed)
            sweep = PeerSweep(*peer(strategy, space), space, world, ahead=strategy != "optuna+asha")
            sweep.run(trials=trials)
            searcher, scheduler = peer(strategy, space, world)
            with tempfile.TemporaryDirectory() as folder:
                grid = tune.Tuner(
                    Replay,
                    tune_config=tune.TuneConfig(
                        search_alg=searcher,
                        scheduler=scheduler,
                        num_samples=trials,
                        max_concurrent_trials=1 if strategy == "optuna+asha" else None,
                        reuse_actors=True,
                    ),
                    run_config=tune.RunConfig(storage_path=folder, verbose=0),
                ).fit()
            here = [(t.config, t.epoch) for t in sweep.trials]
            there = [({k: v for k, v in r.config.items() if k != "replay"}, r.metrics.get("epoch", 0)) for r in grid]
            same += here == there
            if here != there:
                first = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
                print(f"{strategy}, {name} {seed}: trial {first} differs: {here[first]} here, {there[first]} under Ray")
        print(f"{strategy}: the same configurations and last epochs in {same} of {len(problems)} problems", flush=True)
        differing += len(problems) - same
    ray.shutdown()
    return int(differing > 0)


def solve(task: dict[str, Any]) -> list[dict[str, Any]]:
    """All strategies on a problem; a line each."""
    name, seed = task["problem"], task["seed"]
    make: Callable[[], tuple[Space, World]] = (
        (lambda: recorded(Path(task["table"]), Path(task["space"]), seed))
        if task["table"]
        else lambda: problem(name, seed)
    )
    lines = []

    def add(strategy: str, figures: Mapping[str, Any], started: float) -> None:
        seconds = time.process_time() - started
        lines.append({"problem": name, "seed": seed, "strategy": strategy, **figures, "seconds": seconds})

    race = task["race"]
    for strategy in OURS:
        if strategy in task["strategies"]:
            space, world = make()
            started = time.process_time()
            figures = ours(strategy, space, world, race["search_cost"] if race else math.inf)
            race = race or figures
            add(strategy, figures, started)
    for strategy in PEERS:
        if strategy in task["strategies"]:
            space, world = make()
            started = time.process_time()
            for figures in peers(strategy, space, world, race["search_cost"], race["cost"]):
                add(figures["strategy"], figures, started)
    return lines


def interval(values: Sequence[float], seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean over problems."""
    x = np.asarray(values)
    means = x[np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def worst_decile(values: Sequence[float]) -> float:
    """The mean of the highest tenth."""
    x = np.sort(np.asarray(values))
    return float(x[-max(1, len(x) // 10) :].mean())


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The strategies as a Markdown table, in points of accuracy."""
    by = {s: {(r["problem"], r["seed"]): r for r in lines if r["strategy"] == s} for s in LABELS}
    rows = [
        "| strategy | regret, mean | worst decile | less that of race, 95 % | regret of the leader "
        "| best method a finalist | one within half a point | finalists | of methods | joint epochs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for strategy, label in LABELS.items():
        found = by[strategy]
        if not found:
            continue
        regrets = [100 * r["regret"] for r in found.values()]
        differences = [100 * (r["regret"] - by["race"][k]["regret"]) for k, r in found.items()]
        low, high = interval(differences)
        apart = "" if strategy == "race" else f"{np.mean(differences):+.2f} [{low:+.2f}, {high:+.2f}]"
        mean = lambda key, found=found: float(np.mean([r[key] for r in found.values()]))  # noqa: E731
        through = (
            ["", "", ""]
            if "/" in strategy
            else [f"{mean('best_in'):.1%}", f"{mean('near_in'):.1%}", f"{mean('finalists'):.1f}"]
        )
        cells = [label, f"{np.mean(regrets):.2f}", f"{worst_decile(regrets):.2f}", apart]
        cells += [f"{100 * mean('regret_leader'):.2f}", *through, f"{mean('methods'):.1f}", f"{mean('cost'):.0f}"]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def by_family(lines: Sequence[Mapping[str, Any]]) -> str:
    """Mean regret by family and strategy, in points."""
    strategies = [s for s in LABELS if any(r["strategy"] == s for r in lines)]
    rows = ["| family | " + " | ".join(strategies) + " |", "|---" * (1 + len(strategies)) + "|"]
    for family in dict.fromkeys(r["problem"] for r in lines):
        found = [[r["regret"] for r in lines if (r["problem"], r["strategy"]) == (family, s)] for s in strategies]
        rows.append(f"| {family} | " + " | ".join(f"{100 * np.mean(f):.2f}" if f else "" for f in found) + " |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/search"), help="folder of the results; what is there is not run again"
    )
    parser.add_argument("--seeds", choices=["tune", "final"], default="final", help="which generated problems")
    parser.add_argument("--strategies", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS], metavar="NAME")
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--per-family", type=int, help="only so many problems of a family")
    parser.add_argument("--table", type=Path, nargs="*", default=[], help="recorded trainings, JSON lines")
    parser.add_argument("--space", type=Path, default=Path("search_spaces/demo.yaml"), help="the space of the tables")
    parser.add_argument("--table-seeds", type=int, default=10, help="sweeps on each table")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--check-peers", type=int, nargs="?", const=20, metavar="N", help="through Ray itself, N problems"
    )
    args = parser.parse_args()
    seeds = (TUNE if args.seeds == "tune" else FINAL)[: args.per_family]
    if args.check_peers:
        problems = [(f, s) for s in seeds for f in args.families][: args.check_peers]
        return check_peers([s for s in PEERS if s in args.strategies], problems)
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / f"{args.seeds}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    have = {(r["problem"], r["seed"], r["strategy"]): r for r in lines}
    wanted = [(f, s, None) for s in seeds for f in args.families]
    wanted += [(t.stem, s, str(t)) for t in args.table for s in range(args.table_seeds)]
    tasks = []
    for name, seed, file in wanted:
        race = have.get((name, seed, "race"))
        left = [s for s in dict.fromkeys(["race", *args.strategies]) if (name, seed, s) not in have]
        about = {"problem": name, "seed": seed, "table": file, "space": str(args.space)}
        tasks += [{**about, "strategies": left, "race": race}] if left else []
    started = time.perf_counter()
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool, path.open("a") as file:
        for done, future in enumerate(as_completed([pool.submit(solve, t) for t in tasks]), 1):
            fresh = [r for r in future.result() if (r["problem"], r["seed"], r["strategy"]) not in have]
            lines += fresh
            file.writelines(json.dumps(r) + "\n" for r in fresh)
            file.flush()
            if done % 10 == 0 or done == len(tasks):
                print(f"{done} of {len(tasks)}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    names = [("generated problems", set(args.families)), *((t.stem, {t.stem}) for t in args.table)]
    for title, problems in names:
        shown = [r for r in lines if r["problem"] in problems]
        if shown:
            count = len({(r["problem"], r["seed"]) for r in shown})
            print(f"\n{title}: {count} ({args.seeds})\n\n{table(shown)}")
    generated = [r for r in lines if r["problem"] in args.families]
    if generated:
        print(f"\n{by_family(generated)}")
        race = [r for r in generated if r["strategy"] == "race"]
        none = [r for r in race if r["problem"] == "none"]
        wins = sum(r["kind"] == "method" for r in none)
        print(f"\nrace on none: a method is declared better than joint training in {wins} of {len(none)}")
        seconds, trials = (np.mean([r[k] for r in race]) for k in ("seconds", "trials"))
        print(f"race: {seconds:.2f} s of processor time a sweep of {trials:.0f} trials and their confirmation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
