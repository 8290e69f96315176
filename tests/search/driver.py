"""A whole sweep with a stand-in for training; run as a script it can be killed, and imported it is a toolbox."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from mmsearch.batch import Modality
from mmsearch.errors import StorageError
from mmsearch.search.finalists import finalists
from mmsearch.search.journal import Journal
from mmsearch.search.machines import Cluster
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.space import Space
from mmsearch.search.study import Study
from mmsearch.training import EpochResult, Evaluation, trial_id

MODALITIES = {
    "sound": Modality("sound", "vector", (4,)),
    "frames": Modality("frames", "vector", (3,)),
}

SPACE = """
epochs: {epochs}
methods:
  joint:
  ogm:
  unimodal_teacher:
    teacher: [ume, umt]
fusions:
  concat:
optimizers:
  sgd:
"""


def quality(document: dict) -> float:
    """A final score that is a pure function of the document."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
    return 0.4 + 0.5 * digest[0] / 255


class StandIn:
    """Counts epochs instead of training; every epoch leaves a line in RUN/trained.log."""

    def __init__(
        self, document: dict, data: Path, teachers: dict[str, Path], device: str, micro_batch: int | None
    ) -> None:
        self.document = document
        self.micro_batch = micro_batch
        self.log = data.parent / "trained.log"
        self.behave = json.loads((data.parent / "behave.json").read_text())
        self.epoch = 0
        self.epochs = document["epochs"]

    least_at_once = 1

    @property
    def ticks(self) -> int:
        return self.epoch

    def __next__(self) -> EpochResult:
        trained = document_trains(self.document)
        time.sleep(self.behave.get("sleep", 0.0) if trained else 0.0)
        self.epoch = self.epoch + 1 if trained else self.epochs
        with self.log.open("a") as file:
            file.write(f"{trial_id(self.document)} {self.epoch}\n")
        name = self.document["method"]["name"]
        if self.behave.get("raise") == name and self.epoch == 2:
            raise ValueError("planted")
        if self.behave.get("die") == name and self.epoch == 2 and not self._died():
            os.kill(os.getpid(), signal.SIGKILL)
        if self.behave.get("deadly") == name and self.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.behave.get("hang") == name and self.epoch == 2:
            time.sleep(1e6)
        if self.behave.get("freeze") == name and self.epoch == 2 and not self._died():
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.behave.get("large") == name and self.epoch == 2 and (self.micro_batch or 64) > 8:
            raise torch.OutOfMemoryError("planted")
        score = quality(self.document) * (1 - math.exp(-3 * self.epoch / self.epochs))
        if self.behave.get("nan") == name and self.epoch == 2:
            score = math.nan
        return EpochResult(
            self.epoch, self.epochs, self.epoch == self.epochs, "train", False, score, {"val/accuracy": score},
            float(self.epoch), 0.5 * self.epoch,
        )  # fmt: skip

    def _died(self) -> bool:
        marker = self.log.with_name("died")
        once = marker.exists()
        marker.touch()
        return once

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "state.json").write_text(json.dumps(self.epoch))

    def restore(self, path: Path) -> None:
        self.epoch = json.loads((path / "state.json").read_text())

    def save_weights(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "weights.json").write_text("{}")

    def evaluate(self, part: str) -> Evaluation:
        p = np.array([[0.7, 0.3], [0.2, 0.8]])
        return Evaluation(1.0, 1.0, {"sound": 0.5}, 0.1, p, np.array([0, 1]), np.array([5, 7]), None, None)


def document_trains(document: dict) -> bool:
    return document["method"].get("teacher") != "ume"


def make_space(folder: Path, epochs: int = 9, text: str = SPACE) -> Space:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "space.yaml"
    path.write_text(text.format(epochs=epochs))
    return Space.load(path, MODALITIES, data="d1")


def make_sources(study: Study, trials: int, seeds: int) -> Chain:
    return Chain(
        {
            "teachers": TeacherSource(study),
            "search": SearchSource(study, trials=trials),
            "confirm": ConfirmSource(study, finalists, seeds=seeds),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--behave", default="{}")
    parser.add_argument(
        "--worker", type=int, default=3, help="losses of a worker, or for want of memory, without progress"
    )
    parser.add_argument("--hang-after", type=float)
    parser.add_argument("--keep", type=int, default=0)
    parser.add_argument("--wave", type=int, default=500)
    parser.add_argument("--address")
    parser.add_argument("--cpus-per-trial", type=float, default=0.5)
    parser.add_argument("--checkpoint-seconds", type=float, default=0.0)
    args = parser.parse_args()

    from mmsearch.search import cluster, losses, runner
    from mmsearch.search.trial import Trial

    class StandInTrial(Trial):
        open_run = StandIn

    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "behave.json").write_text(args.behave)
    with cluster.quiet(args.run / "logs" / "ray.log") as out, Journal(args.run) as journal:
        study = Study(make_space(args.run, args.epochs), journal)
        started = time.monotonic()
        machines = Cluster(args.address, concurrent=args.slots)
        resources = cluster.connect(machines, cpus_per_trial=args.cpus_per_trial, gpus_per_trial=0)
        connected = time.monotonic()
        try:
            runner.run(
                make_sources(study, args.trials, args.seeds), study, args.run, resources,
                keep=args.keep, hang_after=args.hang_after,
                limits={**losses.LIMITS, "worker": args.worker, "memory": args.worker},
                checkpoint_seconds=args.checkpoint_seconds, wave=args.wave, trial_class=StandInTrial,
            )  # fmt: skip
        except runner.Interrupted as error:
            print(error, file=out)
            sys.exit(3)
        except StorageError as error:
            print(error, file=out)
            sys.exit(2)
        finally:
            cluster.disconnect()
        print(f"connect {connected - started:.1f} run {time.monotonic() - connected:.1f}", file=out)


if __name__ == "__main__":
    main()
