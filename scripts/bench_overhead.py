"""What the search costs beside the trainings: wall time and the driver's memory, with plain Ray Tune in the same run.

    python scripts/bench_overhead.py
    python scripts/bench_overhead.py --only noop many

The trainings are stand-ins that sleep; study, journal, source, sampler, runner and trial class are the real ones, on
the default search space with one epoch a trial. Plain Tune runs a class trainable with actors used again and random
search, and keeps nothing. Every row is a process of its own with a Ray of its own, two trials at a time.

sleep: 200 trials of one second. Wall time from the first trial's start to the last one's end, over half the sum.
noop: 1,000 trials of no time. Seconds a trial, and the growth of the driver's resident memory a trial, from the
hundredth on.
many: 4,000 trials of no time, ours alone: the growth of the driver's memory a trial before and after the 2,000th.

Exit status 1 where a bound is missed: 1.15 of the ideal; 0.15 s and 0.1 MB a trial; after the 2,000th 0.025 MB a trial,
room for its own record and for little else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PARTS = {"sleep": (200, 1.0), "noop": (1000, 0.0), "many": (4000, 0.0)}
"""Trials, and the seconds of each."""

SLOTS = 2
IDEAL, SECONDS, MEGABYTES, LATE_MEGABYTES = 1.15, 0.15, 0.1, 0.025
SETTLED, LATE = 100, 2000
"""Trials after which memory is watched, and after which it must not grow with trials."""


class Nap:
    """A training that sleeps for as long as `nap.json` beside the data says."""

    def __init__(
        self,
        document: Mapping[str, Any],
        data: Path,
        teachers: Mapping[str, Path],
        device: str,
        micro_batch: int | None = None,
    ) -> None:
        self.document = document
        self._seconds = json.loads(data.with_name("nap.json").read_text())
        self.epoch = self.ticks = 0

    def __next__(self) -> Any:
        from mmsearch.training import EpochResult, trial_id

        time.sleep(self._seconds)
        self.epoch = self.ticks = self.document["epochs"]
        score = int(trial_id(dict(self.document))[:4], 16) / 0xFFFF
        return EpochResult(self.epoch, self.epoch, True, "train", False, score, {"val/accuracy": score}, 1.0, 0.0)

    def save(self, path: Path) -> None:
        """Nothing is worth keeping."""

    restore = save_weights = save

    def evaluate(self, part: str) -> Any:
        """Never asked: no trial is confirmed."""
        raise NotImplementedError


def resident() -> float:
    """Megabytes of this process."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3


def ours(trials: int, seconds: float, folder: Path) -> dict[str, list[float]]:
    """The product: when each trial ended, and the driver's memory then."""
    from mmsearch.batch import Modality
    from mmsearch.search import cluster, runner
    from mmsearch.search.journal import Journal
    from mmsearch.search.sources import SearchSource
    from mmsearch.search.space import Space
    from mmsearch.search.study import Study
    from mmsearch.search.trial import Trial

    class NapTrial(Trial):
        open_run = Nap

    run = folder / "run"
    run.mkdir()
    (run / "nap.json").write_text(json.dumps(seconds))
    (folder / "space.yaml").write_text("epochs: 1\nmethods:\n  joint:\n  ogm:\n  mla:\n  uniform:\n  opm:\n")
    modalities = {"sound": Modality("sound", "vector", (4,)), "frames": Modality("frames", "vector", (3,))}
    space = Space.load(folder / "space.yaml", modalities, data="nap")
    space.methods.pop("unimodal_teacher")
    ended: list[float] = []
    held: list[float] = []
    began: list[float] = []

    def note(event: Mapping[str, Any]) -> None:
        if event["event"] == "started" and not began:
            began.append(time.time())
        if event["event"] == "told":
            ended.append(time.time())
            held.append(resident())

    with cluster.quiet(folder / "ray.log"), Journal(run) as journal:
        study = Study(space, journal)
        journal.subscribe(note)
        resources = cluster.connect(cpus_per_trial=0.5, gpus_per_trial=0)
        resources.concurrent = SLOTS
        try:
            runner.run(SearchSource(study, trials=trials), study, run, resources, trial_class=NapTrial)
        finally:
            cluster.disconnect()
    return {"ended": [t - began[0] for t in ended], "held": held}


def plain(trials: int, seconds: float, folder: Path) -> dict[str, list[float]]:
    """Ray Tune alone."""
    from ray import tune

    from mmsearch.search import cluster

    class Napper(tune.Trainable):
        def step(self) -> dict[str, Any]:
            time.sleep(seconds)
            return {"score": self.config["x"], "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing is worth keeping."""

    ended: list[float] = []
    held: list[float] = []
    began: list[float] = []

    class Watch(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            if not began:
                began.append(time.time())

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            ended.append(time.time())
            held.append(resident())

    with cluster.quiet(folder / "ray.log"):
        cluster.connect(cpus_per_trial=0.5, gpus_per_trial=0)
        try:
            tune.Tuner(
                tune.with_resources(Napper, {"cpu": 0.5}),
                param_space={"x": tune.uniform(0, 1)},
                tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=SLOTS, reuse_actors=True),
                run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0, callbacks=[Watch()]),
            ).fit()
        finally:
            cluster.disconnect()
    return {"ended": [t - began[0] for t in ended], "held": held}


ROUTES = {"mmsearch": ours, "plain Tune": plain}


def slope(held: list[float], start: int, end: int) -> float:
    """Megabytes a trial between two trials, by least squares."""
    part = held[start:end]
    return float(np.polyfit(np.arange(len(part)), part, 1)[0])


def call(route: str, trials: int, seconds: float) -> dict[str, list[float]]:
    """A route in a process of its own."""
    command = [sys.executable, __file__, "--route", route, "--trials", str(trials), "--seconds", str(seconds)]
    print(f"{route}: {trials} trials of {seconds:g} s", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(part: str, scale: float) -> list[str]:
    """Prints the table of a part; returns what missed its bound."""
    trials, seconds = PARTS[part]
    trials = max(SETTLED + 10, round(trials * scale))
    missed = []
    routes = ["mmsearch"] if part == "many" else list(ROUTES)
    head = {
        "sleep": ["wall over the ideal"],
        "noop": ["s a trial", "MB a trial"],
        "many": ["s a trial", f"MB a trial up to the {LATE}th", "after it", "MB at the end"],
    }[part]
    print(f"| {part} | trials | {' | '.join(head)} |\n|---|---|{'---|' * len(head)}")
    for route in routes:
        found = call(route, trials, seconds)
        ended, held = found["ended"], found["held"]
        if part == "sleep":
            figures = [(ended[-1] / (trials * seconds / SLOTS), IDEAL)]
        else:
            figures = [(ended[-1] / trials, SECONDS), (slope(held, SETTLED, min(LATE, trials)), MEGABYTES)]
        if part == "many":
            figures[0] = figures[0][0], float("inf")
            figures += [(slope(held, LATE, trials), LATE_MEGABYTES), (held[-1], float("inf"))]
        print(f"| {route} | {trials} | {' | '.join(f'{value:.3f}' for value, _ in figures)} |", flush=True)
        for name, (value, bound) in zip(head, figures, strict=True):
            if route == "mmsearch" and value > bound:
                missed.append(f"{part}: {name} {value:.3f}, at most {bound:g}")
    print()
    return missed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of trials, to try the bench")
    parser.add_argument("--route", choices=list(ROUTES), help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.route:
        with tempfile.TemporaryDirectory() as folder:
            found = ROUTES[args.route](args.trials, args.seconds, Path(folder))
        print(json.dumps(found))
        return 0
    missed = [line for part in args.only for line in report(part, args.scale)]
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
