"""Kills a sweep again and again, and looks at what is left of it.

    python scripts/bench_chaos.py
    python scripts/bench_chaos.py --problems generated --slots 2 --kills 5 --seeds 3

A cluster of this machine alone: a head without processors and a node of one processor for every slot. While a sweep
runs on it, its driver (kill -9, then it is resumed), a worker (kill -9) or a node (its raylet killed, then another
node joins) goes at moments drawn from a seed over the whole sweep. At the end:

1. every trial asked is told exactly once;
2. a study built from the journal, its Optuna view and the journal's records agree;
3. no checkpoint that the journal names was missing whenever the driver was dead, and no model is missing at the end;
4. replaying the journal gives the recommendation that was written, bit for bit;
5. on the generated problem, where one method is better by far, that method is the verdict;
6. with one slot, the documents in their order and the recommendation are those of the run without kills.

generated: trainings are stand-ins with known curves; the run without kills is made in one process, without Ray.
trained: the command line on small vectors, with real trainings.
Exit status 1 where anything of this does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

logging.getLogger("ray").setLevel(logging.ERROR)
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

ROOT = Path(__file__).parents[1]
WINNER = "ogm"
SPACE = """\
epochs: 6
batch_size: 16
methods:
  joint:
  {winner}:
  unimodal_teacher: {{teacher: [ume, umt]}}
fusions:
  concat:
optimizers:
  sgd:
"""
TRIALS, SEEDS = 9, 3
"""Trials of the search for each that runs at a time, so that what is not killed does not end the sweep too early."""
NAP = {1: 0.3, 2: 1.0}
"""Seconds of a stand-in's epoch by trials at a time: what goes on elsewhere must not end while a node is missed."""
PATIENCE = 600.0
"""Seconds without a moment that was waited for, after which the bench gives up."""


def quality(document: Mapping[str, Any]) -> float:
    """The final accuracy on the generated problem: the winner's is 0.15 above anyone's."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
    return (0.8 if document["method"]["name"] == WINNER else 0.65) + 0.02 * digest[0] / 255


class StandIn:
    """A training whose curve is a function of its document; an epoch takes as long as `nap.json` says."""

    on_step = staticmethod(lambda: None)

    def __init__(
        self,
        document: Mapping[str, Any],
        data: Path,
        teachers: Mapping[str, Path],
        device: str,
        micro_batch: int | None,
    ) -> None:
        self.document = dict(document)
        self.epochs = self.document["epochs"]
        self.epoch = 0
        self._nap = json.loads(data.with_name("nap.json").read_text()) if device != "none" else 0.0

    @property
    def ticks(self) -> int:
        return self.epoch

    def __next__(self) -> Any:
        from mmsearch.training import EpochResult

        trains = self.document["method"].get("teacher") != "ume"
        time.sleep(self._nap)
        self.epoch = self.epoch + 1 if trains else self.epochs
        score = quality(self.document) * (1 - math.exp(-3 * self.epoch / self.epochs))
        return EpochResult(
            self.epoch, self.epochs, self.epoch == self.epochs, "train", False, score, {"val/accuracy": score},
            float(self.epoch), 0.0,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "state.json").write_text(json.dumps(self.epoch))

    def restore(self, path: Path) -> None:
        self.epoch = json.loads((path / "state.json").read_text())

    def save_weights(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "weights.json").write_text("{}")

    def evaluate(self, part: str) -> Any:
        from mmsearch.training import Evaluation

        label = np.arange(400) % 2
        right = np.arange(400) < round(400 * quality(self.document))
        p = np.full((400, 2), 0.3)
        p[np.arange(400), np.where(right, label, 1 - label)] = 0.7
        return Evaluation(float(right.mean()), float(right.mean()), {}, 0.5, p, label, np.arange(400), None, None)


def generated_data() -> Any:
    """What the recommendation must know of the clips of the generated problem."""
    from mmsearch.batch import Modality
    from mmsearch.data.clips import ClipData

    rng = np.random.default_rng(0)
    modalities = {u: Modality(u, "vector", (n,)) for u, n in (("sound", 4), ("frames", 3))}
    inputs = {u: rng.normal(size=(2000, *m.shape)).astype("float32") for u, m in modalities.items()}
    return ClipData.from_arrays(inputs, np.arange(2000) % 2, modalities=modalities)


def space_of(run: Path) -> Any:
    """The search space of a run."""
    from mmsearch.arguments import recorded, space_in
    from mmsearch.data.clips import ClipData
    from mmsearch.search.space import Space
    from mmsearch.sweep import space_of as narrowed

    if (run / "sweep.json").exists():
        data = ClipData.open(run / "data.json")
        return narrowed(space_in(run), data.modalities, data.digest, recorded(run))
    data = generated_data()
    return Space.load(run / "space.yaml", data.modalities, data=data.digest)


def source_of(study: Any, slots: int) -> Any:
    """What the generated sweep asks."""
    from mmsearch.search.finalists import finalists
    from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource

    return Chain(
        {
            "teachers": TeacherSource(study),
            "search": SearchSource(study, trials=TRIALS * slots),
            "confirm": ConfirmSource(study, finalists, seeds=SEEDS),
        }
    )


def concluded(run: Path, study: Any) -> None:
    """Decides a finished generated sweep."""
    from mmsearch.recommend.conclude import conclude

    def read_test(trial_ids: list[str]) -> dict[str, dict[str, Any]]:
        figure = {i: quality(study.records[i].document) for i in trial_ids}
        return {i: {"accuracy": q, "macro_f1": q, "unimodal": {}} for i, q in figure.items()}

    conclude(run, study.journal, generated_data(), {}, read_test)


def child(run: Path, address: str, slots: int) -> None:
    """One session of the generated sweep."""
    from mmsearch.search import cluster, runner
    from mmsearch.search.journal import Journal
    from mmsearch.search.machines import Cluster
    from mmsearch.search.study import Study
    from mmsearch.search.trial import Trial

    class StandInTrial(Trial):
        open_run = StandIn

    with cluster.quiet(run / "logs" / "ray.log"), Journal(run) as journal:
        study = Study(space_of(run), journal)
        machines = Cluster(address, concurrent=slots)
        resources = cluster.connect(machines, cpus_per_trial=1, gpus_per_trial=0)
        source = source_of(study, slots)
        runner.run(source, study, run, resources, checkpoint_seconds=0.0, trial_class=StandInTrial)
        concluded(run, study)
        cluster.disconnect()


def undisturbed(run: Path, slots: int) -> None:
    """The generated sweep one trial at a time, in this process, without Ray and without kills."""
    from mmsearch.search.job import figures_of
    from mmsearch.search.journal import Journal
    from mmsearch.search.sources import FINISHED
    from mmsearch.search.study import Study

    with Journal(run) as journal:
        study = Study(space_of(run), journal)
        source = source_of(study, slots)
        while (ask := source.next()) is not FINISHED:
            study.issue(ask)
            study.started(ask.trial_id, 0)
            training = StandIn(ask.document, run, {}, "none", None)
            record = study.records[ask.trial_id]
            while not record.finished:
                result = next(training)
                fields = ("epoch", "epochs", "score", "metrics", "cost_joint_epochs", "seconds")
                if not study.report(ask.trial_id, {k: getattr(result, k) for k in fields}) and result.final:
                    select = figures_of(training.evaluate("select")) if ask.stage == "confirm" else None
                    study.tell(ask.trial_id, "complete", select=select)
            source.told(record)
        concluded(run, study)


class Machines:
    """A cluster of nodes on this machine, of which any but the head may be killed."""

    def __init__(self, slots: int) -> None:
        from ray._common.utils import get_default_ray_temp_dir
        from ray.cluster_utils import Cluster

        self._slots = slots
        # Ray notes a cluster's address in its usual folder, which a machine that never ran Ray has not.
        Path(get_default_ray_temp_dir()).mkdir(exist_ok=True)
        self._folder = tempfile.mkdtemp(prefix="chaos", dir="/tmp")
        self._cluster = Cluster()
        self._cluster.add_node(
            num_cpus=0, include_dashboard=False, temp_dir=self._folder, object_store_memory=100 * 2**20
        )
        for _ in range(slots):
            self._join()

    @property
    def address(self) -> str:
        """Of the head."""
        return self._cluster.address

    def _join(self) -> None:
        self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)

    def workers(self) -> list[int]:
        """The processes that train on these nodes."""
        raylets = {n.all_processes["raylet"][0].process.pid for n in self._cluster.worker_nodes}
        found = []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                if not process.name.isdigit():
                    continue
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                name = (process / "cmdline").read_bytes()
                if parent in raylets and name.startswith(b"ray::") and b"Trial" in name:
                    found.append(int(process.name))
        return sorted(found)

    def lose(self, rng: np.random.Generator) -> None:
        """A node goes without a word, and another joins.

        With one trial at a time it joins when the cluster has noticed: both at once would be room for two, and then the
        order of documents is another one.
        """
        nodes = sorted(self._cluster.worker_nodes, key=lambda n: n.node_id)
        self._cluster.remove_node(nodes[int(rng.integers(len(nodes)))], allow_graceful=False)
        if self._slots == 1:
            self._cluster.wait_for_nodes(60)
        self._join()

    def close(self) -> None:
        """Ends the nodes."""
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


class Sweep:
    """A sweep of one of the problems, in a process that can be killed and begun again."""

    def __init__(self, problem: str, folder: Path, machines: Machines | None, slots: int, nap: float) -> None:
        self.problem = problem
        self.run = folder / "run"
        if problem == "generated":
            self.run.mkdir()
            (self.run / "space.yaml").write_text(SPACE.format(winner=WINNER))
            (self.run / "nap.json").write_text(json.dumps(nap))
        self.folder = folder
        self._machines = machines
        self._slots = slots
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Starts or resumes."""
        assert self._machines is not None
        address = self._machines.address
        if self.problem == "generated":
            command = [__file__, "--child", str(self.run), "--address", address, "--slots", str(self._slots)]
        elif (self.run / "sweep.json").exists():
            command = ["-m", "mmsearch", "resume", str(self.run), "--address", address, "--plain"]
        else:
            shutil.rmtree(self.run, ignore_errors=True)
            command = [
                "-m", "mmsearch", "sweep", "--dataset", str(self.folder.parent / "clips/dataset.yaml"),
                "--space", str(self.folder.parent / "clips/space.yaml"), "--out", str(self.run),
                "--trials", str(TRIALS * self._slots), "--seeds", str(SEEDS), "--address", address, "--plain",
            ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MMSEARCH_CACHE": str(self.folder.parent / "cache")}
        with (self.folder / "output.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)

    def events(self) -> list[dict[str, Any]]:
        """The journal so far."""
        from mmsearch.search.journal import FILE, read_events

        return read_events(self.run) if (self.run / FILE).exists() else []

    def progress(self) -> int:
        """Epochs heard of and trials told: what a kill does not repeat."""
        return sum(e["event"] in ("epoch", "told") for e in self.events())

    def recovered(self) -> bool:
        """Whether every trial whose worker was lost has been heard of since: four losses at one point are its fault."""
        waiting: set[str] = set()
        for e in self.events():
            if e["event"] == "lost":
                waiting.add(e["trial_id"])
            elif e["event"] in ("epoch", "told"):
                waiting.discard(e["trial_id"])
        return not waiting

    def reach(self, moment: int, recovered: bool) -> bool:
        """Waits for so much progress and, where asked, a recovery; False where the sweep has ended before."""
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while self.progress() < moment or (recovered and not self.recovered()):
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                self.process.kill()
                raise SystemExit(f"{self.run}: no progress within {PATIENCE:g} s; see {self.folder / 'output.log'}")
            time.sleep(0.05)
        return self.process.poll() is None

    def end(self) -> None:
        """Waits for the end."""
        assert self.process is not None
        if self.process.wait(timeout=PATIENCE):
            raise SystemExit(
                f"exit status {self.process.returncode}: {(self.folder / 'output.log').read_text()[-2000:]}"
            )


def torment(
    sweep: Sweep, machines: Machines, moments: Sequence[int], rng: np.random.Generator, done: Counter[str]
) -> Iterator[str]:
    """Runs a sweep to its end with a kill at every moment; yields what was missing while the driver was dead.

    Args:
        sweep: not yet begun.
        machines: on which it runs.
        moments: progress at which something is killed; of the first three each is of another kind.
        rng: draws what is killed.
        done: counts it.
    """
    sweep.begin()
    for number, moment in enumerate(moments):
        what = ("driver", "worker", "node")[number % 3] if number < 3 else str(rng.choice(["driver", "worker", "node"]))
        if not sweep.reach(moment, recovered=what == "worker"):
            break
        time.sleep(float(rng.uniform(0, 0.3)))
        assert sweep.process is not None
        if what == "driver":
            sweep.process.send_signal(signal.SIGKILL)
            sweep.process.wait()
            yield from missing_checkpoints(sweep)
            sweep.begin()
        elif what == "node":
            machines.lose(rng)
        else:
            while not (pids := machines.workers()) and sweep.process.poll() is None:
                time.sleep(0.05)
            if not pids:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(rng.choice(pids)), signal.SIGKILL)
        done[what] += 1
    sweep.end()
    if done.total() < len(moments):
        yield f"the sweep ended after {done.total()} of {len(moments)} kills"


def missing_checkpoints(sweep: Sweep) -> Iterator[str]:
    """The unfinished trials that the journal says can go on from an epoch and that have nothing to go on from."""
    from mmsearch.search.trials import records

    events = sweep.events()
    named = {e["trial_id"] for e in events if e["event"] == "checkpointed"}
    for record in records(events).values():
        folder = sweep.run / "trials" / record.trial_id / "checkpoint"
        whole = [p for p in folder.iterdir() if p.name.isdigit() and any(p.iterdir())] if folder.is_dir() else []
        if record.trial_id in named and not record.finished and not whole:
            yield f"trial {record.trial_id}: its checkpoint is gone"


def faults(sweep: Sweep) -> Iterator[str]:
    """What does not hold of a finished sweep (points 1 to 5)."""
    from mmsearch.arguments import recorded_sweep
    from mmsearch.data.clips import ClipData
    from mmsearch.recommend import card
    from mmsearch.search.journal import Journal
    from mmsearch.search.study import Study
    from mmsearch.search.trials import records

    events = sweep.events()
    told = Counter(e["trial_id"] for e in events if e["event"] == "told")
    asked = Counter(e["trial_id"] for e in events if e["event"] == "asked")
    if any(n != 1 for n in (*asked.values(), *told.values())) or set(asked) != set(told):
        yield f"{len(asked)} asked, {len(told)} told, some not once"
    trials = records(events)
    journal = Journal(None)
    journal.events[:0] = events
    study = Study(space_of(sweep.run), journal)
    if study.records != trials:
        yield "the study's records are not the journal's"
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    for method in study.space.methods:
        view = {t.user_attrs["trial_id"]: (names.get(t.state.name), t.value) for t in study.view(method).trials}
        mine = {
            r.trial_id: (r.state, r.score if r.state != "failed" else None)
            for r in trials.values()
            if r.searched and r.method == method
        }
        if view != mine:
            yield f"the Optuna view of {method} is not the journal's"
    for record in trials.values():
        model = sweep.run / "trials" / record.trial_id / "weights"
        if record.state == "complete" and record.stage in ("teacher", "confirm") and not any(model.glob("*")):
            yield f"trial {record.trial_id} ({record.stage}): its model is gone"
        if record.state == "failed":
            yield f"trial {record.trial_id} failed: {record.reason}"
    written = json.loads((sweep.run / "recommendation.json").read_text())
    written.pop("diagnosis", None)  # from the models, not from the journal
    trained = sweep.problem == "trained"
    data = ClipData.open(sweep.run / "data.json") if trained else generated_data()
    again = card.build(events, data, recorded_sweep(sweep.run) if trained else {})
    if json.loads(json.dumps(again)) != written:
        yield "replaying the journal gives another recommendation"
    if not trained and again["decision"]["method"] != WINNER:
        yield f"the verdict is {again['decision']['headline']}"


def outcome(sweep: Sweep) -> tuple[list[Any], Any]:
    """The documents in their order, and the recommendation without times."""
    documents = [e["document"] for e in sweep.events() if e["event"] == "asked"]
    return documents, timeless(json.loads((sweep.run / "recommendation.json").read_text()))


def timeless(value: Any) -> Any:
    """Without what is measured by a clock."""
    if isinstance(value, dict):
        dropped = ("created", "sentences", "headline", "sweep")
        return {k: timeless(v) for k, v in value.items() if k not in dropped and "seconds" not in k}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def write_clips(folder: Path) -> None:
    """Small vectors in three classes, each of the two modalities with its own noise."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    label = np.arange(240) % 3
    rows = ["clip_id,label,sound,frames"]
    for i, y in enumerate(label):
        for u, noise in (("sound", 0.8), ("frames", 2.0)):
            np.save(folder / f"{u}{i}.npy", (np.eye(3)[y] + noise * rng.normal(size=3)).astype("float32"))
        rows.append(f"c{i},class{y},sound{i}.npy,frames{i}.npy")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    modalities = "".join(f"  {u}: {{kind: vector, column: {u}}}\n" for u in ("sound", "frames"))
    (folder / "dataset.yaml").write_text(f"name: vectors\nmanifest: manifest.csv\nmodalities:\n{modalities}")
    (folder / "space.yaml").write_text(SPACE.format(winner=WINNER))


def trial(
    problem: str, slots: int, kills: int, seed: int, home: Path, nap: float, reference: Sweep | None
) -> tuple[Sweep, list[str]]:
    """One sweep with kills, or with none where there is no reference yet; what does not hold of it."""
    from mmsearch.search.trials import records

    name = f"{problem}, {slots} at a time, seed {seed}" if reference else f"{problem}, {slots} at a time, no kills"
    print(name, flush=True)
    folder = home / name.replace(", ", "-").replace(" ", "-")
    folder.mkdir()
    rng = np.random.default_rng(seed)
    kills_done: Counter[str] = Counter()
    began = time.monotonic()
    if problem == "generated" and not reference:
        sweep = Sweep(problem, folder, None, slots, nap)
        undisturbed(sweep.run, slots)
        return sweep, []
    machines = Machines(slots)
    try:
        sweep = Sweep(problem, folder, machines, slots, nap)
        last = reference.progress() if reference else 0
        # Each after some progress: a worker that dies four times at one point is held to be the trial's own fault.
        moments = sorted(rng.choice(max(kills, int(0.9 * last)), kills, replace=False)) if reference else []
        wrong = list(torment(sweep, machines, [int(m) for m in moments], rng, kills_done))
    finally:
        machines.close()
    wrong += faults(sweep)
    if reference and slots == 1 and outcome(sweep) != outcome(reference):
        wrong.append("documents or recommendation are not those of the run without kills")
    trials = records(sweep.events())
    lost = Counter(kind for r in trials.values() for kind, _ in r.losses)
    if any(lost[kind] > kills_done[kind] for kind in lost if kind != "node"):
        wrong.append("a lost machine was held against a trial")
    sessions = sum(e["event"] == "opened" for e in sweep.events())
    print(
        f"  {time.monotonic() - began:.0f} s, {len(trials)} trials, {sessions} sessions, "
        f"killed: {dict(sorted(kills_done.items()))}, losses noted: {dict(sorted(lost.items()))}"
    )
    for line in wrong:
        print(f"  WRONG: {line}", flush=True)
    return sweep, wrong


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=("generated", "trained"), default=["generated", "trained"])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2], metavar="N", help="trials at a time")
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="of the moments, a run each")
    parser.add_argument("--nap", type=float, metavar="SECONDS", help="of a stand-in's epoch (default: NAP)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.child:
        child(args.child, args.address, args.slots[0])
        return 0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        write_clips(Path(home) / "clips")
        for problem in args.problems:
            for slots in args.slots:
                nap = args.nap or NAP[min(slots, 2)]
                reference, found = trial(problem, slots, 0, 0, Path(home), nap, None)
                wrong += found
                for seed in args.seeds:
                    wrong += trial(problem, slots, args.kills, seed, Path(home), nap, reference)[1]
    print(f"{len(wrong)} faults" if wrong else "everything holds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
