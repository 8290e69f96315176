"""The made-up run with all that explains a result: signals, the models' answers clip by clip, and a diagnosis."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_run import SWEEP, FakeClips, Run, write_run

from mmsearch.batch import Modality
from mmsearch.data import ClipData
from mmsearch.recommend import card

CLASSES = 10
CLIPS = 300
SELECT = 150
RATE = 8000


def explained(folder: Path, *, seeds: int = 4, trials: int = 12) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Writes a run's folder; its recommendation (with a diagnosis) and its events."""
    events = Run(seeds=seeds, trials=trials).search().confirm().read_test().events
    methods = {e["trial_id"]: e for e in events if e["event"] == "asked"}
    rng = np.random.default_rng(0)
    for e in events:
        if e["event"] == "asked" and e["stage"] == "search":
            doc = e["document"]
            e["params"] |= {"fusion": e["fusion"], "sgd.lr": doc["optimizer"]["lr"], "optimizer": "sgd"}
        asked = methods.get(e.get("trial_id", ""))
        if e.get("score") is not None and asked and asked["stage"] == "search":
            e["score"] -= 0.05 * abs(math.log(asked["document"]["optimizer"]["lr"] / 0.05))
        if e["event"] == "epoch" and methods[e["trial_id"]]["method"] == "ogm":
            share = e["epoch"] / e["epochs"]
            for u, k in (("sound", 0.4 + 0.5 * share), ("frames", 1.0)):
                e["metrics"][f"ogm/k/{u}"] = k + 0.02 * rng.normal()
            e["metrics"]["ogm/rho"] = 2 - share
    write_run(folder, events)
    rec = card.build(events, FakeClips(), SWEEP) | {"diagnosis": diagnosis()}
    card.write(folder, rec)
    names = [f"speaker{i % 7}/clip{i:03d}.mp4" for i in range(CLIPS)]
    label = [i % CLASSES for i in range(CLIPS)]
    (folder / "data.json").write_text(json.dumps({"clip_id": names, "label": label, "quality": None}))
    for e in events:
        if e["event"] == "told" and "select" in e:
            write_answers(folder, e["trial_id"], methods[e["trial_id"]]["document"]["seed"], e["score"], label)
    return rec, events


def write_answers(folder: Path, trial_id: str, seed: int, accuracy: float, label: list[int]) -> None:
    """What a model answered on select: the harder a clip, the rarer it is right."""
    rows = np.sort(np.random.default_rng(seed).permutation(CLIPS)[:SELECT])
    hard = np.random.default_rng(99).random(CLIPS)
    noise = np.random.default_rng(int(trial_id, 16)).random(CLIPS)
    right = 0.8 * hard + 0.2 * noise < accuracy
    predicted = [label[i] if right[i] else (label[i] + 1 + int(3 * hard[i])) % CLASSES for i in rows]
    place = folder / "trials" / trial_id
    place.mkdir(parents=True)
    told = {"index": rows.tolist(), "label": [label[i] for i in rows], "predicted": predicted}
    (place / "select.json").write_text(json.dumps(told))


def diagnosis() -> dict[str, Any]:
    """As `recommendation.json` has it, one number unknown."""
    return {
        "part": "select",
        "models": {"joint": model("joint · concat", 0.899, 0.56), "chosen": model("uniform · concat", 0.957, 0.75)},
        "ume_umt": {
            "rule": "ume",
            "acc_ume": 0.96,
            "acc_probe": 0.945,
            "se": 0.01,
            "lead": {"mean": -0.015, "ci95": [-0.04, 0.01]},
        },
        "clips": {"fixed": ["a.mp4", "b.mp4"], "broken": ["c.mp4"]},
        "sentences": [
            {
                "about": "Under-training",
                "text": "The frames encoder learned 14 points less than it can alone (6 to 22).",
            },
            {"about": "Missing", "text": "Without the sound the recommended model still reaches 70.1%."},
        ],
    }


def model(label: str, accuracy: float, frames: float) -> dict[str, Any]:
    line = [{"level": v, "accuracy": accuracy - 0.012 * i * i} for i, v in enumerate((None, 10, 5, 0, -5))]
    return {
        "label": label,
        "trial_id": "0" * 12,
        "accuracy": accuracy,
        "modalities": {
            "sound": {
                "own": 0.8, "probe": 0.81, "alone": 0.83, "gap": 0.02, "gap_ci95": [-0.01, 0.05], "shapley": 0.6,
                "separability": 0.31, "gradient_agreement": 0.12,
            },
            "frames": {
                "own": frames, "probe": frames + 0.05, "alone": 0.79, "gap": 0.74 - frames, "gap_ci95": [None, None],
                "shapley": accuracy - 0.7, "separability": 0.11, "gradient_agreement": None,
            },
        },
        "imbalance": 0.3,
        "ece": 0.05,
        "reliability": [
            {"confidence": c, "accuracy": a, "clips": n}
            for c, a, n in ((0.35, 0.3, 12), (0.55, 0.48, 20), (0.75, 0.7, 40), (0.95, 0.97, 84), (None, None, 0))
        ],
        "robustness": {"sound/snr_db": line, "frames/severity": line},
        "missing": {"sound": 0.701, "frames": 0.83},
        "confusion": (np.eye(CLASSES, dtype=int) * 15).tolist(),
        "valuation": {"sound": 0.61, "frames": 0.29},
    }  # fmt: skip


def clips(n: int = 4, *, seconds: float = 1.0) -> ClipData:
    """Frames that grow brighter, and a tone."""
    t = np.arange(int(seconds * RATE)) / RATE
    tone = (8000 * np.sin(2 * np.pi * 50 * t)).astype(np.int16)
    frames = np.stack([np.full((24, 32, 3), 60 * i, np.uint8) for i in range(4)])
    present = {"sound": np.ones(n, bool), "frames": np.arange(n) != 1}
    return ClipData.from_arrays(
        {"sound": np.tile(tone, (n, 1)), "frames": np.tile(frames, (n, 1, 1, 1, 1))},
        np.arange(n) % 2,
        modalities={
            "sound": Modality("sound", "sound", (len(tone),), RATE),
            "frames": Modality("frames", "frames", (4, 24, 32, 3), 4.0),
        },
        present=present,
    )
