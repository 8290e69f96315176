"""What a run's journal and its models' answers on select say of why: by epoch, by class, by clip."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.search.job import trial_dir

Curves = dict[int, list[float]]
"""By epoch, the values of the trainings that got there."""

_ANSWERS = ("index", "label", "predicted")


@dataclasses.dataclass(frozen=True)
class ClipChange:
    """A clip that the recommended model and joint training answer differently over the seeds.

    Attributes:
        row: of the dataset.
        label: index of the true class.
        joint, chosen: what each answered, by seed on which exactly one of the two was right.
        seeds: on which the clip was in select.
    """

    row: int
    label: int
    joint: list[int]
    chosen: list[int]
    seeds: int


@dataclasses.dataclass(frozen=True)
class Answers:
    """What joint training and the recommended model answered on select, seed by seed.

    Attributes:
        confusion: per model (`joint`, `chosen`) how often a true class (row) got each answer (column), over seeds.
        seeds: that both have, whose clips are compared.
        fixed, broken: clips that the recommended model got right and joint training wrong on more seeds than the
            other way round, and the reverse; those with the most such seeds first.
        errors: answers of joint training that were wrong, over these seeds.
        fixes, breaks: wrong answers turned right and right ones turned wrong, over these seeds.
    """

    confusion: dict[str, np.ndarray]
    seeds: int = 0
    fixed: list[ClipChange] = dataclasses.field(default_factory=list)
    broken: list[ClipChange] = dataclasses.field(default_factory=list)
    errors: int = 0
    fixes: int = 0
    breaks: int = 0


def metrics_by_epoch(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, dict[str, float]]]:
    """Per trial and epoch what was measured; an epoch that was repeated after a loss counts once, the last time."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for e in events:
        if e["event"] == "epoch":
            numbers = {k: v for k, v in (e.get("metrics") or {}).items() if v is not None}
            found.setdefault(e["trial_id"], {})[e["epoch"]] = numbers
    return found


def curves_of(metrics: Mapping[str, Mapping[int, Mapping[str, float]]], trial_ids: Sequence[str], name: str) -> Curves:
    """One metric of several trainings, by epoch."""
    found: Curves = {}
    for trial_id in trial_ids:
        for epoch, numbers in metrics.get(trial_id, {}).items():
            if name in numbers:
                found.setdefault(epoch, []).append(numbers[name])
    return dict(sorted(found.items()))


def signals(
    metrics: Mapping[str, Mapping[int, Mapping[str, float]]], trial_ids: Sequence[str], method: str
) -> dict[str, dict[str, Curves]]:
    """What a method logs of itself: by signal and, where it is one's, by modality (else an empty name)."""
    prefix = f"{method}/"
    names = dict.fromkeys(
        name
        for t in trial_ids
        for numbers in metrics.get(t, {}).values()
        for name in numbers
        if name.startswith(prefix)
    )
    found: dict[str, dict[str, Curves]] = {}
    for name in names:
        signal, _, modality = name.removeprefix(prefix).partition("/")
        found.setdefault(signal, {})[modality] = curves_of(metrics, trial_ids, name)
    return found


def answers(run_dir: Path, joint: Mapping[int, str], chosen: Mapping[int, str], classes: int) -> Answers | None:
    """The answers on select that lie beside the confirmation's models.

    Args:
        run_dir: the run's folder.
        joint, chosen: trial ids by seed; the chosen one's may be joint training's own.
        classes: how many.

    Returns:
        None where the folder has none of joint training's, such as in a copy without models.
    """
    told = {who: _told(run_dir, trials) for who, trials in (("joint", joint), ("chosen", chosen))}
    if not told["joint"]:
        return None
    confusion = {who: _confusion(found.values(), classes) for who, found in told.items() if found}
    if dict(joint) == dict(chosen) or not told["chosen"]:
        return Answers({"joint": confusion["joint"]})
    common = sorted(told["joint"].keys() & told["chosen"].keys())
    clips: dict[int, ClipChange] = {}
    errors = 0
    for seed in common:
        a, b = told["joint"][seed], told["chosen"][seed]
        second = dict(zip(b["index"], b["predicted"], strict=True))
        for row, label, first in zip(a["index"], a["label"], a["predicted"], strict=True):
            if row not in second:
                continue
            errors += first != label
            known = clips.get(row) or ClipChange(row, label, [], [], 0)
            if (first == label) != (second[row] == label):
                known.joint.append(first)
                known.chosen.append(second[row])
            clips[row] = dataclasses.replace(known, seeds=known.seeds + 1)
    balance = {c.row: sum(said == c.label for said in c.chosen) * 2 - len(c.chosen) for c in clips.values()}
    fixed = sorted((c for c in clips.values() if balance[c.row] > 0), key=lambda c: (-balance[c.row], c.row))
    broken = sorted((c for c in clips.values() if balance[c.row] < 0), key=lambda c: (balance[c.row], c.row))
    right = [said == c.label for c in clips.values() for said in c.chosen]
    return Answers(confusion, len(common), fixed, broken, errors, sum(right), len(right) - sum(right))


def _told(run_dir: Path, trials: Mapping[int, str]) -> dict[int, dict[str, list[int]]]:
    found = {}
    for seed, trial_id in trials.items():
        try:
            told = json.loads((trial_dir(run_dir, trial_id) / "select.json").read_text(encoding="utf-8"))
            found[seed] = {key: told[key] for key in _ANSWERS}
        except (OSError, ValueError, KeyError):
            continue
    return found


def _confusion(told: Iterable[Mapping[str, Sequence[int]]], classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), int)
    for answered in told:
        np.add.at(matrix, (answered["label"], answered["predicted"]), 1)
    return matrix


def clip_names(run_dir: Path) -> list[str] | None:
    """The clips' names by row, from the run's `data.json`; None where that is not there or was resampled."""
    try:
        document = json.loads((run_dir / "data.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if document.get("quality") is not None:
        return None
    return [str(name) for name in document.get("clip_id", [])]
