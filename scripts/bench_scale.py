"""What another machine brings: sweeps on clusters of one to four nodes, and the search's own cost as trials grow many.

    python scripts/bench_scale.py
    python scripts/bench_scale.py --only wait

The nodes are Ray nodes on this host; the head takes no trial. Study, journal, source, runner and trial class are the
real ones. Every row is a process of its own with a cluster of its own.

wait: trials that sleep two seconds, two at a time and 30 in all for every node. Efficiency: the wall time on one node
over that on N, since N nodes have N times the trials; it is scheduling alone, since waiting takes no core.
work: 16 real trainings of some seconds, none stopped, one core a node, on one node and on two. Efficiency: the wall
time on one node over twice that on two. It needs two idle cores.
many: 5,000 trials of no time. Seconds a trial around the hundredth, and around the last.
fetch: a sweep of real trainings on two nodes with caches of their own and a store in a bucket (moto's server, of the
extra `test`). What every machine has fetched, as a share of the store.

Wall time runs from the end of the first trials, when every worker is up, to the last trial's end. Exit status 1 where a
bound is missed: efficiency 0.9 where trials wait and 0.85 where they work; a trial among many at most 1.5 times as dear
as at the hundredth; no machine fetches more than the store once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from bench_overhead import Nap

WAITING, WORKING, DEARER = 0.9, 0.85, 1.5
NODES = {"wait": (1, 2, 4), "work": (1, 2), "many": (1,)}
SLOTS = {"wait": 2, "work": 1, "many": 2}
TRIALS = {"wait": 30, "work": 16, "many": 5000}
PARTS = [*NODES, "fetch"]
SECONDS = {"wait": 2.0, "many": 0.0}
NEAR = 100
"""Trials over which a rate is taken."""

SPACE = """\
epochs: {epochs}
batch_size: 32
methods:
  joint:
  ogm:
  uniform:
  opm:
"""
CLIPS, EPOCHS = 1600, 24


def clips() -> Any:
    """Generated feature vectors, the same on every node."""
    from mmsearch.batch import Modality
    from mmsearch.data.clips import ClipData

    rng = np.random.default_rng(0)
    label = np.arange(CLIPS) % 10
    inputs = {}
    for name, size in (("sound", 512), ("frames", 1024)):
        means = rng.normal(size=(10, size)) / 8
        inputs[name] = (means[label] + rng.normal(size=(CLIPS, size))).astype("float32")
    return ClipData.from_arrays(
        inputs, label, modalities={u: Modality(u, "vector", x.shape[1:]) for u, x in inputs.items()}
    )


def work(document: Mapping[str, Any], path: Path, teachers: Mapping[str, Path], device: str, micro: int | None) -> Any:
    """A real training on the generated vectors."""
    from mmsearch.training import train

    return train(dict(document), clips(), teachers=teachers, device=device, micro_batch=micro)


def sweep(part: str, nodes: int, trials: int, folder: Path) -> list[float]:
    """When each trial ended, on a cluster of so many nodes."""
    from ray.cluster_utils import Cluster as Nodes

    from mmsearch.search import cluster, runner
    from mmsearch.search.journal import Journal
    from mmsearch.search.machines import Cluster
    from mmsearch.search.sources import SearchSource
    from mmsearch.search.space import Space
    from mmsearch.search.stopping import Halving
    from mmsearch.search.study import Study
    from mmsearch.search.trial import Trial

    class ScaleTrial(Trial):
        open_run = staticmethod(work) if part == "work" else Nap

    run = folder / "run"
    run.mkdir()
    (run / "nap.json").write_text(json.dumps(SECONDS.get(part, 0.0)))
    (folder / "space.yaml").write_text(SPACE.format(epochs=EPOCHS if part == "work" else 1))
    data = clips()
    space = Space.load(folder / "space.yaml", data.modalities, data=data.digest)
    for method in ("unimodal_teacher", "unimodal"):
        space.methods.pop(method)
    ended: list[float] = []

    def note(event: Mapping[str, Any]) -> None:
        if event["event"] == "told":
            ended.append(time.time())

    with cluster.quiet(folder / "ray.log"), Journal(run) as journal:
        machines = Nodes()
        machines.add_node(num_cpus=0, include_dashboard=False, object_store_memory=100 * 2**20)
        for _ in range(nodes):
            machines.add_node(num_cpus=SLOTS[part], object_store_memory=100 * 2**20)
        machines.wait_for_nodes(60)
        study = Study(space, journal, Halving(shares=()), sampler="random")
        journal.subscribe(note)
        resources = cluster.connect(Cluster(machines.address), cpus_per_trial=1, gpus_per_trial=0)
        try:
            runner.run(SearchSource(study, trials=trials), study, run, resources, trial_class=ScaleTrial)
        finally:
            cluster.disconnect()
            machines.shutdown()
    return ended


def wall(ended: list[float], at_once: int) -> tuple[float, int]:
    """Seconds from the end of the first trials to that of the last, and the trials in between."""
    return ended[-1] - ended[at_once - 1], len(ended) - at_once


def call(part: str, nodes: int, trials: int) -> list[float]:
    """A sweep in a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--nodes", str(nodes), "--trials", str(trials)]
    print(f"{part}: {trials} trials on {nodes} node{'s' * (nodes > 1)}", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def scaled(part: str, scale: float) -> list[str]:
    """Prints the efficiency by nodes; returns what missed its bound."""
    bound = WAITING if part == "wait" else WORKING
    print(f"| {part} | trials | s | trials a second and node | efficiency |\n|---|---|---|---|---|")
    missed: list[str] = []
    alone = None
    for nodes in NODES[part]:
        trials = max(4, round(TRIALS[part] * scale)) * (nodes if part == "wait" else 1)
        seconds, counted = wall(call(part, nodes, trials), nodes * SLOTS[part])
        rate = counted / seconds / nodes
        alone = alone or rate
        print(f"| {nodes} | {trials} | {seconds:.1f} | {rate:.3f} | {rate / alone:.2f} |", flush=True)
        if rate / alone < bound:
            missed.append(f"{part}: efficiency {rate / alone:.2f} on {nodes} nodes, at least {bound}")
    print()
    return missed


def many(scale: float) -> list[str]:
    """Prints what a trial costs early and late; returns what missed its bound."""
    trials = max(4 * NEAR, round(TRIALS["many"] * scale))
    ended = call("many", 1, trials)
    early = (ended[NEAR + NEAR // 2] - ended[NEAR // 2]) / NEAR
    late = (ended[-1] - ended[-1 - NEAR]) / NEAR
    print("| many | s a trial around the 100th | around the last | ratio |\n|---|---|---|---|")
    print(f"| {trials} | {early:.3f} | {late:.3f} | {late / early:.2f} |\n", flush=True)
    return [f"many: {late / early:.2f} times as dear, at most {DEARER}"] if late / early > DEARER else []


STORED, TRAINED = 400, 12
"""Clips, and trials of the search."""

ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[str]:
    """The address of a prefix in an empty bucket."""
    from pyarrow import fs

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "moto.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    try:
        while True:
            if server.poll() is not None:
                raise SystemExit("error: no S3 to measure with; pip install 'mmsearch[test]'")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        there = {"endpoint_override": f"http://127.0.0.1:{port}", "region": "us-east-1"}
        fs.S3FileSystem(**there, allow_bucket_creation=True).create_dir("bucket")
        yield "s3://bucket/store?" + "&".join(f"{key}={value}" for key, value in there.items())
    finally:
        server.kill()
        server.wait()


def mmsearch(machine: Path, *arguments: str) -> None:
    """A command on a machine with a cache of its own, of which its log lies beside the cache."""
    command = [sys.executable, "-m", "mmsearch", *arguments]
    path = machine.with_suffix(".log")
    with path.open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"MMSEARCH_CACHE": str(machine)})
    if done.returncode:
        raise SystemExit(path.read_text())


def fetch(scale: float) -> list[str]:
    """Prints what every machine fetches of a store; returns what missed its bound."""
    from ray.cluster_utils import Cluster as Nodes

    from mmsearch.data.demo import DemoConfig, write_demo
    from mmsearch.data.places import Place

    print(f"fetch: {TRAINED} trials on 2 nodes", file=sys.stderr, flush=True)
    os.environ.update(ACCOUNT)
    config = DemoConfig.of("sound_dominates", n_clips=max(120, round(STORED * scale)))
    with tempfile.TemporaryDirectory() as scratch, bucket(Path(scratch)) as address:
        folder = Path(scratch)
        dataset, space = str(folder / "clips/dataset.yaml"), str(folder / "space.yaml")
        write_demo(folder / "clips", config, workers=1)
        Path(space).write_text(SPACE.format(epochs=2))
        mmsearch(folder / "decoder", "prepare", dataset, "--out", address)
        machines = Nodes()
        machines.add_node(num_cpus=0, include_dashboard=False, object_store_memory=100 * 2**20)
        for name in ("node1", "node2"):
            cache = {"MMSEARCH_CACHE": str(folder / name)}
            machines.add_node(num_cpus=1, object_store_memory=100 * 2**20, env_vars=cache)
        try:
            mmsearch(
                folder / "driver", "sweep", "--dataset", dataset, "--space", space, "--store", address, "--out",
                str(folder / "run"), "--address", machines.address, "--trials", str(TRAINED), "--seeds", "2", "--plain",
            )  # fmt: skip
        finally:
            machines.shutdown()
        sizes = {name.rpartition("/")[2]: seen.size for name, seen in Place(address).tree("shards").items()}
        whole = sum(sizes.values())
        print("| fetch | files | MB | share of the store |\n|---|---|---|---|")
        print(f"| the store | {len(sizes)} | {whole / 1e6:.1f} | 1.00 |")
        missed = []
        for name in ("driver", "node1", "node2"):
            logs = (folder / name).glob("shards/*/fetched.log")
            files = [line.split()[2] for log in logs for line in log.open()]
            share = sum(sizes[file] for file in files) / whole
            print(f"| {name} | {len(files)} | {share * whole / 1e6:.1f} | {share:.2f} |", flush=True)
            if share > 1:
                missed.append(f"fetch: {name} fetched {share:.2f} times the store, at most once")
        print()
    return missed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of trials, to try the bench")
    parser.add_argument("--part", choices=list(NODES), help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(sweep(args.part, args.nodes, args.trials, Path(folder))))
        return 0
    own = {"many": many, "fetch": fetch}
    missed = [
        line for part in args.only for line in (own[part](args.scale) if part in own else scaled(part, args.scale))
    ]
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
