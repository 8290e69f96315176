"""What finished sweeps say about a dataset that has had none: a gain for every method, and how sure that is.

A case is a dataset with its descriptors and the gains of methods over joint training. mmsearch knows some from the
start (`scripts/bench_knowledge.py`), and every finished sweep on this machine adds one. A Gaussian process a method
maps descriptors to gains; far from all cases it falls back to the method's mean gain, and says so.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.recommend.decision import BASELINE, UNIMODAL, method_label
from mmsearch.recommend.evidence import config_of
from mmsearch.search.space import Space
from mmsearch.search.trials import Records

FORMAT = 1
SHIPPED = "knowledge.json"
LEAST_CASES = 12
"""With fewer cases of a method nothing is predicted of it."""
NOISE = 0.005
"""Standard error of a gain, in accuracy, below which none is believed to be: other seeds, another draw of clips."""
DRAWS = 4000
FAR = 1.5
"""A dataset is unlike all cases where the nearest one is so many times as far as cases are from each other at most."""


@dataclasses.dataclass(frozen=True)
class Descriptors:
    """What is known of a dataset after a survey of minutes, or after its sweep.

    Attributes:
        classes: how many.
        clips: of the development part.
        missing: share of its clips that lack a modality.
        alone: accuracy of each modality trained alone.
        joint: accuracy of joint training.
        ensemble: accuracy of the mean of the predictions of the modalities trained alone.
        gap: per modality, what a probe of its encoder inside joint training falls short of one trained alone; None
            where it was not measured.
    """

    classes: int
    clips: int
    missing: float
    alone: dict[str, float]
    joint: float
    ensemble: float
    gap: dict[str, float | None]

    def vector(self) -> np.ndarray:
        """What cases are compared by, float64 `[9]`; accuracies as skill, (accuracy - chance) / (1 - chance)."""
        chance = 1 / self.classes
        alone = sorted((self._skill(a) for a in self.alone.values()), reverse=True)
        joint, ensemble = self._skill(self.joint), self._skill(self.ensemble)
        gaps = [g / (1 - chance) for g in self.gap.values() if g is not None]
        return np.array(
            [
                np.log2(self.classes),
                np.log10(self.clips / self.classes),
                self.missing,
                alone[0],
                alone[0] - alone[-1],
                joint - alone[0],
                ensemble - joint,
                max(gaps, default=0.0),
                min(gaps, default=0.0),
            ]
        )

    def _skill(self, accuracy: float) -> float:
        chance = 1 / self.classes
        return (accuracy - chance) / (1 - chance)


@dataclasses.dataclass(frozen=True)
class Gain:
    """Of a method on a dataset.

    Attributes:
        mean: accuracy less that of joint training.
        se: standard error of the mean.
        cost: of a training in joint epochs over its epochs, shared teachers included; None where unknown.
        params: of the setting that was confirmed, flat as in a search; None for the paper's.
    """

    mean: float
    se: float
    cost: float | None = None
    params: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A dataset with its descriptors and what methods have gained on it.

    Attributes:
        name: of the dataset.
        digest: of its clips, labels and split.
        origin: where it is from.
        descriptors: of the dataset.
        gains: by label (:func:`label_of`), without joint training, whose gain is 0.
    """

    name: str
    digest: str
    origin: str
    descriptors: Descriptors
    gains: dict[str, Gain]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Case:
        """The inverse of :meth:`to_dict`."""
        return cls(
            content["name"],
            content["digest"],
            content["origin"],
            Descriptors(**content["descriptors"]),
            {label: Gain(**gain) for label, gain in content["gains"].items()},
        )

    @classmethod
    def of(cls, rec: Mapping[str, Any], missing: float, trials: Records) -> Case | None:
        """From the content of a `recommendation.json`; None where a descriptor cannot be had of it.

        Args:
            rec: with its diagnosis.
            missing: share of the development clips that lack a modality.
            trials: of the run.
        """
        reference = rec["decision"]["reference"]
        finalists = {f["label"]: f for f in rec["finalists"]}
        ensemble = next((f for f in rec["finalists"] if f["config"]["method"].get("teacher") == "ume"), None)
        alone = {m["modality"]: m["alone"] for m in rec["modalities"]}
        data = rec["provenance"]["dataset"]
        if ensemble is None or None in alone.values():
            return None
        joint = (rec.get("diagnosis") or {}).get("models", {}).get("joint", {}).get("modalities", {})
        descriptors = Descriptors(
            classes=len(data["classes"]),
            clips=sum(data["parts"][p] for p in ("train", "val", "select")),
            missing=missing,
            alone=alone,
            joint=finalists[reference]["select"]["mean"],
            ensemble=ensemble["select"]["mean"],
            gap={u: joint.get(u, {}).get("gap") for u in alone},
        )
        searched = [(config_of(t.document), t.params) for t in trials.values() if t.searched]
        gains: dict[str, Gain] = {}
        for c in rec["comparisons"]:
            if c["b"] != reference or c["mean"] is None or len(c["values"]) < 2:
                continue
            f = finalists[c["a"]]
            label = label_of(f["config"]["method"])
            se = float(np.std(c["values"], ddof=1) / np.sqrt(len(c["values"])))
            cost = (f["cost_joint_epochs"] + f["cost_shared_joint_epochs"]) / f["config"]["epochs"]
            params = next((p for config, p in searched if config == f["config"]), None)
            if label != BASELINE and (label not in gains or c["mean"] > gains[label].mean):
                gains[label] = Gain(c["mean"], se, cost, params)
        return cls(data["name"], data["digest"], "sweep", descriptors, gains)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is expected of a method.

    Attributes:
        label: of the method.
        gain, sd: over joint training, in accuracy, and its standard deviation.
        p_best: chance that no other method gains more.
        cost: of a training, as of :class:`Gain`; the median of the cases.
        cases: that know the method.
    """

    label: str
    gain: float
    sd: float
    p_best: float
    cost: float | None
    cases: int


@dataclasses.dataclass(frozen=True)
class Advice:
    """A recommendation before any sweep.

    Attributes:
        order: what is expected of every method and of joint training, the best first; where `unsure`, the fixed order:
            by mean gain over all cases.
        unsure: why nothing is predicted of this dataset, else None.
        nearest: the most similar cases, the nearest first, with their distance in standard deviations a descriptor.
        cases: how many are known.
    """

    order: list[Expected]
    unsure: str | None
    nearest: list[tuple[Case, float]]
    cases: int

    @property
    def best(self) -> Expected:
        """The first of the order."""
        return self.order[0]


class Knowledge:
    """Cases, and what they say.

    Args:
        cases: of several with one digest the last counts.
    """

    def __init__(self, cases: Iterable[Case]) -> None:
        self.cases = list({c.digest: c for c in cases}.values())

    @classmethod
    def load(cls) -> Knowledge:
        """What mmsearch knows from the start, then what sweeps on this machine have added.

        Raises:
            MMSearchError: a case that cannot be read, with its file.
        """
        shipped = json.loads((importlib.resources.files("mmsearch.recommend") / SHIPPED).read_text(encoding="utf-8"))
        cases = [Case.from_dict(c) for c in shipped["cases"]]
        for path in sorted(folder().glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                cases += [Case.from_dict(content["case"])] if content["format"] == FORMAT else []
            except (OSError, ValueError, KeyError, TypeError) as e:
                raise MMSearchError(
                    f"{path}: cannot be read as a case ({e}); remove it, or run its sweep again"
                ) from None
        return cls(cases)

    def without(self, digest: str) -> Knowledge:
        """All cases but that of one dataset."""
        return Knowledge(c for c in self.cases if c.digest != digest)

    def advise(self, of: Descriptors, labels: Collection[str] | None = None) -> Advice:
        """What is expected of every method on a dataset.

        Args:
            of: its descriptors.
            labels: the methods that may be chosen; None: all that a case knows. Joint training always may.
        """
        known = sorted({label for c in self.cases for label in c.gains if labels is None or label in labels})
        counted = {label: [c for c in self.cases if label in c.gains] for label in known}
        unsure = None
        nearest: list[tuple[Case, float]] = []
        places: dict[str, np.ndarray] = {}
        if len(self.cases) < LEAST_CASES:
            unsure = f"{len(self.cases)} cases are known, and {LEAST_CASES} are needed"
        else:
            x = np.array([c.descriptors.vector() for c in self.cases])
            centre, scale = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1.0)
            z = (x - centre) / scale
            mine = (of.vector() - centre) / scale
            places = {c.digest: place for c, place in zip(self.cases, z, strict=True)}
            away = np.sqrt(((z - mine) ** 2).mean(1))
            nearest = [(self.cases[i], float(away[i])) for i in np.argsort(away, kind="stable")[:3]]
            if nearest[0][1] > FAR * _spacing(z):
                unsure = "no case that is known resembles this dataset"
        found: dict[str, tuple[float, float]] = {BASELINE: (0.0, 0.0)}
        for label, cases in counted.items():
            y = np.array([c.gains[label].mean for c in cases])
            if unsure is None and len(cases) >= LEAST_CASES:
                se = np.array([c.gains[label].se for c in cases])
                found[label] = regress(np.array([places[c.digest] for c in cases]), y, se, mine)
            else:
                found[label] = float(y.mean()), float(y.std(ddof=1)) if len(y) > 1 else float("inf")
        return Advice(_ranked(found, counted), unsure, nearest, len(self.cases))


def _spacing(z: np.ndarray) -> float:
    """The largest distance of a case to the nearest other one, the outermost twentieth left out."""
    away = np.sqrt(((z[:, None] - z[None]) ** 2).mean(-1))
    np.fill_diagonal(away, np.inf)
    return float(np.quantile(away.min(1), 0.95))


def regress(x: np.ndarray, y: np.ndarray, se: np.ndarray, at: np.ndarray) -> tuple[float, float]:
    """The mean and the standard deviation at one point of a Gaussian process through noisy values.

    A linear and a smooth part, weighed by the marginal likelihood; no part of it is chosen by hand.

    Args:
        x: `[n, k]`, standardised.
        y: `[n]`.
        se: `[n]`, standard errors of y.
        at: `[k]`.
    """
    centre, scale = float(y.mean()), float(y.std()) or 1.0
    kernel = ConstantKernel(0.5, (1e-3, 10)) * RBF(3.0, (0.5, 50)) + ConstantKernel(0.1, (1e-4, 10)) * DotProduct(
        0.1, (1e-3, 10)
    )
    noise = (np.hypot(se, NOISE) / scale) ** 2
    model = GaussianProcessRegressor(kernel, alpha=noise, n_restarts_optimizer=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, (y - centre) / scale)
    mean, sd = model.predict(at[None], return_std=True)
    return centre + scale * float(mean[0]), scale * float(sd[0])


def _ranked(found: Mapping[str, tuple[float, float]], counted: Mapping[str, Sequence[Case]]) -> list[Expected]:
    """Every method by its expected gain, joint training first among equals."""
    labels = sorted(found, key=lambda m: (-found[m][0], m != BASELINE, m))
    mean = np.array([found[m][0] for m in labels])
    sd = np.array([min(found[m][1], 1.0) for m in labels])
    draws = np.random.default_rng(0).normal(mean, sd, (DRAWS, len(labels)))
    chance = np.bincount(draws.argmax(1), minlength=len(labels)) / DRAWS
    order = []
    for i, label in enumerate(labels):
        cases = counted.get(label, ())
        costs = [c for case in cases if (c := case.gains[label].cost) is not None]
        cost = 1.0 if label == BASELINE else float(np.median(costs)) if costs else None
        order.append(Expected(label, float(mean[i]), float(sd[i]), float(chance[i]), cost, len(cases)))
    return order


def label_of(method: Mapping[str, Any]) -> str:
    """A method as cases name it: `uniform`, `unimodal_teacher (ume)`; whichever modality alone is `unimodal`."""
    return UNIMODAL if method["name"] == UNIMODAL else method_label(method)


def labels_of(space: Space) -> set[str]:
    """The methods of a space, as cases name them."""
    return {label_of(d["method"]) for m in space.methods for d in space.paper_documents(m)}


def folder() -> Path:
    """Where sweeps leave their cases: `$MMSEARCH_KNOWLEDGE`, else `~/.local/share/mmsearch/knowledge`."""
    given = os.environ.get("MMSEARCH_KNOWLEDGE")
    return Path(given) if given else Path.home() / ".local" / "share" / "mmsearch" / "knowledge"


def remember(case: Case) -> Path:
    """Adds a case to those of this machine, or replaces that of the same dataset.

    Raises:
        MMSearchError: the folder cannot be written to.
    """
    path = folder() / f"{case.digest}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MMSearchError(f"{path.parent}: cannot be made: {e.strerror}") from e
    write_text(path, json.dumps({"format": FORMAT, "case": case.to_dict()}, indent=1) + "\n")
    return path
