"""A made-up run with the events of a real one: the talking digits, on which uniform losses and the ensemble tie."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.batch import Modality

START = 1_750_000_000.0
DEMO = {
    "joint": 0.899,
    "uniform": 0.957,
    "ogm": 0.888,
    "mla": 0.935,
    "umt": 0.945,
    "ume": 0.960,
    "sound": 0.829,
    "frames": 0.792,
}
"""True accuracy of each contender; a method that is left out is not run."""

COST = {"sound": 0.43, "frames": 0.65, "ogm": 1.0, "mla": 1.05, "umt": 1.36, "ume": 0.0}
INSIDE = {"sound": (0.802, 0.885), "frames": (0.561, 0.752)}


@dataclasses.dataclass
class FakeClips:
    """What a recommendation reads of a `ClipData`."""

    name: str = "talking digits"
    digest: str = "5f2c9b7e10a4"
    classes: list[str] = dataclasses.field(default_factory=lambda: [str(i) for i in range(10)])
    clip_ids: list[str] = dataclasses.field(default_factory=lambda: [f"clip{i}" for i in range(1650)])

    @property
    def modalities(self) -> dict[str, Modality]:
        return {
            "sound": Modality("sound", "sound", (16000,), 16000.0),
            "frames": Modality("frames", "frames", (8, 64, 64, 3), 8.0),
        }

    def part(self, name: str, fold: int = 0) -> np.ndarray:
        return np.arange({"train": 938, "val": 156, "select": 156, "test": 400}[name])


def document(who: str, fusion: str = "concat", *, seed: int = 0, fold: int = 0, **extra: Any) -> dict[str, Any]:
    method: dict[str, Any] = {"name": who}
    if who in ("sound", "frames"):
        method = {"name": "unimodal", "modality": who}
    elif who in ("umt", "ume"):
        method = {"name": "unimodal_teacher", "teacher": who}
    elif who == "ogm":
        method |= {"alpha": extra.pop("alpha", 0.3), "ge": False}
    return {
        "method": method,
        "fusion": {"name": "own" if who in ("sound", "frames", "ume") else fusion},
        "encoders": {"sound": {"name": "spectrogram", "width": 16}, "frames": {"name": "frames_resnet", "width": 8}},
        "optimizer": {"name": "sgd", "lr": extra.pop("lr", 0.05), "weight_decay": 1e-4, "momentum": 0.9},
        "batch_size": 32,
        "epochs": 15,
        "seed": seed,
        "fold": fold,
        "precision": "fp32",
        "data": "5f2c9b7e10a4",
        **extra,
    }


def identity(doc: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(doc, sort_keys=True).encode()).hexdigest()[:12]


class Run:
    """Writes events as a sweep would."""

    def __init__(self, truth: Mapping[str, float] = DEMO, *, seeds: int = 5, trials: int = 6, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.truth = truth
        self.seeds = seeds
        self.trials = trials
        self.now = START
        self.events: list[dict[str, Any]] = []
        self.emit("opened")

    def emit(self, kind: str, **fields: Any) -> None:
        self.now += 0.05
        self.events.append({"event": kind, "time": self.now, **fields})

    def search(self) -> Run:
        self.emit("phase", name="teachers")
        for who in ("sound", "frames"):
            if who in self.truth:
                self.trial(document(who), self.truth[who], who, why="teacher", stage="teacher")
        self.emit("phase", name="search")
        for i in range(self.trials):
            for who in [w for w in self.truth if w not in ("sound", "frames", "ume")]:
                fusion = ("concat", "sum")[i % 2]
                doc = document(who, fusion, lr=round(0.05 * math.exp(self.rng.normal() * 0.8 * (i > 0)), 5))
                low = self.truth[who] - 0.02 * abs(self.rng.normal()) * (i > 0) - 0.008 * (fusion == "sum")
                self.trial(
                    doc,
                    low + 0.008 * self.rng.normal(),
                    who,
                    why="tpe" if i else "paper setting",
                    stop=(None, 4, 8, 4)[i % 4] if who == "ogm" or i % 3 == 2 else None,
                    fail="RuntimeError: loss is not finite at step 212" if who == "mla" and i == 3 else None,
                )
        return self

    def confirm(self) -> Run:
        self.emit("phase", name="confirm")
        for s in range(self.seeds):
            draw = 0.006 * self.rng.normal()
            teachers: dict[str, str] = {}
            for who in sorted(self.truth, key=lambda w: w not in ("sound", "frames")):
                extra = {"teachers": teachers} if who in ("umt", "ume") else {}
                doc = document(who, seed=1000 + s, fold=1 + s, **extra)
                if who in INSIDE:
                    teachers[who] = identity(doc)
                noise = 0.012 if who in ("joint", "sound", "frames") else 0.007
                score = self.truth[who] + draw + noise * self.rng.normal()
                self.trial(doc, score, who, why="confirmation", stage="confirm")
        return self

    def read_test(self) -> Run:
        told = [e for e in self.events if e["event"] == "told" and "select" in e]
        self.emit("phase", name="decide")
        self.emit("test_read", finalists=sorted(e["trial_id"] for e in told))
        for e in told:
            accuracy = round(min(1.0, e["score"] + 0.01 + 0.005 * self.rng.normal()) * 400) / 400
            self.emit("test", trial_id=e["trial_id"], accuracy=accuracy, macro_f1=accuracy - 0.002, unimodal={})
        self.emit("phase", name="done")
        return self

    def trial(
        self,
        doc: dict[str, Any],
        score: float,
        who: str,
        *,
        why: str,
        stage: str = "search",
        stop: int | None = None,
        fail: str | None = None,
    ) -> None:
        trial_id = identity(doc)
        method, fusion = doc["method"]["name"], doc["fusion"]["name"]
        params = {f"{method}.{k}": v for k, v in doc["method"].items() if k != "name"}
        self.emit(
            "asked", trial_id=trial_id, stage=stage, method=method, fusion=fusion, document=doc, params=params, why=why
        )
        self.emit("started", trial_id=trial_id, attempt=1, epoch=0)
        epochs, reached, seconds = doc["epochs"], 0.0, 0.0
        for epoch in [epochs] if who == "ume" else range(1, (stop or epochs) + 1):
            self.now += 0.8
            seconds += 0.8 * COST.get(who, 1.0)
            share = epoch / epochs
            reached = score * (1 - 0.75 * math.exp(-5 * share)) + 0.02 * (1 - share) * self.rng.normal()
            if fail and epoch == 7:
                self.emit("lost", trial_id=trial_id, reason="worker died")
                self.emit("started", trial_id=trial_id, attempt=2, epoch=6)
            if epoch == epochs:
                reached = score
            metrics = {"val/accuracy": reached, "train/loss": 2.3 * (1 - share)}
            if who not in INSIDE:
                metrics |= {
                    f"val/accuracy/{m}": v[who != "joint"] + 0.01 * self.rng.normal() for m, v in INSIDE.items()
                }
            self.emit(
                "epoch",
                trial_id=trial_id,
                epoch=epoch,
                epochs=epochs,
                score=reached,
                metrics=metrics,
                cost_joint_epochs=COST.get(who, 1.0) * epoch,
                seconds=seconds,
            )
        state = "failed" if fail else "pruned" if stop else "complete"
        told = {"state": state, "score": None if fail else reached, "epoch": stop or epochs}
        reason = fail or (f"stopped at epoch {stop}: below the best third of {method}" if stop else None)
        if stage == "confirm" and state == "complete":
            accuracy = round(min(1.0, score) * 156) / 156
            told["select"] = {"accuracy": accuracy, "macro_f1": accuracy - 0.003}
        self.emit(
            "told", trial_id=trial_id, reason=reason, retries=int(bool(fail)), seconds=seconds, metrics={}, **told
        )


def whole_run(**kwargs: Any) -> list[dict[str, Any]]:
    return Run(**kwargs).search().confirm().read_test().events


SWEEP = {
    "arguments": {"dataset": "digits.yaml", "trials": 6, "seeds": 5, "space": "search_spaces/quick.yaml"},
    "created": "2025-06-15T15:06:40+00:00",
}


def write_run(folder: Path, events: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    (folder / "sweep.json").write_text(json.dumps(SWEEP))
    return folder
