"""Is a recommendation without a sweep worth anything: leave one condition out of the knowledge, and ask it.

    python scripts/bench_knowledge.py train --work runs/knowledge --jobs 2
    python scripts/bench_knowledge.py pack --work runs/knowledge
    python scripts/bench_knowledge.py judge

train: CONDITIONS sets of generated talking digits (`mmsearch.data.demo`) with dials drawn from a fixed seed, at the
level of features (an averaged log mel spectrogram and a small grey picture, two-layer perceptrons), so that a training
takes a second. Each is surveyed on one seed, and every method is trained at its paper setting on SEEDS others; what a
second call finds is not trained again. A gain is over joint training on the same seeds, on at least a thousand test
clips whose source images no other part has.

pack: the cases that mmsearch knows from the start, `mmsearch/recommend/knowledge.json`.

judge: leaves each condition out in turn and asks the others. Regret: the highest gain of any method on the condition
less that of the method that was named, in points of accuracy; beside it the best fixed method of the others, joint
training, the ensemble, and MMPareto (the best average of published comparisons). The paired difference to the best
fixed method has a 95 % interval over conditions. Exit status 1 where the knowledge has a higher mean regret than it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from bench_recommend import data_of, generate, generated, space_for, train_seed

from mmsearch.data.demo import DemoConfig
from mmsearch.search.journal import Journal
from mmsearch.search.space import Space, is_ensemble
from mmsearch.search.study import Study

COUNT, SEEDS, TEST = 64, 3, 1200
SPACE = """\
epochs: 12
batch_size: 32
encoders:
  sound: vector
  frames: vector
methods:
  joint:
  unimodal:
  unimodal_teacher: {teacher: [ume, umt], weighting: lambda, init: scratch, level: prob}
  uniform:
  ogm: {ge: false, tensors: matrices}
  opm:
  mla:
  mmpareto:
  mmcosine:
  qmf:
  mslr:
  inforeg: {window_rule: fisher}
  cml:
  mbsd:
  pmr:
  diagnose_relearn:
fusions:
  concat:
optimizers:
  sgd: {lr: {low: 0.02, high: 0.2, log: true}, weight_decay: 0.0001}
"""


def config_of(number: int) -> DemoConfig:
    """The dials of a condition: how strong and how clean each modality is, how many clips, what is amiss."""
    rng = np.random.default_rng([20, number])
    pair = rng.random() < 0.15
    lost, wrong = rng.random(2)
    return DemoConfig(
        n_clips=round(float(np.exp(rng.uniform(np.log(240), np.log(1600))))),
        n_classes=int(rng.choice([4, 9] if pair else [3, 5, 10, 10])),
        pair=bool(pair),
        seed=number,
        snr_db=float(rng.uniform(-16, 12)),
        snr_spread=float(rng.uniform(0, 8)),
        time_var=float(rng.uniform(0.5, 1.5)),
        clutter=int(rng.integers(0, 6)),
        contrast=float(rng.uniform(0.2, 1)),
        room=float(rng.uniform(0, 0.5)),
        jitter=float(rng.uniform(0.2, 1)),
        motion=float(rng.uniform(2, 8)),
        digit_px=float(rng.uniform(32, 56)),
        pix_noise=float(rng.uniform(0.02, 0.3)),
        p_missing_sound=float(rng.uniform(0.1, 0.4)) if lost < 0.2 else 0.0,
        p_missing_frames=float(rng.uniform(0.1, 0.4)) if lost > 0.85 else 0.0,
        label_noise=float(rng.uniform(0.05, 0.25)) if wrong < 0.25 else 0.0,
    )


def features(config: DemoConfig) -> dict[str, np.ndarray]:
    """The clips of a condition as vectors: 6 × 12 means of the spectrogram, a grey picture of 10 × 10 pixels."""
    import torch
    import torch.nn.functional as F

    found = generate(config, TEST)
    pictures = torch.from_numpy(found["frames"][:, 0]).float().mean(-1)[:, None] / 255
    sound = F.avg_pool2d(torch.from_numpy(found["sound"])[:, None], 2)
    return {
        **found,
        "sound": sound.flatten(1).numpy(),
        "frames": F.interpolate(pictures, size=(10, 10), mode="area").flatten(1).numpy(),
    }


def clips(number: int, work: Path) -> Any:
    """The clips of a condition, generated where they are not yet."""
    config = config_of(number)
    found = generated(work / str(number) / "clips.npz", lambda: features(config))
    return data_of(found, {"sound": "vector", "frames": "vector"}, config.classes)


def documents(space: Space) -> list[dict[str, Any]]:
    """Every method at its first paper setting: each modality alone, and the ensemble beside the distillation."""
    study = Study(space, Journal(None), sampler="random")
    found = []
    for method in space.methods:
        asks = study.paper(method)
        found += [a.document for a in asks if method == "unimodal" or a is asks[0] or is_ensemble(a.document)]
    return found


def train_condition(number: int, work: Path) -> None:
    """The survey and the trainings of a condition."""
    data = clips(number, work)
    space = space_for(data, work, text=SPACE)
    for seed in range(1, SEEDS + 1):
        train_seed(documents(space), data, space, seed, work / str(number))


def train_all(work: Path, jobs: int, count: int) -> None:
    """Every condition, a process each."""
    began = time.perf_counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
        futures = [processes.submit(train_condition, number, work) for number in range(count)]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            print(f"{done} of {count} conditions, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["train", "pack", "judge"])
    parser.add_argument("--work", type=Path, default=Path("runs/knowledge"), help="folder of the trainings")
    parser.add_argument("--conditions", type=int, default=COUNT, metavar="N", help="only the first N")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    if args.part == "train":
        train_all(args.work, args.jobs, args.conditions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
