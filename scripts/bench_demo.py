"""Trains on a demo condition over several seeds and prints what each modality learned, as a Markdown table.

    python scripts/bench_demo.py --condition sound_dominates --seeds 5

Every training goes through the product: write_demo, prepare, ClipData, train. A probe is a logistic regression on
the frozen, standardised features of one encoder. Trainings use the recipe of search_spaces/demo.yaml on the search's
fold 0; the last epoch counts, and nothing is selected on test.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

MODALITIES = ("sound", "frames")
METHODS: dict[str, dict[str, Any]] = {
    "sound alone": {"name": "unimodal", "modality": "sound"},
    "frames alone": {"name": "unimodal", "modality": "frames"},
    "joint": {"name": "joint"},
    "uniform": {"name": "uniform"},
}
ENSEMBLE = "ensemble"


def train_one(task: dict[str, Any]) -> dict[str, Any]:
    """One training: accuracies, probes, seconds, and the probabilities on test."""
    import torch

    from mmsearch.data.clips import ClipData
    from mmsearch.training import evaluate, train

    torch.set_num_threads(1)
    data = ClipData.open(Path(task["data"]))
    started = time.perf_counter()
    run = train({**task["document"], "method": METHODS[task["method"]], "seed": task["seed"]}, data, device="cpu")
    for result in run:
        last = result
    seconds = time.perf_counter() - started
    test = evaluate(run.predictor, data, "test")
    return {
        **{k: task[k] for k in ("method", "seed")},
        "test": test.accuracy,
        "val": last.score,
        "train_loss": last.metrics["train/loss"],
        "seconds": seconds,
        "joint_epochs": last.cost_joint_epochs,
        "probe": probes(run.predictor, data),
        "probabilities": test.probabilities,
        "label": test.label,
    }


def probes(predictor: Any, data: Any) -> dict[str, float]:
    """Test accuracy of a logistic regression on each encoder's features, fitted on train."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(part: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        rows = data.part(part, predictor.document["fold"])
        batches = list(data.batches(rows, 128, predictor.views(training=False)))
        outs = [predictor.predict(b).features for b in batches]
        return {
            u: (
                np.concatenate([o[u].numpy()[b.present[u].numpy()] for o, b in zip(outs, batches, strict=True)]),
                np.concatenate([b.label.numpy()[b.present[u].numpy()] for b in batches]),
            )
            for u in predictor.modalities
        }

    fit, test = features("train"), features("test")
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return {u: probe.fit(*fit[u]).score(*test[u]) for u in fit}


def ensemble(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean of the unimodal models' log-probabilities, seed by seed."""
    rows = []
    for seed in sorted({r["seed"] for r in results}):
        alone = [r for r in results if r["seed"] == seed and r["method"] in (f"{u} alone" for u in MODALITIES)]
        score = np.mean([np.log(r["probabilities"] + 1e-12) for r in alone], axis=0)
        accuracy = float((score.argmax(1) == alone[0]["label"]).mean())
        costs = {k: sum(r[k] for r in alone) for k in ("seconds", "joint_epochs")}
        rows.append({"method": ENSEMBLE, "seed": seed, "test": accuracy, "probe": {}, **costs})
    return rows


def summary(values: list[float], scale: float = 100.0) -> str:
    """`mean ± sd`, sd with n - 1."""
    if not values:
        return "-"
    x = scale * np.array(values)
    return f"{x.mean():.1f}" + (f" ± {x.std(ddof=1):.1f}" if len(x) > 1 else "")


def table(results: list[dict[str, Any]]) -> str:
    """A line a method."""
    lines = [
        "| method | test | val | probe sound | probe frames | train loss | joint epochs | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in [*METHODS, ENSEMBLE]:
        own = [r for r in results if r["method"] == method]
        probe = [summary([r["probe"][u] for r in own if u in r["probe"]]) for u in MODALITIES]
        cells = [method, summary([r["test"] for r in own]), summary([r["val"] for r in own if "val" in r]), *probe]
        cells += [summary([r["train_loss"] for r in own if "train_loss" in r], 1.0).split(" ± ")[0]]
        cells += [f"{np.mean([r[k] for r in own]):.1f}" for k in ("joint_epochs", "seconds")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def line(condition: str, results: list[dict[str, Any]]) -> str:
    """The condition in one line: accuracies, and probes inside joint with the probes alone in brackets."""
    test = {m: summary([r["test"] for r in results if r["method"] == m]) for m in [*METHODS, ENSEMBLE]}

    def probe(method: str, modality: str) -> float:
        return 100 * float(np.mean([r["probe"][modality] for r in results if r["method"] == method]))

    inside = " / ".join(f"{probe('joint', u):.1f} ({probe(f'{u} alone', u):.1f})" for u in MODALITIES)
    seeds = len({r["seed"] for r in results})
    head = ["condition", *test, "probe sound / frames of joint (alone)", "seeds"]
    rule = "|".join("---" for _ in head)
    return "\n".join(
        [
            "| " + " | ".join(head) + " |",
            f"|{rule}|",
            f"| {condition} | {' | '.join(test.values())} | {inside} | {seeds} |",
        ]
    )


def gains(results: list[dict[str, Any]]) -> str:
    """Differences to joint on the same seed and the same test clips."""
    by = {(r["method"], r["seed"]): r["test"] for r in results}
    seeds = sorted({r["seed"] for r in results})
    parts = []
    for method in ("uniform", ENSEMBLE):
        d = [by[method, s] - by["joint", s] for s in seeds]
        parts.append(f"{method} - joint: {summary(d)} (positive in {sum(x > 0 for x in d)} of {len(d)})")
    return "; ".join(parts)


def open_data(condition: str, seed: int, work: Path | None, **dials: Any) -> Path:
    """Writes the demo where it is not cached, decodes it, and saves what a training opens."""
    from mmsearch.data import Dataset, clip_data, prepare
    from mmsearch.data.demo import DemoConfig, cached_demo, write_demo

    config = DemoConfig.of(condition, seed=seed, **dials)
    dataset_path = write_demo(work / f"{condition}-{seed}", config) if work else cached_demo(config)
    dataset = Dataset.load(dataset_path)
    store = dataset_path.parent / "store"
    prepared = prepare(dataset, store)
    print(f"{prepared.stored} clips stored, {prepared.decoded} decoded now, {len(prepared.quarantined)} set aside\n")
    path = dataset_path.parent / "data.json"
    clip_data(dataset, store, prepared).save(path)
    return path


def main() -> None:
    from mmsearch.data import ClipData
    from mmsearch.data.demo import CONDITIONS
    from mmsearch.search.space import Space
    from mmsearch.sweep import SPACES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--condition", choices=list(CONDITIONS), default="sound_dominates")
    parser.add_argument("--seeds", type=int, default=5, help="training seeds on one generated set")
    parser.add_argument("--data-seed", type=int, default=0, help="seed of the generated set")
    parser.add_argument(
        "--set", type=json.loads, default={}, metavar="JSON", help='changes the document: {"epochs": 10}'
    )
    parser.add_argument("--work", type=Path, help="folder for the demo and its store (default: the cache)")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()

    path = open_data(args.condition, args.data_seed, args.work)
    data = ClipData.open(path)
    space = Space.load(SPACES / "demo.yaml", data.modalities, data=data.digest)
    document = {**space.recipe(), **args.set}
    tasks = [
        {"data": str(path), "document": document, "method": method, "seed": seed}
        for seed in range(args.seeds)
        for method in METHODS
    ]
    with ProcessPoolExecutor(args.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = []
        for r in pool.map(train_one, tasks):
            results.append(r)
            print(
                f"{r['method']}, seed {r['seed']}: {r['test']:.3f}, {r['seconds']:.0f} s", file=sys.stderr, flush=True
            )
    results += ensemble(results)
    print(line(args.condition, results), table(results), gains(results), sep="\n\n")


if __name__ == "__main__":
    main()
