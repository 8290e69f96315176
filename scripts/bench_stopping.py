"""What stopping saves, and how fair it is to each method, on real trainings.

    mmsearch demo clips --clips 1000
    python scripts/bench_stopping.py clips/dataset.yaml --out runs/stopping --repetitions 5 --trials 36

A repetition is the search of a sweep under a seed of its own: the real study, sampler, allocation and stopping rule.
Every document that it asks is trained to its end, whatever the rule says; the search is shown what it would have seen.
So the same trials are known with stopping and in full. A training is a line of `OUT/table-SEED.jsonl` (`document`,
`params`, accuracy on `val` and `select` after every epoch, `cost` in joint epochs an epoch, `seconds`), which
`bench_search.py --table` reads too; a second call goes on where the first one stopped.

share: joint epochs after which the search with stopping has a finished trial whose accuracy on select is within one
standard error (binomial, of the clips of select) of that of the trial that training all of them in full would choose,
over the joint epochs of training all of them in full. Of several finished trials the best on val is taken. The mean
over repetitions has a 95 % interval (Student t). It is told for all trials, and for those of methods that may be
judged by a tenth of training. In the row `arithmetic` nothing is timed: every method's trials halved at once at each
rung, the best third of them going on.

best so far: accuracy on select of the finished trial that is best on val, after shares of the cost of training all in
full, with stopping and where every trial is trained to its end before the next begins.

τ: Kendall's rank correlation of the score at a rung and at the end, over all trials of a method, whether they would
have been stopped or not; trials of all repetitions together, with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from mmsearch.errors import MMSearchError
from mmsearch.search.allocation import ALLOCATIONS
from mmsearch.search.fairness import rank_agreement
from mmsearch.search.journal import Journal
from mmsearch.search.simulate import Curve, drive
from mmsearch.search.sources import Chain, SearchSource, TeacherSource
from mmsearch.search.space import Space
from mmsearch.search.stopping import Halving
from mmsearch.search.study import Study
from mmsearch.training import trial_id

JUDGED_EARLY = 0.1
"""The share of training by which a method may be judged, to count as one of those judged early."""

ALL, EARLY = "all", "judged early"

SPACE = """epochs: {epochs}
batch_size: {batch_size}
encoders:
  frames: {{name: frames, size: 48}}
methods:
  joint:
  uniform:
  ogm: {{ge: true, tensors: matrices}}
  opm:
  mla:
  inforeg: {{window_rule: fisher}}
fusions:
  concat:
optimizers:
  sgd: {{lr: {{low: 0.01, high: 0.3, log: true}}, weight_decay: 0.0001}}
"""
"""Methods judged early and one judged late, on networks small enough for minutes on two cores."""

Line = dict[str, Any]
"""One training, as in the table."""


class Trainings:
    """Documents trained for real, each once; a world for `simulate.drive`.

    Args:
        data: a `data.json`.
        table: the file of the trainings done so far.
        models: folder of the teachers' models.
        say: called with a line after every training.
    """

    def __init__(self, data: Path, table: Path, models: Path, say: Any) -> None:
        self._data, self._table, self._models, self._say = data, table, models, say
        self.lines: dict[str, Line] = {trial_id(line["document"]): line for line in read(table)}

    def curve(self, document: Mapping[str, Any], params: Mapping[str, Any]) -> Curve:
        """The learning curve of a document, trained now where it is not known."""
        identity = trial_id(dict(document))
        if identity not in self.lines:
            line = self._train(dict(document), dict(params), identity)
            with self._table.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self.lines[identity] = line
            name = document["method"]["name"]
            self._say(f"{identity} {name}: {100 * line['val'][-1]:.1f} on val, {line['seconds']:.0f} s")
        line = self.lines[identity]
        at_once = len(line["val"]) < document["epochs"]
        return Curve(scores=list(line["val"]), cost=line["cost"], select=line["select"][-1], at_once=at_once)

    def truth(self, document: Mapping[str, Any]) -> float:
        """Accuracy on select after the last epoch."""
        return self.lines[trial_id(dict(document))]["select"][-1]

    def peaks(self) -> dict[str, float]:
        """By method the highest of these."""
        found: dict[str, float] = {}
        for line in self.lines.values():
            name = line["document"]["method"]["name"]
            found[name] = max(line["select"][-1], found.get(name, 0.0))
        return found

    def _train(self, document: dict[str, Any], params: dict[str, Any], identity: str) -> Line:
        from mmsearch.search.job import clips
        from mmsearch.training import train

        began = time.perf_counter()
        teachers = {u: self._models / t for u, t in document["teachers"].items()}
        run = train(document, clips(str(self._data)), teachers=teachers, device="cpu")
        val, select, spent = [], [], 0.0
        for result in run:
            if not result.rehearsal:
                val.append(float(result.score))
                select.append(float(run.evaluate("select").accuracy))
            spent = float(result.cost_joint_epochs)
        if document["method"]["name"] == "unimodal":
            run.save_weights(self._models / identity)
        seconds = time.perf_counter() - began
        cost = spent / len(val)
        return {
            "document": document,
            "params": params,
            "val": val,
            "select": select,
            "cost": cost,
            "seconds": round(seconds, 2),
        }


def read(table: Path) -> list[Line]:
    """The trainings of a table; a last line that a kill has torn is left out."""
    lines = []
    for text in table.read_text().splitlines() if table.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial of a repetition.

    Attributes:
        method: its name.
        ended: joint epochs of all these trials together when it ended under stopping; None: it was stopped.
        spent: its joint epochs under stopping.
        full: its joint epochs in full.
        val, select: after every epoch, in full.
    """

    method: str
    ended: float | None
    spent: float
    full: float
    val: list[float]
    select: list[float]


def repeat(seed: int, args: argparse.Namespace) -> dict[str, list[Trial]]:
    """The search of one sweep: all of its trials, and those of methods judged early as if there were no others."""
    import torch

    from mmsearch.search.job import clips

    torch.set_num_threads(1)
    out, data = args.out, clips(str(args.out / "data.json"))
    space = Space.load(out / "space.yaml", data.modalities, data=data.digest, seed=seed)
    study = Study(space, Journal(None))
    table = out / f"table-{seed}.jsonl"
    world = Trainings(
        out / "data.json", table, out / "models", lambda line: print(f"seed {seed}: {line}", file=sys.stderr)
    )
    allocation = ALLOCATIONS[args.allocation]()
    search = SearchSource(study, trials=args.trials, allocation=allocation)
    drive(study, Chain({"teachers": TeacherSource(study), "search": search}), world, slots=2)
    return {ALL: account(study, world.lines, set(space.methods)), EARLY: account(study, world.lines, early(space))}


def early(space: Space) -> set[str]:
    """The methods that may be judged early."""
    return {m for m in space.methods if space.earliest(m) <= JUDGED_EARLY}


def account(study: Study, lines: Mapping[str, Line], methods: Collection[str]) -> list[Trial]:
    """What the journal of a search says of the trials of some methods, beside their full trainings."""
    spent, so_far, ended = 0.0, {}, {}
    records = {i: r for i, r in study.records.items() if r.method in methods}
    for event in study.journal.events:
        if event.get("trial_id") not in records:
            continue
        if event["event"] == "epoch":
            spent += event["cost_joint_epochs"] - so_far.get(event["trial_id"], 0.0)
            so_far[event["trial_id"]] = event["cost_joint_epochs"]
        elif event["event"] == "told" and event["state"] == "complete":
            ended[event["trial_id"]] = spent
    return [
        Trial(
            record.method,
            ended.get(identity),
            record.cost_joint_epochs,
            lines[identity]["cost"] * len(lines[identity]["val"]),
            lines[identity]["val"],
            lines[identity]["select"],
        )
        for identity, record in records.items()
    ]


@dataclasses.dataclass(frozen=True)
class Saving:
    """What stopping saved in a repetition, over some methods' trials.

    Attributes:
        share: of the cost of full training at which stopping had found as good a trial; infinite: never.
        whole: of the cost of full training that stopping took in all.
        full, stopped: accuracy on select of the trial that each chooses.
    """

    share: float
    whole: float
    full: float
    stopped: float


def saving(trials: Sequence[Trial], clips: int) -> Saving:
    """What stopping saved.

    Args:
        trials: of a repetition.
        clips: of select.
    """
    cost = sum(t.full for t in trials)
    chosen = max(trials, key=lambda t: t.val[-1]).select[-1]
    enough = chosen - math.sqrt(chosen * (1 - chosen) / clips)
    share, best = math.inf, None
    for trial in sorted((t for t in trials if t.ended is not None), key=lambda t: t.ended or 0.0):
        if best is None or trial.val[-1] > best.val[-1]:
            best = trial
        if best.select[-1] >= enough and share == math.inf:
            share = (trial.ended or 0.0) / cost
    return Saving(share, sum(t.spent for t in trials) / cost, chosen, best.select[-1] if best else math.nan)


def arithmetic(trials: Sequence[Trial], earliest: Mapping[str, float]) -> float:
    """The share that halving every method's trials at once would cost."""
    halving, spent = Halving(), 0.0
    for method in {t.method for t in trials}:
        own = [t for t in trials if t.method == method]
        left = sorted(own, key=lambda t: -t.val[-1])
        epochs = len(max(own, key=lambda t: len(t.val)).val)
        before = 0
        for epoch in [*halving.rungs(epochs, earliest[method]).values(), epochs]:
            spent += sum(t.full / len(t.val) * (epoch - before) for t in left if len(t.val) > 1)
            before = epoch
            left = left[: math.ceil(len(left) / halving.factor)]
    return spent / sum(t.full for t in trials)


def table(runs: Sequence[Mapping[str, Sequence[Trial]]], earliest: Mapping[str, float], clips: int) -> str:
    """Shares by repetition, their mean and interval, and the arithmetic bound."""
    kinds = (EARLY, ALL)
    rows = [f"| repetition | trials | {' | '.join(f'share, {k} | whole | select: full, stopped' for k in kinds)} |"]
    rows.append("|---" * (2 + 3 * len(kinds)) + "|")
    found = [{kind: saving(run[kind], clips) for kind in kinds} for run in runs]
    for i, (run, by) in enumerate(zip(runs, found, strict=True)):
        cells = [f"{s.share:.2f} | {s.whole:.2f} | {100 * s.full:.1f}, {100 * s.stopped:.1f}" for s in by.values()]
        rows.append(f"| {i} | {len(run[ALL])} | {' | '.join(cells)} |")
    means = [f"{interval([by[k].share for by in found])} | {interval([by[k].whole for by in found])} |" for k in kinds]
    rows.append(f"| mean (95 %) | | {' | '.join(means)} |")
    bounds = [f"| {np.mean([arithmetic(run[k], earliest) for run in runs]):.2f} |" for k in kinds]
    rows.append(f"| arithmetic | | {' '.join(bounds)} |")
    return "\n".join(rows)


SHARES = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
"""Of the cost of training all trials in full, at which the best so far is shown."""


def best_so_far(trials: Sequence[Trial], *, stopping: bool) -> list[float]:
    """Accuracy on select of the finished trial that is best on val, after each of SHARES of the cost; NaN before one.

    Args:
        trials: of a repetition, in the order in which they were asked.
        stopping: as the search with stopping ended them; else each trained to its end before the next begins.
    """
    cost = sum(t.full for t in trials)
    if stopping:
        ends = [(t.ended, t) for t in trials if t.ended is not None]
    else:
        ends = list(zip(itertools.accumulate(t.full for t in trials), trials, strict=True))
    found = []
    for share in SHARES:
        done = [t for end, t in ends if end <= share * cost + 1e-9]
        found.append(max(done, key=lambda t: t.val[-1]).select[-1] if done else math.nan)
    return found


def anytime(runs: Sequence[Mapping[str, Sequence[Trial]]]) -> str:
    """The best so far against cost, with stopping and in full: means over repetitions."""
    rows = [f"| best so far on select, after | {' | '.join(f'{s:.0%} of the cost' for s in SHARES)} |"]
    rows.append("|---" * (1 + len(SHARES)) + "|")
    for name, stopping in (("with stopping", True), ("in full", False)):
        mean = np.mean([best_so_far(run[ALL], stopping=stopping) for run in runs], axis=0)
        rows.append(f"| {name} | {' | '.join('–' if math.isnan(m) else f'{100 * m:.1f}' for m in mean)} |")
    return "\n".join(rows)


def interval(values: Sequence[float]) -> str:
    """A mean with its 95 % interval (Student t)."""
    if not np.isfinite(values).all():
        return f"not reached in {sum(not math.isfinite(v) for v in values)} of {len(values)}"
    if len(values) < 2:
        return f"{np.mean(values):.2f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):.2f} ({np.mean(values) - half:.2f} to {np.mean(values) + half:.2f})"


def fairness(runs: Sequence[Mapping[str, Sequence[Trial]]], earliest: Mapping[str, float]) -> str:
    """How well rung order predicts final order, by method."""
    curves: dict[str, list[list[float]]] = {}
    for trial in (t for run in runs for t in run[ALL]):
        if len(trial.val) > 1:
            curves.setdefault(trial.method, []).append(trial.val)
    rows = ["| method | judged from | epoch of the rung | τ with the end (95 %) | trials |", "|---|---|---|---|---|"]
    for method, rungs in rank_agreement(curves, earliest=earliest).items():
        for epoch, found in rungs.items():
            tau = "–" if found.tau is None else f"{found.tau:.2f} ({found.low:.2f} to {found.high:.2f})"
            rows.append(f"| {method} | {earliest[method]:.2f} | {epoch} | {tau} | {found.n} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    from mmsearch.data import Dataset, clip_data, default_store, prepare

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a dataset YAML")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings, gone on with if it is there")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--trials", type=int, default=36)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--allocation", choices=list(ALLOCATIONS), default="race")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args(arguments)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        dataset = Dataset.load(args.dataset)
        data = clip_data(dataset, default_store(), prepare(dataset, default_store()))
        data.save(args.out / "data.json")
        text = SPACE.format(epochs=args.epochs, batch_size=args.batch_size)
        (args.out / "space.yaml").write_text(text)
        space = Space.load(args.out / "space.yaml", data.modalities, data=data.digest)
        runs: dict[int, dict[str, list[Trial]]] = {}
        with ProcessPoolExecutor(args.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(repeat, seed, args): seed for seed in range(args.repetitions)}
            for future in as_completed(futures):
                runs[futures[future]] = future.result()
    except MMSearchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    earliest = {m: space.earliest(m) for m in space.methods}
    ordered = [runs[seed] for seed in sorted(runs)]
    clips = len(data.part("select", 0))
    print(f"{dataset.name}: {len(data)} clips, {clips} of select; {space.settings['epochs']} epochs\n")
    print(table(ordered, earliest, clips) + "\n")
    print(anytime(ordered) + "\n")
    print(fairness(ordered, earliest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
