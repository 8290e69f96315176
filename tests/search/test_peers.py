"""Trials of two processes each, on two cores: as good as one process, and a lost peer costs what a lost worker does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, os, signal, sys
from pathlib import Path

import numpy as np
import ray

from mmsearch.batch import Modality
from mmsearch.data.clips import ClipData
from mmsearch.search import cluster, runner
from mmsearch.search.journal import Journal
from mmsearch.search.sources import SearchSource
from mmsearch.search.space import Space
from mmsearch.search.study import Study
from mmsearch.search.trial import Trial
from mmsearch.training import train

# Without batch norm, whose statistics are those of a process's own slice.
SPACE = (
    "epochs: 4\\nbatch_size: 16\\nmethods:\\n  joint:\\n  ogm: {ge: false}\\n"
    "encoders:\\n  sound: {name: vector, normalise: false}\\n  frames: {name: vector, normalise: false}\\n"
)


def clips():
    rng = np.random.default_rng(0)
    label = np.arange(150) % 3
    inputs = {u: (rng.normal(size=(150, 6)) + label[:, None]).astype("float32") for u in ("sound", "frames")}
    return ClipData.from_arrays(inputs, label, modalities={u: Modality(u, "vector", (6,)) for u in inputs})


def work(document, path, teachers, device, micro_batch):
    return train(dict(document), clips(), teachers=teachers, device="cpu", micro_batch=micro_batch)


class Real(Trial):
    open_run = staticmethod(work)


def peers():
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if (path / "cmdline").read_bytes().startswith(b"ray::Peer"):
                    yield int(path.name)
            except OSError:
                pass


run = Path(sys.argv[1])
run.mkdir()
(run / "data.json").write_text("{}")
(run / "space.yaml").write_text(SPACE)
data = clips()
space = Space.load(run / "space.yaml", data.modalities, data=data.digest)
for method in ("unimodal_teacher", "unimodal"):
    space.methods.pop(method)
killed = []


def kill(event):
    if event["event"] == "checkpointed" and event["epoch"] == 2 and not killed:
        killed.extend(peers())
        os.kill(killed[0], signal.SIGKILL)


with cluster.quiet(run / "logs" / "ray.log") as out, Journal(run) as journal:
    study = Study(space, journal, sampler="random")
    journal.subscribe(kill)
    resources = cluster.connect(gpus_per_trial=0)
    resources.processes = 2
    try:
        runner.run(SearchSource(study, trials=3), study, run, resources, checkpoint_seconds=0.0, trial_class=Real)
    finally:
        cluster.disconnect()
    found = []
    for record in study.records.values():
        alone = [result.score for result in train(record.document, data, device="cpu")]
        found.append([record.state, record.retries, [score for _, score in record.curve], alone[: len(record.curve)]])
    print(json.dumps([len(killed), found]), file=out)
"""


def test_trials_of_two_processes_and_the_loss_of_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )
    log = tmp_path / "run/logs/ray.log"
    assert done.returncode == 0, done.stderr + (log.read_text()[-3000:] if log.exists() else "")
    killed, found = json.loads(done.stdout.splitlines()[-1])
    assert killed == 1 and sum(retries for _, retries, *_ in found) == 1
    assert len(found) == 3 and {state for state, *_ in found} <= {"complete", "pruned"}
    assert all(together == alone for _, _, together, alone in found), found
