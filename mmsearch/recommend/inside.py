"""What is inside the models that a run's confirmation has left: every figure of the diagnosis of one model."""

from __future__ import annotations

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
from mmsearch.recommend.evidence import mean
from mmsearch.recommend.measure import Reading, agreement, read, robustness, some
from mmsearch.search.job import weights_dir
from mmsearch.search.trials import Records, TrialRecord
from mmsearch.training import Predictor
from mmsearch.training.checkpoint import has_state
from mmsearch.training.evaluation import pick_device

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


class Models:
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
            self._hits[key] = encoder_hits(self.reading(trial, "fit"), self.reading(trial, "select"), u)
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
            "overconfidence": bounded(clip_mean(probabilities.max(1) - hit, self.group(index))),
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

    def over(
        self, trials: Sequence[TrialRecord], others: Sequence[TrialRecord], u: str, seed: int
    ) -> dict[str, Any] | None:
        """What a probe of the encoder gets right beyond that of another model's on the same seed and clips.

        Args:
            trials: of the model, all seeds.
            others: of the other one.
            u: the modality.
            seed: of which the interval over clips is.

        Returns:
            `{"mean", "ci95", "seeds": [{"seed", "gain"}]}`; None where that seed of either is not there.
        """
        found: dict[int, np.ndarray] = {}
        for trial in trials:
            same = [t for t in others if t.document["seed"] == trial.document["seed"]]
            if same and all(has_state(weights_dir(self.run_dir, t.trial_id)) for t in (trial, same[0])):
                mine, other = self.probe_hits(trial, u), self.probe_hits(same[0], u)
                if mine is not None and other is not None:
                    found[trial.document["seed"]] = mine.astype(float) - other
        if seed not in found:
            return None
        select = next(self.reading(t, "select") for t in trials if t.document["seed"] == seed)
        gain = clip_mean(found[seed], self.group(select.batch.index.numpy()[select.present(u)]))
        seeds = [{"seed": s, "gain": float(d.mean())} for s, d in found.items()]
        return None if gain is None else {"mean": gain.mean, "ci95": [gain.low, gain.high], "seeds": seeds}

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


def probe_hits(fit: np.ndarray, fit_label: np.ndarray, held: np.ndarray, label: np.ndarray) -> np.ndarray | None:
    """What a probe fitted to some features gets right of others; None where there are too few clips to fit one."""
    if len(held) == 0 or (np.unique(fit_label, return_counts=True)[1] > 1).sum() < 2:
        return None
    return np.asarray(probe(fit, fit_label).predict(held) == label)


def encoder_hits(fit: Reading, judged: Reading, u: str) -> np.ndarray | None:
    """As :func:`probe_hits`, of a modality's encoder on the clips that have the modality."""
    here, there = fit.present(u), judged.present(u)
    return probe_hits(fit.features(u)[here], fit.label[here], judged.features(u)[there], judged.label[there])


def _leads(shares: Mapping[str, np.ndarray], group: np.ndarray | None) -> list[dict[str, Any]]:
    """For every pair of modalities the difference of their shares of the accuracy, the larger share first."""
    ranked = sorted(shares, key=lambda u: -shares[u].mean())
    pairs = [(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]
    return [{"a": a, "b": b, **(bounded(clip_mean(shares[a] - shares[b], group)) or {})} for a, b in pairs]


def _curve(curve: list[tuple[float | None, np.ndarray]], group: np.ndarray | None) -> list[dict[str, Any]]:
    (level, clean), *worse = curve
    drops = [clip_mean(clean.astype(float) - hit, group) for _, hit in worse]
    return [
        {"level": level, "accuracy": float(clean.mean()), "drop": None},
        *(
            {"level": level, "accuracy": float(hit.mean()), "drop": bounded(drop)}
            for (level, hit), drop in zip(worse, drops, strict=True)
        ),
    ]


def _confusion(select: Reading, classes: int) -> list[list[int]]:
    """Clips by true (row) and predicted class (column)."""
    if classes > CLASSES_SHOWN:
        return []
    predicted = select.output.logits.argmax(1).numpy()
    return confusion_matrix(select.label, predicted, labels=range(classes)).tolist()  # type: ignore[no-any-return]


def bounded(m: ClipMean | None) -> dict[str, Any] | None:
    """As JSON: `{"mean", "ci95": [low, high]}`."""
    return None if m is None else {"mean": m.mean, "ci95": [m.low, m.high]}


def _where(values: np.ndarray, there: np.ndarray) -> float | None:
    return float(values[there].mean()) if there.any() else None
