"""Asks every method that measures dominance which modality is the strong one, where the demo's dials say it.

    python scripts/bench_dominance.py --seeds 10

Per condition, method and seed one training, the method at its paper's setting, until the first epoch that has the
method's signal (or its end). Printed as a Markdown table: in how many seeds the signal points at the strong modality.
Exit status 1 where that is below 9 of 10 for any.

Most methods measure from the first epoch on, and at the dials and the recipe of the demo both modalities are still at
chance when it ends, so that nothing can point anywhere. Hence DIALS make the strong side strong from the start, and
RECIPE changes that of search_spaces/demo.yaml so that an epoch has more steps and the warm-up ends within the first.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

STRONG = {"sound_dominates": "sound", "picture_dominates": "frames"}
DIALS: dict[str, dict[str, float]] = {
    "sound_dominates": {"snr_db": 5.0, "snr_spread": 0.0},
    "picture_dominates": {
        "snr_db": -12.0, "snr_spread": 0.0, "contrast": 0.9, "pix_noise": 0.04, "room": 0.0, "jitter": 0.2,
        "motion": 1.0, "digit_px": 44.0,
    },
}  # fmt: skip
RECIPE: dict[str, Any] = {"epochs": 5, "batch_size": 16}
LR = 0.05
CLIPS = 3300
ENOUGH = 0.9


def measured(metrics: Mapping[str, float], method: str, signal: str) -> dict[str, float]:
    """A method's signal per modality; empty where it has not been measured for both."""
    values = {u: metrics.get(f"{method}/{signal}/{u}") for u in STRONG.values()}
    return {} if None in values.values() else values  # type: ignore[return-value]


def pointed_at(values: Mapping[str, float], strong: str) -> str:
    """The modality that a signal calls strong: the only one with the `high`est (`low`est) value, else "nobody"."""
    sign = {"high": 1, "low": -1}[strong]
    second, first = sorted(values, key=lambda u: sign * values[u])
    return first if sign * values[first] > sign * values[second] else "nobody"


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """One training up to its method's first measurement."""
    import torch

    from mmsearch.data.clips import ClipData
    from mmsearch.methods import METHODS
    from mmsearch.testing import fusion_for, teachers_for
    from mmsearch.training import train

    torch.set_num_threads(1)
    data = ClipData.open(Path(task["data"]))
    dominance = METHODS.get(task["method"]).dominance
    assert dominance is not None
    method = {"name": task["method"]}
    document = {**task["recipe"], "method": method, **fusion_for(method, data), "seed": task["seed"]}
    found: dict[str, Any] = {"points_at": None, "epoch": None, "values": {}}
    with tempfile.TemporaryDirectory() as folder:
        for result in train(data=data, device="cpu", **teachers_for(document, data, Path(folder))):
            values = measured(result.metrics, task["method"], dominance.signal)
            if values:
                points_at = pointed_at(values, dominance.strong)
                found = {"points_at": points_at, "epoch": result.epoch, "values": values}
                break
    return {**{k: task[k] for k in ("condition", "method", "seed")}, **found}


def table(results: list[dict[str, Any]], signals: Mapping[str, str]) -> tuple[str, list[str]]:
    """The Markdown table, and a line for every method that points elsewhere too often.

    Args:
        results: of :func:`measure`.
        signals: per method its signal, as it is to be printed.
    """
    conditions = [c for c in STRONG if any(r["condition"] == c for r in results)]
    head = ["method", "strong has the", *(f"{c}: {STRONG[c]}" for c in conditions), "first measured after epoch"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    below = []
    for method in dict.fromkeys(r["method"] for r in results):
        cells = [method, signals[method]]
        epochs: set[int] = set()
        for condition in conditions:
            own = [r for r in results if (r["method"], r["condition"]) == (method, condition)]
            right = sum(r["points_at"] == STRONG[condition] for r in own)
            silent = sum(r["points_at"] is None for r in own)
            cells.append(f"{right} of {len(own)}" + (f" ({silent} without a measurement)" if silent else ""))
            epochs |= {r["epoch"] for r in own if r["epoch"] is not None}
            if right < ENOUGH * len(own):
                below.append(f"{method}, {condition}: {right} of {len(own)} point at {STRONG[condition]}")
        cells.append("-" if not epochs else "-".join(str(e) for e in sorted({min(epochs), max(epochs)})))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines), below


def main() -> int:
    from bench_demo import open_data

    from mmsearch.data import ClipData
    from mmsearch.methods import METHODS
    from mmsearch.search.space import Space
    from mmsearch.sweep import SPACES

    declaring = {n: d for n in METHODS.names() if (d := METHODS.get(n).dominance)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="training seeds a condition (default: 10)")
    parser.add_argument("--methods", nargs="+", choices=list(declaring), default=list(declaring), metavar="METHOD")
    parser.add_argument("--conditions", nargs="+", choices=list(STRONG), default=list(STRONG), metavar="CONDITION")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips of a demo set (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for the demo sets and their stores (default: the cache)")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()

    tasks = []
    for condition in args.conditions:
        path = open_data(condition, 0, args.work, n_clips=args.clips, **DIALS[condition])
        data = ClipData.open(path)
        recipe = Space.load(SPACES / "demo.yaml", data.modalities, data=data.digest).recipe() | RECIPE
        recipe["optimizer"] |= {"lr": LR}
        tasks += [
            {"data": str(path), "recipe": recipe, "condition": condition, "method": method, "seed": seed}
            for method in args.methods
            for seed in range(args.seeds)
        ]
    results = []
    with ProcessPoolExecutor(args.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(measure, t) for t in tasks]):
            r = done.result()
            results.append(r)
            values = ", ".join(f"{u} {v:.4g}" for u, v in r["values"].items()) or "no measurement"
            print(f"{r['condition']}, {r['method']}, seed {r['seed']}: {values}", file=sys.stderr, flush=True)
    order = {m: i for i, m in enumerate(args.methods)}
    results.sort(key=lambda r: order[r["method"]])
    text, below = table(results, {m: f"{declaring[m].strong}er {declaring[m].signal}" for m in args.methods})
    print(text)
    for line in below:
        print(f"below {ENOUGH:.0%}: {line}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
