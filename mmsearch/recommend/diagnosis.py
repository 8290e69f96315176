"""The diagnosis of a finished sweep: what joint training and the recommended model made of the modalities.

It is measured on the models that the confirmation left in the run's folder, on the *select* part of the fold that each
was trained on; nothing is trained but linear probes, and the test part is not touched. What it costs is bounded by the
number of clips that are looked at.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix

from mmsearch.data import ClipData
from mmsearch.diagnostics.calibration import expected_calibration_error, reliability
from mmsearch.diagnostics.clipwise import ClipMean, clip_mean
from mmsearch.diagnostics.probes import probe
from mmsearch.diagnostics.separability import separability
from mmsearch.diagnostics.shapley import imbalance
from mmsearch.diagnostics.valuation import accuracy_shares, clip_values
from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.methods.unimodal_teacher import ensemble, paired_features_help
from mmsearch.recommend import card, diagnosis_words, report
from mmsearch.recommend.evidence import mean
from mmsearch.recommend.measure import Reading, agreement, read, robustness, some
from mmsearch.search.job import clips, log_file, trial_dir, weights_dir
from mmsearch.search.journal import read_events
from mmsearch.search.trials import Records, TrialRecord, records
from mmsearch.training import Predictor
from mmsearch.training.checkpoint import has_state
from mmsearch.training.evaluation import pick_device

FILE = "diagnosis.json"
FORMAT = 1
SELECT_CLIPS = 2000
"""At most so many clips of select are looked at."""
TRAIN_CLIPS = 2000
"""At most so many clips of train fit a probe."""
ROBUSTNESS_CLIPS = 400
"""At most so many clips of select are made worse, at every level of every dial."""
GRADIENT_BATCHES = 8
CLASSES_SHOWN = 100
"""A confusion matrix of more classes than that is left out."""

Say = Callable[[str], None]


def diagnose(
    run_dir: Path,
    recommendation: Mapping[str, Any],
    data: ClipData,
    *,
    say: Say = lambda what: None,
) -> dict[str, Any]:
    """The diagnosis of a run, from what lies in its folder.

    Args:
        run_dir: the run's folder, with the models of its confirmation.
        recommendation: of the run.
        data: its clips.
        say: told what is being looked at.

    Returns:
        `part`; `models` by role, `joint` and, where it is another one, `chosen` (docs/diagnosis.md names what there is
        of each); `ume_umt`; `clips` that the chosen model fixes and breaks; `sentences`; `cost`. A figure that cannot
        be had is None. A model that is no longer there is left out, and a sentence says so.

    Raises:
        MMSearchError: no journal.
    """
    started = time.perf_counter()
    run = _Run(run_dir, records(read_events(run_dir)), data, say)
    models: dict[str, Any] = {}
    missing = []
    for role, (label, trials) in _subjects(recommendation, run.records).items():
        trial = _median(trials)
        if trial is None or not has_state(weights_dir(run_dir, trial.trial_id)):
            missing.append(f"{label} is not diagnosed: no confirmed model of it is left in the run's folder.")
            continue
        models[role] = run.model(label, trial, trials)
    found: dict[str, Any] = {
        "format": FORMAT,
        "part": "select",
        "models": models,
        "ume_umt": _rule(run, models),
        "clips": _fixed_and_broken(run, recommendation, models),
        "cost": {
            "clips": max((m["clips"] for m in models.values()), default=0),
            "train_clips": max((m["train_clips"] for m in models.values()), default=0),
            "robustness_clips": max((m["robustness_clips"] for m in models.values()), default=0),
            "trial_seconds": recommendation["provenance"]["run_cost"]["trial_seconds"],
        },
    }
    found["cost"]["seconds"] = time.perf_counter() - started
    about = [*missing, *([diagnosis_words.cost(found["cost"])] if models else [])]
    found["sentences"] = [*diagnosis_words.sentences(found), *({"about": "Diagnosis", "text": text} for text in about)]
    return found


def diagnose_run(run_dir: str) -> dict[str, Any]:
    """As :func:`diagnose`, of the recommendation that a run's folder has; for a worker of the cluster.

    Where it fails, that is the diagnosis, and the traceback is in `RUN/logs/diagnosis.log`.
    """
    place = Path(run_dir)
    try:
        return diagnose(place, card.read(place), clips(str(place / "data.json")))
    except Exception as error:
        log = log_file(place, "diagnosis")
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        return failed(str(error) if isinstance(error, MMSearchError) else f"{type(error).__name__}: {error}")


def attach(
    run_dir: Path,
    recommendation: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    make: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """The recommendation with its diagnosis, written together with its report.

    What a diagnosis needs may be gone, or be too much for the machine: a sweep does not fail with it.

    Args:
        run_dir: the run's folder.
        recommendation: as it was written there.
        events: the journal's.
        make: gives the diagnosis, where the folder has none of these models.
    """
    found = recorded(run_dir, recommendation)
    if found is None:
        try:
            found = make()
        except Exception as error:
            lines = str(error).strip().splitlines()
            found = failed(lines[-1] if lines else type(error).__name__)
        if found["models"]:
            write(run_dir, found)
    whole = {**recommendation, "diagnosis": found}
    card.write(run_dir, whole)
    report.write(run_dir, whole, events)
    return whole


def failed(reason: str) -> dict[str, Any]:
    """A diagnosis that came to nothing, as one line with its reason."""
    return {
        "format": FORMAT,
        "part": "select",
        "models": {},
        "ume_umt": None,
        "clips": {"fixed": [], "broken": []},
        "cost": None,
        "sentences": [{"about": "Diagnosis", "text": f"It failed and is not shown: {reason}"}],
    }


def write(run_dir: Path, diagnosis: Mapping[str, Any]) -> None:
    """`RUN/diagnosis.json`, replaced as a whole."""
    write_text(run_dir / FILE, json.dumps(diagnosis, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def recorded(run_dir: Path, recommendation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The diagnosis in the run's folder, where there is one of this recommendation's models, else None."""
    try:
        found = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        models = {role: m["trial_id"] for role, m in found["models"].items()}
        current = found["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    wanted = {
        role: trial.trial_id
        for role, (_, trials) in _subjects(recommendation, records(read_events(run_dir))).items()
        if (trial := _median(trials)) is not None
    }
    return found if current and models == wanted else None


def _subjects(rec: Mapping[str, Any], found: Records) -> dict[str, tuple[str, list[TrialRecord]]]:
    """By role the label and the confirmed trials: joint training, and the chosen one where it is another."""
    d = rec["decision"]
    roles = {"joint": d["reference"]} | ({"chosen": d["label"]} if d["label"] != d["reference"] else {})
    finalists = {f["label"]: f for f in rec["finalists"]}
    return {role: (label, [found[i] for i in finalists[label]["trial_ids"]]) for role, label in roles.items()}


def _median(trials: list[TrialRecord]) -> TrialRecord | None:
    """The trial of the median accuracy on select, of an even number the lower one; the first seed among equals."""
    ranked = sorted((t for t in trials if t.select), key=lambda t: (t.select["accuracy"], t.document["seed"]))  # type: ignore[index]
    return ranked[(len(ranked) - 1) // 2] if ranked else None


class _Run:
    """A run's models, each read once.

    Args:
        run_dir: the run's folder.
        found: its trials.
        data: its clips.
        say: told what is being looked at.
    """

    def __init__(self, run_dir: Path, found: Records, data: ClipData, say: Say) -> None:
        self.run_dir = run_dir
        self.records = found
        self.data = data
        self._device = pick_device("auto")
        self._say = say
        self._read: dict[tuple[str, str], Reading] = {}
        self._hits: dict[tuple[str, str], np.ndarray | None] = {}

    def rows(self, trial: TrialRecord, part: str) -> np.ndarray:
        """The rows of a part that are looked at; of train only those that every model of the fold may have seen."""
        most = TRAIN_CLIPS if part == "fit" else SELECT_CLIPS
        return some(self.data.part(part, trial.document["fold"]), most, part)

    def predictor(self, trial: TrialRecord) -> Predictor:
        """Its model."""
        return Predictor.load(weights_dir(self.run_dir, trial.trial_id), self._device)

    def reading(self, trial: TrialRecord, part: str) -> Reading:
        """What its model says of `fit` or `select`."""
        key = (trial.trial_id, part)
        if key not in self._read:
            rows = self.rows(trial, part)
            self._read[key] = read(self.predictor(trial), self.data, rows, at_once(trial), hide=part == "select")
        return self._read[key]

    def alone(self, trial: TrialRecord, u: str) -> TrialRecord | None:
        """The trial of the modality alone on the same seed and clips, the same encoder if there is one."""
        if trial.method == "unimodal":
            return None
        same = [
            r
            for r in self.records.values()
            if (r.method, r.state, r.document["method"].get("modality")) == ("unimodal", "complete", u)
            and all(r.document[k] == trial.document[k] for k in ("seed", "fold"))
            and has_state(weights_dir(self.run_dir, r.trial_id))
        ]
        return min(
            same,
            key=lambda r: (not _same_encoder(r, trial, u), r.document["held"] != trial.document["held"], r.trial_id),
            default=None,
        )

    def probe_hits(self, trial: TrialRecord, u: str) -> np.ndarray | None:
        """What a probe of the modality's feature gets right, bool, of the clips of select that have it."""
        key = (trial.trial_id, u)
        if key not in self._hits:
            fit, select = self.reading(trial, "fit"), self.reading(trial, "select")
            train, judged = fit.present(u), select.present(u)
            self._hits[key] = _probe_hits(
                fit.features(u)[train], fit.label[train], select.features(u)[judged], select.label[judged]
            )
        return self._hits[key]

    def group(self, batch_index: np.ndarray) -> np.ndarray | None:
        """Which clips belong together."""
        return None if self.data.group is None else self.data.group[batch_index]

    def model(self, label: str, trial: TrialRecord, trials: Sequence[TrialRecord]) -> dict[str, Any]:
        """All there is of one model; `trials` are all seeds of it."""
        self._say(f"{label}: predictions")
        predictor, select = self.predictor(trial), self.reading(trial, "select")
        U = list(predictor.modalities)
        index = select.batch.index.numpy()
        probabilities = F.softmax(select.output.logits.double(), dim=1).numpy()
        hit = select.hits[frozenset(U)].numpy()
        shares = accuracy_shares(select.hits, U)
        phi = {u: float(x.mean()) for u, x in shares.items()}
        uneven = imbalance(phi)
        bins = reliability(probabilities, select.label)
        values = clip_values(select.hits, select.batch.present, U)
        self._say(f"{label}: gradients")
        fit = self.data.part("fit" if trial.document["held"] else "train", trial.document["fold"])
        cosines = agreement(predictor, self.data, fit, at_once(trial), batches=GRADIENT_BATCHES)
        modalities = {}
        for u in U:
            self._say(f"{label}: the {u} encoder")
            modalities[u] = {
                **self._encoder(trial, trials, u),
                "shapley": phi[u],
                "gradient_agreement": mean(cosines[u]),
                "gradient_agreements": cosines[u],
            }
        self._say(f"{label}: worse clips")
        worse = some(self.data.part("select", trial.document["fold"]), ROBUSTNESS_CLIPS, "robustness")
        curves = robustness(predictor, self.data, worse, at_once(trial))
        return {
            "label": label,
            "trial_id": trial.trial_id,
            "seed": trial.document["seed"],
            "accuracy": float(hit.mean()),
            "modalities": modalities,
            "imbalance": uneven.relative,
            "imbalance_points": uneven.absolute,
            "leads": _leads({u: x.numpy() for u, x in shares.items()}, self.group(index)),
            "without_any": float(select.hits[frozenset()].double().mean()),
            "ece": expected_calibration_error(bins),
            "overconfidence": _bounded(clip_mean(probabilities.max(1) - hit, self.group(index))),
            "reliability": bins,
            "robustness": {dial: _curve(curve, self.group(worse)) for dial, curve in curves.items()},
            "missing": {u: float(select.hits[frozenset(U) - {u}].double().mean()) for u in U},
            "confusion": _confusion(select, len(self.data.classes)),
            "valuation": {u: _where(values[u].numpy(), select.present(u)) for u in U},
            "clips": len(index),
            "select_clips": len(self.data.part("select", trial.document["fold"])),
            "train_clips": len(self.rows(trial, "fit")),
            "robustness_clips": len(worse),
        }

    def _encoder(self, trial: TrialRecord, trials: Sequence[TrialRecord], u: str) -> dict[str, Any]:
        """What an encoder has learned, and what the same one has learned alone; the gap of every seed."""
        select = self.reading(trial, "select")
        there = select.present(u)
        own, probed = select.own_hits(u), self.probe_hits(trial, u)
        teacher = self.alone(trial, u)
        alone = None if teacher is None else self.probe_hits(teacher, u)
        same = teacher is not None and np.array_equal(
            select.features(u)[there], self.reading(teacher, "select").features(u)[there]
        )
        d = self._short(trial, u)
        gap = None if d is None else clip_mean(d, self.group(select.batch.index.numpy()[there]))
        if same:
            gap = ClipMean(0.0, 0.0, 0.0)
        seeds = {
            t.document["seed"]: self._short(t, u) for t in trials if has_state(weights_dir(self.run_dir, t.trial_id))
        }
        few = there.sum() == 0
        return {
            "own": None if few else float(own.mean()),
            "probe": None if probed is None else float(probed.mean()),
            "alone": None if alone is None else float(alone.mean()),
            "alone_trial_id": None if teacher is None else teacher.trial_id,
            "same_weights": same,
            "same_encoder": teacher is not None and _same_encoder(teacher, trial, u),
            "gap": None if gap is None else gap.mean,
            "gap_ci95": [None, None] if gap is None else [gap.low, gap.high],
            "gaps": [{"seed": seed, "gap": float(x.mean())} for seed, x in seeds.items() if x is not None],
            "separability": None
            if few
            else separability(select.features(u)[there], select.label[there], len(self.data.classes)),
        }

    def _short(self, trial: TrialRecord, u: str) -> np.ndarray | None:
        """Clip by clip what the probe of the encoder falls short of that of the one trained alone: 1, 0 or -1."""
        teacher = self.alone(trial, u)
        probed = None if teacher is None else self.probe_hits(trial, u)
        alone = None if teacher is None else self.probe_hits(teacher, u)
        return None if probed is None or alone is None else alone.astype(float) - probed


def at_once(trial: TrialRecord) -> int:
    """Clips a forward or backward pass: no more than the training had in memory."""
    return min(trial.micro_batch or trial.document["batch_size"], 128)


def _same_encoder(a: TrialRecord, b: TrialRecord, u: str) -> bool:
    return bool(a.document["encoders"].get(u) == b.document["encoders"].get(u))


def _probe_hits(fit: np.ndarray, fit_label: np.ndarray, held: np.ndarray, label: np.ndarray) -> np.ndarray | None:
    """What a probe fitted to some features gets right of others; None where there are too few clips to fit one."""
    if len(held) == 0 or (np.unique(fit_label, return_counts=True)[1] > 1).sum() < 2:
        return None
    return np.asarray(probe(fit, fit_label).predict(held) == label)


def _leads(shares: Mapping[str, np.ndarray], group: np.ndarray | None) -> list[dict[str, Any]]:
    """For every pair of modalities the difference of their shares of the accuracy, the larger share first."""
    ranked = sorted(shares, key=lambda u: -shares[u].mean())
    pairs = [(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]
    return [{"a": a, "b": b, **(_bounded(clip_mean(shares[a] - shares[b], group)) or {})} for a, b in pairs]


def _curve(curve: list[tuple[float | None, np.ndarray]], group: np.ndarray | None) -> list[dict[str, Any]]:
    (level, clean), *worse = curve
    drops = [clip_mean(clean.astype(float) - hit, group) for _, hit in worse]
    return [
        {"level": level, "accuracy": float(clean.mean()), "drop": None},
        *(
            {"level": level, "accuracy": float(hit.mean()), "drop": _bounded(drop)}
            for (level, hit), drop in zip(worse, drops, strict=True)
        ),
    ]


def _confusion(select: Reading, classes: int) -> list[list[int]]:
    """Clips by true (row) and predicted class (column)."""
    if classes > CLASSES_SHOWN:
        return []
    predicted = select.output.logits.argmax(1).numpy()
    return confusion_matrix(select.label, predicted, labels=range(classes)).tolist()  # type: ignore[no-any-return]


def _bounded(m: ClipMean | None) -> dict[str, Any] | None:
    return None if m is None else {"mean": m.mean, "ci95": [m.low, m.high]}


def _where(values: np.ndarray, there: np.ndarray) -> float | None:
    return float(values[there].mean()) if there.any() else None


def _rule(run: _Run, models: Mapping[str, Any]) -> dict[str, Any] | None:
    """The rule of Du et al. (ICML 2023) on the modalities' own models of the chosen (else joint) model's seed.

    Features that occur together matter where a classifier on the features of all of them beats the mean of their
    predictions by more than the standard error of the paired difference.
    """
    fused = [run.records[models[role]["trial_id"]] for role in ("chosen", "joint") if role in models]
    trial = next((t for t in fused if t.method != "unimodal"), None)
    if trial is None or len(run.data.modalities) < 2:
        return None
    teachers = {u: run.alone(trial, u) for u in run.data.modalities}
    if any(t is None for t in teachers.values()):
        return None
    fit, select = ({u: run.reading(t, part) for u, t in teachers.items() if t} for part in ("fit", "select"))
    first = next(iter(select.values()))
    train = np.concatenate([r.features(u) for u, r in fit.items()], axis=1)
    judged = np.concatenate([r.features(u) for u, r in select.items()], axis=1)
    probed = _probe_hits(train, next(iter(fit.values())).label, judged, first.label)
    if probed is None:
        return None
    here = {u: r.batch.present[u] for u, r in select.items()}
    z = ensemble({u: r.output.unimodal[u] for u, r in select.items()}, "prob", None, here)
    averaged = (z.argmax(1) == first.batch.label).numpy()
    umt, se = paired_features_help(probed, averaged, 0.0)
    return {
        "rule": "umt" if umt else "ume",
        "acc_ume": float(averaged.mean()),
        "acc_probe": float(probed.mean()),
        "se": se,
        "lead": _bounded(clip_mean(probed.astype(float) - averaged, run.group(first.batch.index.numpy()))),
        "seed": trial.document["seed"],
        "trial_ids": {u: t.trial_id for u, t in teachers.items() if t},
    }


def _fixed_and_broken(run: _Run, rec: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """The clips of select that the chosen model gets right and joint training of the same seed does not, and the other
    way round, from what the confirmation kept of both.
    """
    nothing: dict[str, Any] = {"fixed": [], "broken": [], "of": 0, "seed": None, "change": None}
    if "chosen" not in models:
        return nothing
    chosen = run.records[models["chosen"]["trial_id"]]
    reference = next(f for f in rec["finalists"] if f["label"] == rec["decision"]["reference"])
    same = [i for i in reference["trial_ids"] if run.records[i].document["seed"] == chosen.document["seed"]]
    right = [_kept_hits(run.run_dir, i) for i in (chosen.trial_id, *same)]
    if len(right) < 2 or right[0] is None or right[1] is None or right[0].keys() != right[1].keys():
        return nothing
    mine, joint = right[0], right[1]
    rows = sorted(mine)
    d = np.array([mine[i] - joint[i] for i in rows], float)
    return {
        "fixed": [run.data.clip_ids[i] for i in rows if mine[i] > joint[i]],
        "broken": [run.data.clip_ids[i] for i in rows if mine[i] < joint[i]],
        "of": len(rows),
        "seed": chosen.document["seed"],
        "change": _bounded(clip_mean(d, run.group(np.array(rows)))),
    }


def _kept_hits(run_dir: Path, trial_id: str) -> dict[int, int] | None:
    """Per row of select whether a confirmed model was right; None where the file is not there."""
    try:
        kept = json.loads((trial_dir(run_dir, trial_id) / "select.json").read_text(encoding="utf-8"))
        return {i: int(p == y) for i, p, y in zip(kept["index"], kept["predicted"], kept["label"], strict=True)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
