"""Trains every method at its paper setting, equal epochs, several seeds, and prints the table against joint training.

    python scripts/bench_accuracy.py my.yaml --epochs 12 --seeds 3 --out runs/accuracy

A line a method and structural alternative (such as `teacher: ume`); the fusion is concat where the method brings none.
Nothing is tuned and nothing selected: the last epoch counts, on the test part. Every finished training is a line of
`OUT/results.jsonl`, and a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats


def train_one(task: dict[str, Any]) -> dict[str, Any]:
    """One training; a teacher leaves its model in the folder of its trial."""
    import torch

    from mmsearch.data.clips import ClipData
    from mmsearch.training import evaluate, train, trial_id

    torch.set_num_threads(1)
    data, document = ClipData.open(Path(task["data"])), task["document"]
    folder = Path(task["out"]) / "models"
    started = time.perf_counter()
    teachers = {u: folder / t for u, t in document["teachers"].items()}
    run = train(document, data, teachers=teachers, device="cpu")
    for result in run:
        last = result
    seconds = time.perf_counter() - started
    if task["teacher"]:
        run.save_weights(folder / trial_id(document))
    test = evaluate(run.predictor, data, "test")
    return {
        "trial_id": trial_id(document),
        "label": task["label"],
        "seed": document["seed"],
        "test": test.accuracy,
        "unimodal": test.unimodal,
        "val": last.score,
        "cost_joint_epochs": last.cost_joint_epochs,
        "seconds": seconds,
        "metrics": last.metrics,
    }


def label(document: dict[str, Any], structural: frozenset[str]) -> str:
    """A method's name with the knobs whose every value is an alternative of its own."""
    method = document["method"]
    values = [str(method[k]) for k in sorted(structural) if k in method]
    return " ".join([method["name"], *values])


def plan(space: Any, seeds: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Teachers, and everything else: tasks with `label`, `document` and `teacher`."""
    from mmsearch.training import trial_id

    teachers, others = {}, {}
    for seed in range(seeds):
        for document in space.teachers():
            u = document["method"]["modality"]
            moved = space.teacher(u, seed=seed, held=document["held"])
            plain = document["held"] == space.recipe()["held"]
            name = f"unimodal {u}" + ("" if plain else " (without held clips)")
            teachers[trial_id(moved)] = {"label": name, "document": moved, "teacher": True}
        for method, choice in space.methods.items():
            for document in space.paper_documents(method):
                moved = space.moved(document, seed=seed, fold=0)
                task = {"label": label(document, choice.structural), "document": moved, "teacher": False}
                others.setdefault(trial_id(moved), task)
    return list(teachers.values()), [t for i, t in others.items() if i not in teachers]


def run_all(tasks: list[dict[str, Any]], done: dict[str, dict[str, Any]], file: Path, processes: int) -> None:
    """Runs what is not done yet and writes it down as it ends."""
    from mmsearch.training import trial_id

    left = [t for t in tasks if trial_id(t["document"]) not in done]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(train_one, t) for t in left]):
            r = future.result()
            done[r["trial_id"]] = r
            with file.open("a") as out:
                out.write(json.dumps(r) + "\n")
            print(f"{r['label']}, seed {r['seed']}: {r['test']:.3f}, {r['seconds']:.0f} s", file=sys.stderr, flush=True)


def table(results: list[dict[str, Any]]) -> str:
    """A line a label, best first: test accuracy, its difference to joint with a 95 % interval (paired, Student t)."""
    by: dict[str, dict[int, dict[str, Any]]] = {}
    for r in results:
        by.setdefault(r["label"], {})[r["seed"]] = r
    joint = by["joint"]
    rows = []
    for name, own in by.items():
        test = 100 * np.array([r["test"] for r in own.values()])
        d = 100 * np.array([own[s]["test"] - joint[s]["test"] for s in own if s in joint])
        half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5 if len(d) > 1 else float("inf")
        worse = "worse" if d.mean() + half < 0 else "better" if d.mean() - half > 0 else ""
        spread = f" ± {test.std(ddof=1):.1f}" if len(test) > 1 else ""
        cost = np.mean([r["cost_joint_epochs"] for r in own.values()])
        seconds = np.mean([r["seconds"] for r in own.values()])
        rows.append(
            (
                -test.mean(),
                f"| {name} | {test.mean():.1f}{spread} | {d.mean():+.1f} ({d.mean() - half:+.1f} to "
                f"{d.mean() + half:+.1f}) | {worse} | {cost:.1f} | {seconds:.0f} |",
            )
        )
    head = ["| method | test | points over joint | | joint epochs | s |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *(line for _, line in sorted(rows))])


def main() -> None:
    """The command line."""
    from mmsearch.data import Dataset, clip_data, default_store, prepare
    from mmsearch.search.space import Space

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="a dataset YAML")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, gone on with if it is there")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "data.json"
    dataset = Dataset.load(args.dataset)
    data = clip_data(dataset, default_store(), prepare(dataset, default_store()))
    data.save(path)
    text = f"epochs: {args.epochs}\nbatch_size: {args.batch_size}\nfusions:\n  concat:\noptimizers:\n  sgd:\n"
    (args.out / "space.yaml").write_text(text)
    space = Space.load(args.out / "space.yaml", data.modalities, data=data.digest)
    file = args.out / "results.jsonl"
    done = {r["trial_id"]: r for r in map(json.loads, file.read_text().splitlines())} if file.exists() else {}
    for tasks in plan(space, args.seeds):
        run_all([{**t, "data": str(path), "out": str(args.out)} for t in tasks], done, file, args.processes)
    print(table(list(done.values())))


if __name__ == "__main__":
    main()
