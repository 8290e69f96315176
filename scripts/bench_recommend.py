"""Does the recommendation hold: whole sweeps replayed against trainings that were made once, with known truth.

    python scripts/bench_recommend.py train --work runs/tables --jobs 2
    python scripts/bench_recommend.py pack --work runs/tables
    python scripts/bench_recommend.py replay --replays 100 --jobs 2
    python scripts/bench_recommend.py real --work runs/tables --jobs 2

train: every condition is a set of generated talking digits (`mmsearch.data.demo`, other dials), small enough for
trainings of a few seconds, with TEST test clips whose source images no other part has. A table is METHODS × a fixed
pool of settings × SEEDS seeds, each seed with splits of its own; what a second call finds is not trained again. The
LEADING settings by their mean on test have MORE seeds beside, that no replay uses, so that the best is known better
than anything that a replay could find. A line is a training: accuracy on val after every epoch, on select clip by clip
and on test at the end, cost in joint epochs an epoch.

pack: the tables as `scripts/tables/CONDITION.json.xz`, from which everything below follows.

replay: a replay draws which seed is the search's and which confirm; the real study, stopping, allocation, confirmation
and decision run on them, a suggested setting going as the nearest of the pool. The truth is the mean on test over the
seeds that the replay did not use; two settings are compared on those that both have. Regret: of the setting with the
highest mean over all seeds against the recommended one. It is too high, since that mean has the luck of the seeds of
the truth in it; "at least", against the setting with the highest mean over the replay's seeds, is too low. Beside it:
joint training, MMPareto (the best average of published comparisons) and the search's best trial of all, each with its
best setting by its score.

real: one sweep a condition in which every training is made, with settings as they are suggested. It agrees where its
verdict is one that replays gave and the truth of what it recommends lies where theirs lie.

Exit status 1 where a bound is missed: regret at most 1 point on average and 3 in the worst condition (upper 95 % bounds
over replays), at most a quarter of the table's cost, and "no method helps" in 95 % of the replays where it is true.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import lzma
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from mmsearch.batch import Modality
from mmsearch.data.demo import DemoConfig
from mmsearch.recommend.decision import BASELINE, MARGIN, decide
from mmsearch.recommend.evidence import finalists_of, settled
from mmsearch.search.allocation import ALLOCATIONS
from mmsearch.search.finalists import finalists
from mmsearch.search.journal import Journal
from mmsearch.search.simulate import Curve, Recorded, World, drive
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.space import Space, is_ensemble
from mmsearch.search.study import Study
from mmsearch.training import trial_id

TABLES = Path(__file__).parent / "tables"
SEEDS, POOL, TEST, CONFIRMED = 10, 4, 2000, 5
LEADING, MORE = 5, 10
TRIALS_PER_METHOD = 4
REAL, NOISE, RARE = 100, 0.01, 0.02
"""A real sweep agrees with so many replays where its truth is within so much of 95 % of theirs, and its verdict is one
that so large a share of them gave."""

MEAN_REGRET, WORST_REGRET, COST_SHARE, SAID = 1.0, 3.0, 0.25, 0.95

CONDITIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "sound_dominates": (800, {"snr_db": 0.0, "clutter": 3, "digit_px": 40.0}),
    "sound_dominates_much": (800, {"snr_db": 8.0, "snr_spread": 0.0, "clutter": 4}),
    "picture_dominates": (
        800,
        {"clutter": 0, "room": 0.1, "jitter": 0.3, "digit_px": 48.0, "motion": 4.0, "snr_db": -4.0, "time_var": 1.5},
    ),
    "alike": (800, {"clutter": 0, "room": 0.2, "jitter": 0.5, "digit_px": 44.0, "snr_db": 2.0}),
    "both_needed": (800, {"pair": True, "n_classes": 9, "clutter": 1, "digit_px": 44.0, "room": 0.2, "snr_db": 4.0}),
    "both_needed_clear": (
        800,
        {"pair": True, "n_classes": 4, "clutter": 0, "room": 0.05, "jitter": 0.2, "digit_px": 48.0, "snr_db": 12.0},
    ),
    "sound_useless": (800, {"snr_db": -30.0, "clutter": 0, "room": 0.2, "digit_px": 44.0}),
    "picture_useless": (800, {"contrast": 0.0, "snr_db": 4.0}),
    "both_noisy": (800, {"snr_db": -5.0, "pix_noise": 0.3, "clutter": 0, "room": 0.2, "digit_px": 44.0}),
    "missing_sound": (800, {"p_missing_sound": 0.3, "snr_db": 4.0, "clutter": 1, "digit_px": 40.0}),
    "wrong_labels": (800, {"label_noise": 0.15, "clutter": 0, "room": 0.2, "digit_px": 44.0, "snr_db": 4.0}),
    "few_clips": (320, {"clutter": 0, "room": 0.1, "digit_px": 48.0, "jitter": 0.3, "snr_db": 6.0}),
    "few_classes": (800, {"n_classes": 3, "snr_db": -4.0, "clutter": 3, "digit_px": 36.0}),
}
"""Clips of development and the dials, by condition."""

SPACE = """\
epochs: 9
batch_size: 32
encoders:
  sound: map
  frames: image
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
fusions:
  concat:
optimizers:
  sgd: {lr: {low: 0.01, high: 0.05, log: true}, weight_decay: 0.0001}
"""


def generate(config: DemoConfig, test: int = TEST) -> dict[str, np.ndarray]:
    """The clips of a condition, all of `n_clips` development: a log mel spectrogram and one small picture each."""
    import torch
    import torch.nn.functional as F
    import torchaudio

    from mmsearch.data.demo import render

    mel = torchaudio.transforms.MelSpectrogram(16000, n_fft=512, hop_length=1280, n_mels=24, f_min=60)
    found: dict[str, list[Any]] = {k: [] for k in ("sound", "frames", "label", "test", "group", "heard", "seen")}
    for part, n in (("train", config.n_clips), ("test", test)):
        for i in range(n):
            clip = render(config, part, i)
            heard = clip.speech is not None and clip.noise is not None
            wave = torch.from_numpy((clip.speech + clip.noise).astype("float32") if heard else np.zeros(16000, "f4"))
            found["sound"].append(torch.log(mel(wave) + 1e-4).T.numpy())
            shown = np.zeros((64, 64, 3), "u1") if clip.frames is None else clip.frames[3]
            small = F.interpolate(torch.from_numpy(shown).permute(2, 0, 1)[None].float(), size=(16, 16), mode="area")
            found["frames"].append(small.permute(0, 2, 3, 1).round().byte().numpy())
            found["label"].append(config.classes.index(clip.label))
            found["test"].append(part == "test")
            found["group"].append(f"{part}-{clip.source}")
            found["heard"].append(heard)
            found["seen"].append(clip.frames is not None)
    return {k: np.array(v) for k, v in found.items()}


def config_of(name: str) -> DemoConfig:
    """The dials of a condition."""
    count, dials = CONDITIONS[name]
    return DemoConfig(n_clips=count, **dials)


def generated(path: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of a file, which is made first where it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"fresh-{os.getpid()}.npz")
        np.savez(fresh, **make())
        fresh.rename(path)
    with np.load(path, allow_pickle=False) as known:
        return {k: known[k] for k in known.files}


def data_of(found: Mapping[str, np.ndarray], kinds: Mapping[str, str], classes: Sequence[str]) -> Any:
    """Generated clips as a dataset.

    Args:
        found: from :func:`generate`.
        kinds: of both modalities.
        classes: names.
    """
    from mmsearch.data.clips import ClipData

    return ClipData.from_arrays(
        {u: found[u] for u in kinds},
        found["label"],
        modalities={u: Modality(u, kind, found[u].shape[1:]) for u, kind in kinds.items()},
        classes=list(classes),
        split=["test" if t else None for t in found["test"]],
        group=found["group"],
        present={"sound": found["heard"], "frames": found["seen"]},
    )


def clips(name: str, work: Path) -> Any:
    """The clips of a condition, generated where they are not yet."""
    config = config_of(name)
    found = generated(work / name / "clips.npz", lambda: generate(config))
    return data_of(found, {"sound": "series", "frames": "image"}, config.classes)


def space_for(data: Any, work: Path, seed: int = 0, text: str = SPACE) -> Space:
    """The search space of every condition."""
    path = work / f"space-{os.getpid()}.yaml"
    path.write_text(text)
    return Space.load(path, data.modalities, data=data.digest, seed=seed)


def pool(space: Space) -> list[dict[str, Any]]:
    """The documents of the pool: every paper setting, then random ones up to POOL of a method; the ensemble beside."""
    study = Study(space, Journal(None), sampler="random")
    documents: dict[str, dict[str, Any]] = {}
    for method in space.methods:
        own: dict[str, dict[str, Any]] = {}
        for ask in study.paper(method):
            own[ask.trial_id] = ask.document
            study.issue(ask)
        free = sum(is_ensemble(d) for d in own.values())
        while len(own) - free < POOL and (ask := study.suggest(method)) is not None:
            study.issue(ask)
            if not is_ensemble(ask.document):
                own[ask.trial_id] = ask.document
        documents |= own
    return list(documents.values())


def one_training(document: Mapping[str, Any], data: Any, models: Path, keep: Path | None = None) -> dict[str, Any]:
    """A training: accuracy on val by epoch, on select clip by clip, on test; cost in joint epochs an epoch.

    Args:
        document: of the trial.
        data: the clips.
        models: folder of the teachers.
        keep: where the model is kept.
    """
    from mmsearch.training import train

    began = time.perf_counter()
    teachers = {u: models / t for u, t in document["teachers"].items()}
    run = train(dict(document), data, teachers=teachers, device="cpu")
    val: list[float] = []
    spent = 0.0
    try:
        for result in run:
            spent = float(result.cost_joint_epochs)
            if not result.rehearsal:
                val.append(round(float(result.score), 5))
        if keep:
            run.save_weights(keep)
        select, test = run.evaluate("select"), run.evaluate("test")
    except FloatingPointError as e:
        return {"val": val[:-1] or [0.0], "cost": round(spent / max(1, len(val)), 4), "failed": str(e)}
    right = (select.probabilities.argmax(1) == select.label)[np.argsort(select.index)]
    return {
        "val": val,
        "select": round(float(select.accuracy), 5),
        "right": np.packbits(right).tobytes().hex(),
        "test": round(float(test.accuracy), 5),
        "cost": round(spent / len(val), 4),
        "seconds": round(time.perf_counter() - began, 2),
    }


def train_seed(documents: Mapping[int, dict[str, Any]], data: Any, space: Space, seed: int, folder: Path) -> None:
    """The trainings of one seed that `FOLDER/seed-SEED.jsonl` has not yet, one line each."""
    import torch

    torch.set_num_threads(1)
    models = folder / f"models-{seed}"
    models.mkdir(parents=True, exist_ok=True)
    for u in data.modalities:
        teacher = space.teacher(u, seed=seed, fold=seed)
        if not (models / trial_id(teacher)).exists():
            one_training(teacher, data, models, models / trial_id(teacher))
    have = {line["setting"] for line in lines_of(folder) if line["seed"] == seed}
    with (folder / f"seed-{seed}.jsonl").open("a") as file:
        for i, document in documents.items():
            if i not in have:
                moved = space.moved(document, seed=seed, fold=seed)
                file.write(json.dumps({"setting": i, "seed": seed, **one_training(moved, data, models)}) + "\n")
                file.flush()


def train_table(name: str, seed: int, work: Path) -> None:
    """The trainings of one seed of a condition."""
    data = clips(name, work)
    space = space_for(data, work)
    documents = dict(enumerate(pool(space)))
    if seed >= SEEDS:
        documents = {i: documents[i] for i in leading(lines_of(work / name))}
    train_seed(documents, data, space, seed, work / name)


def leading(lines: Iterable[Mapping[str, Any]]) -> list[int]:
    """The LEADING settings by their mean on test over SEEDS seeds."""
    tests: dict[int, list[float]] = {}
    for line in lines:
        if line["seed"] < SEEDS:
            tests.setdefault(line["setting"], []).append(line.get("test", 0.0))
    return sorted(tests, key=lambda i: (-np.mean(tests[i]), i))[:LEADING]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The trainings of a condition that are done; a line that a kill has torn is left out."""
    found = []
    for path in sorted(folder.glob("seed-*.jsonl")):
        for text in path.read_text().splitlines():
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
    return found


def train_all(names: Sequence[str], work: Path, jobs: int) -> None:
    """Every training of these conditions that is not there yet, a process a seed."""
    for name in names:
        clips(name, work)
        began = time.perf_counter()
        done = 0
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as processes:
            for seeds in (range(SEEDS), range(SEEDS, SEEDS + MORE)):
                for future in as_completed([processes.submit(train_table, name, s, work) for s in seeds]):
                    future.result()
                    done += 1
                    seconds = time.perf_counter() - began
                    print(f"{name}: {done} of {SEEDS + MORE} seeds, {seconds:.0f} s", file=sys.stderr, flush=True)


def pack(names: Sequence[str], work: Path) -> None:
    """The tables as files of the repository; a condition with trainings left to make is passed over."""
    TABLES.mkdir(exist_ok=True)
    for name in names:
        lines = lines_of(work / name)
        data = clips(name, work)
        documents = pool(space_for(data, work))
        whole = len(documents) * SEEDS + LEADING * MORE
        if len({(line["setting"], line["seed"]) for line in lines}) < whole:
            print(f"{name}: {len(lines)} of {whole} trainings; left out", file=sys.stderr)
            continue
        table = {
            "condition": name,
            "clips": CONDITIONS[name][0],
            "dials": CONDITIONS[name][1],
            "digest": data.digest,
            "modalities": [m.to_dict() for m in data.modalities.values()],
            "folds": [data.part("select", fold).tolist() for fold in range(SEEDS)],
            "settings": documents,
            "trainings": sorted(lines, key=lambda line: (line["setting"], line["seed"])),
        }
        path = TABLES / f"{name}.json.xz"
        fresh = path.with_suffix(".fresh")
        with lzma.open(fresh, "wt", preset=9) as file:
            json.dump(table, file, separators=(",", ":"))
        fresh.rename(path)
        print(f"{path.name}: {len(lines)} trainings, {path.stat().st_size / 1e3:.0f} kB", file=sys.stderr)


class Table(Recorded):
    """A table as a world: the training of the nearest setting, on the seed that stands for the document's fold.

    Args:
        table: as packed.
        order: the seeds of the table by fold: first the search's, then the confirmation's.
    """

    def __init__(self, table: Mapping[str, Any], order: Sequence[int]) -> None:
        settings = table["settings"]
        super().__init__([{**line, "document": settings[line["setting"]]} for line in table["trainings"]])
        self.table, self.order = table, order
        tests: dict[int, dict[int, float]] = {}
        for line in table["trainings"]:
            tests.setdefault(line["setting"], {})[line["seed"]] = line.get("test", 0.0)
        self.tests = tests
        self.leading = [i for i, of in tests.items() if len(of) > SEEDS]

    def curve(self, document: Mapping[str, Any], params: Mapping[str, Any]) -> Curve:
        """See :class:`mmsearch.search.simulate.World`."""
        seed = self.order[document["fold"]]
        return curve_of(document, next(x for x in self._nearest(document) if x["seed"] == seed))

    def setting(self, document: Mapping[str, Any]) -> int:
        """The setting of the pool that stands for a document."""
        return self._nearest(document)[0]["setting"]

    def truth(self, document: Mapping[str, Any]) -> float:
        """The mean on test over the seeds that the replay has not used."""
        setting = self.setting(document)
        return self.mean(setting, [s for s in self.tests[setting] if s not in self.order])

    def ahead(self, a: int, b: int) -> float:
        """What setting `a` is better than `b` in truth, on the seeds that both have."""
        both = [s for s in self.tests[a] if s in self.tests[b] and s not in self.order]
        return self.mean(a, both) - self.mean(b, both)

    def mean(self, setting: int, seeds: Iterable[int]) -> float:
        """The mean on test of a setting over seeds."""
        return float(np.mean([self.tests[setting][s] for s in seeds]))

    def best(self, *methods: str, seeds: Sequence[int] = range(SEEDS)) -> int:
        """The setting with the highest mean on test over seeds, of these methods or of all."""
        of = [i for i, d in enumerate(self.table["settings"]) if not methods or d["method"]["name"] in methods]
        return max(of, key=lambda i: self.mean(i, seeds))

    def best_of_all(self) -> int:
        """The best setting by everything that is known."""
        return max(self.leading, key=lambda i: self.mean(i, self.tests[i]))

    def gain(self) -> float:
        """What the best method gains over joint training: chosen on half of the seeds, judged on the others."""
        gains = []
        for start in (0, 1):
            chosen_on, judged_on = range(start, SEEDS, 2), range(1 - start, SEEDS, 2)
            best, joint = self.best(seeds=chosen_on), self.best(BASELINE, seeds=chosen_on)
            gains.append(self.mean(best, judged_on) - self.mean(joint, judged_on))
        return float(np.mean(gains))


@functools.cache
def load(name: str) -> dict[str, Any]:
    """A packed table."""
    with lzma.open(TABLES / f"{name}.json.xz", "rt") as file:
        return json.load(file)


def swept(
    world: World, table: Mapping[str, Any], seed: int, rows: Callable[[int], np.ndarray]
) -> tuple[Study, Any, float]:
    """A whole sweep in a world: its study, its decision and its cost in joint epochs.

    Args:
        world: what trainings give.
        table: for its modalities and its clips' digest.
        seed: of the search.
        rows: the clips of select on a fold.
    """
    modalities = {m["name"]: Modality(m["name"], m["kind"], tuple(m["shape"])) for m in table["modalities"]}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "space.yaml").write_text(SPACE)
        space = Space.load(Path(folder) / "space.yaml", modalities, data=table["digest"], seed=seed)
    study = Study(space, Journal(None))
    trials = TRIALS_PER_METHOD * len(space.methods)
    search = SearchSource(study, trials=trials, allocation=ALLOCATIONS["equal"]())
    cost = drive(study, Chain({"teachers": TeacherSource(study), "search": search}), world, slots=1).cost
    over = functools.partial(settled, rows=rows, planned=CONFIRMED)
    cost += drive(study, ConfirmSource(study, finalists, seeds=CONFIRMED, settled=over), world, slots=1).cost
    return study, decide(finalists_of(study.records, rows), planned=CONFIRMED), cost


def replay(name: str, number: int) -> dict[str, Any]:
    """One sweep against a table, and what it and the simple rules beside it are worth."""
    table = load(name)
    order = np.random.default_rng([number, len(name)]).permutation(SEEDS)[: 1 + CONFIRMED].tolist()
    world = Table(table, order)
    rows = functools.cache(lambda fold: np.array(table["folds"][order[fold]]))
    study, decision, cost = swept(world, table, number, rows)
    done = [r for r in study.records.values() if r.searched and r.state == "complete" and r.score is not None]
    best = world.best_of_all()

    def regret(method: str | None) -> float:
        among = [r for r in done if method in (None, r.method)]
        if not among:
            return math.nan
        return world.ahead(best, world.setting(max(among, key=lambda r: r.score or 0.0).document))

    whole = sum(line["cost"] * len(line["val"]) for line in table["trainings"] if line["seed"] < SEEDS)
    chosen = world.setting(decision.chosen.config)
    return {
        "condition": name,
        "kind": decision.kind,
        "method": decision.chosen.method,
        "truth": world.truth(decision.chosen.config),
        "regret": world.ahead(best, chosen),
        "known": world.ahead(world.best(seeds=order), chosen),
        "joint": regret("joint"),
        "mmpareto": regret("mmpareto"),
        "argmax": regret(None),
        "gain": world.ahead(chosen, world.best(BASELINE)),
        "none_helps": world.gain() < MARGIN,
        "cost": cost / whole,
    }


class Trained:
    """A world of real trainings on the clips of a condition.

    Args:
        name: of the condition.
        work: folder of the trainings.
    """

    def __init__(self, name: str, work: Path) -> None:
        self.data = clips(name, work)
        self.models = work / name / "models-real"
        self.models.mkdir(parents=True, exist_ok=True)

    def training(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The training of a document; the model of a single modality is kept, since it may teach."""
        keep = self.models / trial_id(dict(document)) if document["method"]["name"] == "unimodal" else None
        return one_training(document, self.data, self.models, keep)

    def curve(self, document: Mapping[str, Any], params: Mapping[str, Any]) -> Curve:
        """See :class:`mmsearch.search.simulate.World`."""
        return curve_of(document, self.training(document))

    def truth(self, document: Mapping[str, Any]) -> float:
        """The mean on test over seeds that neither search nor confirmation has used."""
        space = space_for(self.data, self.models)
        found = []
        for seed in range(1 + CONFIRMED, SEEDS):
            for u in document.get("teachers") or ():
                self.training(space.teacher(u, seed=seed, fold=seed))
            found.append(self.training(space.moved(document, seed=seed, fold=seed)).get("test", 0.0))
        return float(np.mean(found))

    def peaks(self) -> dict[str, float]:
        """Not known."""
        raise NotImplementedError


def curve_of(document: Mapping[str, Any], line: Mapping[str, Any]) -> Curve:
    """A training as the simulator takes it."""
    known, epochs = len(line["val"]), document["epochs"]
    return Curve(
        scores=[*line["val"], *line["val"][-1:] * (epochs - known)],
        cost=line["cost"],
        select=line.get("select", 0.0),
        fails_at=known + 1 if "failed" in line else None,
        at_once=is_ensemble(document),
        right=line.get("right"),
    )


def real(name: str, work: Path) -> tuple[str, bool]:
    """One sweep with every training made, held against the replays: the row, and whether it agrees."""
    import torch

    torch.set_num_threads(1)
    world = Trained(name, work)
    rows = functools.cache(lambda fold: world.data.part("select", fold))
    study, decision, _ = swept(world, load(name), 0, rows)
    confirmed = next(iter(decision.chosen.trial_ids.values()))
    truth = world.truth(study.records[confirmed].document)
    found = [replay(name, number) for number in range(REAL)]
    low, high = np.quantile([f["truth"] for f in found], [0.025, 0.975])
    share = np.mean([f["kind"] == decision.kind for f in found])
    agrees = bool(low - NOISE <= truth <= high + NOISE and share >= RARE)
    row = (
        f"| {name} | {decision.kind} | {share:.0%} | {decision.chosen.label} | {100 * truth:.1f} | "
        f"{100 * low:.1f} to {100 * high:.1f} | {'yes' if agrees else 'NO'} |"
    )
    return row, agrees


def packed(names: Sequence[str]) -> list[str]:
    """The conditions among these whose table is there."""
    return [name for name in names if (TABLES / f"{name}.json.xz").exists()]


def upper(values: Sequence[float]) -> float:
    """The upper end of the 95 % interval of a mean (percentile bootstrap)."""
    x = np.asarray(values)
    return float(np.quantile(x[np.random.default_rng(0).integers(0, len(x), (5000, len(x)))].mean(1), 0.975))


def report(found: Sequence[Mapping[str, Any]]) -> int:
    """The table of the replays; exit status."""
    print(
        "| condition | regret, points | upper bound | at least | joint | MMPareto | argmax | gain over joint "
        "| share of the cost | method | modality | baseline | no clear winner | no method helps |\n|" + "---|" * 14
    )
    names = list(dict.fromkeys(f["condition"] for f in found))
    missed = []
    for name in [*names, None]:
        of = [f for f in found if name in (None, f["condition"])]
        mean = {
            k: 100 * float(np.nanmean([f[k] for f in of]))
            for k in ("regret", "known", "joint", "mmpareto", "argmax", "gain")
        }
        high = 100 * upper([f["regret"] for f in of])
        kinds = [np.mean([f["kind"] == k for f in of]) for k in ("method", "unimodal", "baseline", "no_clear_winner")]
        true = f"{np.mean([f['none_helps'] for f in of]):.0%}" if name is None else "yes" if of[0]["none_helps"] else ""
        cost = float(np.mean([f["cost"] for f in of]))
        cells = [name or "all", f"{mean['regret']:.2f}", f"{high:.2f}"]
        cells += [f"{mean[k]:.2f}" for k in ("known", "joint", "mmpareto", "argmax")]
        cells += [f"{mean['gain']:+.2f}", f"{cost:.0%}"]
        print("| " + " | ".join([*cells, *(f"{k:.0%}" for k in kinds), true]) + " |")
        bound = MEAN_REGRET if name is None else WORST_REGRET
        if high > bound:
            missed.append(f"{name or 'all'}: regret up to {high:.2f} points, at most {bound:g}")
        if cost > COST_SHARE:
            missed.append(f"{name or 'all'}: {cost:.0%} of the table's cost, at most {COST_SHARE:.0%}")
        if name and of[0]["none_helps"] and kinds[0] + kinds[1] > 1 - SAID:
            missed.append(f"{name}: a winner in {kinds[0] + kinds[1]:.0%} of replays where no method helps")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["train", "pack", "replay", "real"])
    parser.add_argument("--work", type=Path, default=Path("runs/tables"), help="folder of the trainings")
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), default=list(CONDITIONS), metavar="NAME")
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    if args.part == "train":
        train_all(args.conditions, args.work, args.jobs)
    elif args.part == "pack":
        pack(args.conditions, args.work)
    elif args.part == "real":
        print("| condition | verdict | replays with it | recommended | its truth, % | of 95 % of replays | agrees |")
        print("|---|---|---|---|---|---|---|", flush=True)
        agree = True
        with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as processes:
            for row, agrees in processes.map(functools.partial(real, work=args.work), packed(args.conditions)):
                print(row, flush=True)
                agree &= agrees
        return 0 if agree else 1
    else:
        tasks = list(itertools.product(packed(args.conditions), range(args.replays)))
        with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as processes:
            return report(list(processes.map(replay, *zip(*tasks, strict=True), chunksize=10)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
