"""Is a recommendation without a sweep worth anything: leave one condition out of the knowledge, and ask it.

    python scripts/bench_knowledge.py train --work runs/knowledge --jobs 2
    python scripts/bench_knowledge.py pack --work runs/knowledge
    python scripts/bench_knowledge.py judge

train: COUNT sets of generated talking digits (`mmsearch.data.demo`) with dials drawn from a fixed seed, at the
level of features (an averaged log mel spectrogram and a small grey picture, two-layer perceptrons), so that a training
takes a second. Every method is trained at its paper setting on SEEDS seeds; what a second call finds is not trained
again. A gain is over joint training on the same seeds, on TEST test clips whose source images no other part has.

pack: surveys each condition on another seed, and writes the cases that mmsearch knows from the start,
`mmsearch/recommend/knowledge.json`.

judge: leaves each condition out in turn and asks the others. Regret: the highest gain of any method on the condition
less that of the method that was named, in points of accuracy; beside it the best fixed method of the others, joint
training, the ensemble, and MMPareto (the best average of published comparisons). The paired difference to the best
fixed method has a 95 % interval over conditions. Exit status 1 where the knowledge has a higher mean regret than it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from bench_recommend import data_of, generate, generated, lines_of, space_for, train_seed
from scipy import stats

from mmsearch.data.demo import DemoConfig
from mmsearch.files import write_text
from mmsearch.recommend.decision import BASELINE, UNIMODAL
from mmsearch.recommend.knowledge import FORMAT, SHIPPED, Case, Descriptors, Gain, Knowledge, label_of
from mmsearch.search.journal import Journal
from mmsearch.search.space import Space, is_ensemble
from mmsearch.search.study import Study

COUNT, SEEDS, TEST = 64, 3, 1200
ORIGIN = "talking digits, features"
PACKED = Path(__file__).parents[1] / "mmsearch" / "recommend" / SHIPPED
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
    """The trainings of a condition."""
    data = clips(number, work)
    space = space_for(data, work, text=SPACE)
    for seed in range(1, SEEDS + 1):
        train_seed(dict(enumerate(documents(space))), data, space, seed, work / str(number))


def train_all(work: Path, jobs: int, count: int) -> None:
    """Every condition, a process each."""
    began = time.perf_counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
        futures = [processes.submit(train_condition, number, work) for number in range(count)]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            print(f"{done} of {count} conditions, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def case_of(number: int, work: Path) -> Case:
    """A condition as a case: its survey, and every method's gain over joint training seed by seed."""
    import torch

    from mmsearch.recommend.survey import survey

    torch.set_num_threads(1)
    data = clips(number, work)
    space = space_for(data, work, text=SPACE)
    described = survey(data, space, device="cpu")
    return Case(
        f"digits {number}",
        data.digest,
        ORIGIN,
        described,
        gains_of(documents(space), lines_of(work / str(number)), described),
    )


def gains_of(
    settings: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]], described: Descriptors
) -> dict[str, Gain]:
    """Of every method at its first setting among these.

    Args:
        settings: the documents, by the number that a line names; only the first of a method counts.
        lines: the trainings. One that failed is right in nothing.
        described: says which modality alone is meant.
    """
    best = max(described.alone, key=lambda u: described.alone[u])
    test: dict[int, dict[int, float]] = {}
    cost: dict[int, float] = {}
    for line in lines:
        test.setdefault(line["setting"], {})[line["seed"]] = line.get("test", 0.0)
        cost[line["setting"]] = line["cost"]
    alone = {
        d["method"]["modality"]: cost[i]
        for i, d in reversed(list(enumerate(settings)))
        if d["method"]["name"] == UNIMODAL
    }
    joint = next(test[i] for i, d in enumerate(settings) if d["method"]["name"] == BASELINE)
    gains: dict[str, Gain] = {}
    for i, d in enumerate(settings):
        label = label_of(d["method"])
        if label in (BASELINE, *gains) or d["method"].get("modality", best) != best:
            continue
        over = np.array([test[i][s] - joint[s] for s in sorted(joint)])
        taught = sum(alone[u] for u in d["teachers"])
        gains[label] = Gain(
            round(float(over.mean()), 5),
            round(float(over.std(ddof=1) / np.sqrt(len(over))), 5),
            round(cost[i] + taught, 3),
        )
    return gains


def pack(work: Path, count: int) -> int:
    """The cases of all conditions, into the package."""
    space = None
    cases = []
    for number in range(count):
        if not (work / str(number) / "clips.npz").exists():
            continue
        space = space or space_for(clips(number, work), work, text=SPACE)
        if len(lines_of(work / str(number))) < len(documents(space)) * SEEDS:
            print(f"condition {number} is not whole; left out", file=sys.stderr)
            continue
        cases.append(case_of(number, work))
        print(f"{len(cases)} cases", file=sys.stderr, flush=True)
    write_text(PACKED, json.dumps({"format": FORMAT, "cases": [c.to_dict() for c in cases]}, indent=1) + "\n")
    return 0


def judge(origin: str) -> int:
    """Leaves one case out at a time; exit status."""
    known = Knowledge([c for c in Knowledge.load().cases if c.origin != "sweep"])
    of = [c for c in known.cases if c.origin == origin]
    regrets: dict[str, list[float]] = {"knowledge": [], "best fixed": [], "joint": [], "ensemble": [], "mmpareto": []}
    named: Counter[str] = Counter()
    unsure = inside = 0
    for case in of:
        others = known.without(case.digest)
        gains = {BASELINE: 0.0, **{label: g.mean for label, g in case.gains.items()}}
        top = max(gains.values())
        found = others.advise(case.descriptors, case.gains)
        means = {
            label: float(np.mean([c.gains[label].mean for c in others.cases if label in c.gains]))
            for label in case.gains
        }
        fixed = max({BASELINE: 0.0, **means}.items(), key=lambda item: item[1])[0]
        for who, label in zip(
            regrets, (found.best.label, fixed, BASELINE, "unimodal_teacher (ume)", "mmpareto"), strict=True
        ):
            regrets[who].append(100 * (top - gains[label]))
        named[found.best.label] += 1
        unsure += found.unsure is not None
        seen = case.gains.get(found.best.label)
        inside += seen is None or abs(found.best.gain - seen.mean) <= 1.96 * float(np.hypot(found.best.sd, seen.se))
    print(f"{len(of)} conditions ({origin}), one left out at a time; it knew too little of {unsure}.")
    print(f"Named: {', '.join(f'{label} {n}' for label, n in named.most_common())}.")
    print(f"The gain of what it named was within its 95 % interval in {inside} of {len(of)}.\n")
    print("| rule | mean regret, points | worst tenth | less than it, points (95 %) |\n|---|---|---|---|")
    mine = np.array(regrets["knowledge"])
    for who, values in regrets.items():
        worst = np.sort(values)[-max(1, len(values) // 10) :].mean()
        d = np.array(values) - mine
        half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
        ahead = "" if who == "knowledge" else f"{d.mean():+.2f} ({d.mean() - half:+.2f} to {d.mean() + half:+.2f})"
        print(f"| {who} | {np.mean(values):.2f} | {worst:.2f} | {ahead} |")
    return int(mine.mean() > np.mean(regrets["best fixed"]))


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
    return pack(args.work, args.conditions) if args.part == "pack" else judge(ORIGIN)


if __name__ == "__main__":
    sys.exit(main())
