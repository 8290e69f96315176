"""What a run's trials say: finalists with their seeds, modalities alone and together, the run's cost."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmsearch.recommend.decision import BASELINE, UNIMODAL, Decision, Finalist, decide
from mmsearch.search.trials import TrialRecord

_PER_SEED = ("seed", "fold", "teachers")
"""What differs between the seeds of one finalist; teachers are retrained on each seed's split."""

Rows = Callable[[int], np.ndarray]
"""The rows of the clips of select on a fold."""


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is there; None of nothing."""
    found = [v for v in values if v is not None]
    return sum(found) / len(found) if found else None


def config_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the seeds of one finalist have in common."""
    return {k: v for k, v in document.items() if k not in _PER_SEED}


def finalists_of(records: Mapping[str, TrialRecord], rows: Rows | None = None) -> list[Finalist]:
    """The configurations confirmed on fresh seeds, best on select first; those without a finished seed are left out.

    A trial counts as a confirmation by having been evaluated on select; a single modality may have been asked as the
    teacher of another finalist. One that was asked on fewer seeds than joint training has been dropped.

    Args:
        records: of a run.
        rows: the clips of select on a fold; None where clips are not to be told apart.
    """
    groups: dict[str, list[TrialRecord]] = {}
    select: dict[str, float] = {}
    asked: Counter[str] = Counter()
    for r in records.values():
        config = json.dumps(config_of(r.document), sort_keys=True)
        asked[config] += r.stage == "confirm"
        if r.state == "complete" and r.select:
            groups.setdefault(config, []).append(r)
            select[r.trial_id] = float(r.select["accuracy"])
    full = max((asked[key] for key, trials in groups.items() if trials[0].method == BASELINE), default=0)
    found: list[Finalist] = []
    for key, trials in groups.items():
        trials.sort(key=lambda r: r.document["seed"])
        found.append(
            Finalist(
                config=json.loads(key),
                trial_ids={r.document["seed"]: r.trial_id for r in trials},
                select={r.document["seed"]: select[r.trial_id] for r in trials},
                test={r.document["seed"]: float(r.test["accuracy"]) for r in trials if r.test},
                cost_joint_epochs=mean(r.cost_joint_epochs for r in trials) or 0.0,
                cost_shared_joint_epochs=mean(_of_teachers(r, records, "cost_joint_epochs") for r in trials) or 0.0,
                seconds=mean(r.seconds for r in trials) or 0.0,
                seconds_shared=mean(_of_teachers(r, records, "seconds") for r in trials) or 0.0,
                dropped=asked[key] < full,
                right={r.document["seed"]: right for r in trials if (right := _right(r, rows)) is not None},
            )
        )
    return sorted(found, key=lambda f: (-f.mean, f.label))


def _right(trial: TrialRecord, rows: Rows | None) -> tuple[np.ndarray, np.ndarray] | None:
    """The clips of select and whether a confirmation was right on each; None where that was not kept."""
    packed = (trial.select or {}).get("right")
    if rows is None or packed is None:
        return None
    clips = rows(trial.document["fold"])
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8), count=len(clips))
    return clips, bits.astype(bool)


def settled(
    records: Mapping[str, TrialRecord],
    left: Sequence[Mapping[str, Any]],
    seeds: Collection[int],
    rows: Rows | None,
    **decided: Any,
) -> bool:
    """Whether a confirmation may end, by what these seeds say (:attr:`Decision.settled`).

    Args:
        records: of a run.
        left: documents of the finalists that were not dropped.
        seeds: those that are complete.
        rows: as of :func:`finalists_of`.
        decided: as of :func:`~mmsearch.recommend.decision.decide`.
    """
    whole = {i: r for i, r in records.items() if r.searched or r.document["seed"] in seeds}
    kept = [config_of(d) for d in left]
    found = [dataclasses.replace(f, dropped=f.config not in kept) for f in finalists_of(whole, rows)]
    return any(f.method == BASELINE for f in found) and decide(found, **decided).settled


def _of_teachers(trial: TrialRecord, records: Mapping[str, TrialRecord], what: str) -> float:
    teachers = trial.document.get("teachers") or {}
    return sum(getattr(records[t], what) for t in teachers.values() if t in records)


def labels_of(finalists: Sequence[Finalist]) -> dict[int, str]:
    """A distinct label of each finalist, by `id`; the second of the same method and fusion gets `#2`."""
    seen: Counter[str] = Counter()
    labels = {}
    for f in finalists:
        seen[f.label] += 1
        labels[id(f)] = f.label if seen[f.label] == 1 else f"{f.label} #{seen[f.label]}"
    return labels


def failed_finalists(records: Mapping[str, TrialRecord]) -> list[str]:
    """One sentence for each method that lost confirmation seeds."""
    asked: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for r in records.values():
        if not r.searched:
            asked[f"{r.method} · {r.fusion}"] += 1
            failed[f"{r.method} · {r.fusion}"] += r.state == "failed"
    return [
        f"{name}: {n} of {asked[name]} confirmation trainings failed and are not counted."
        for name, n in failed.items()
        if n
    ]


def modality_evidence(
    records: Mapping[str, TrialRecord], modalities: Sequence[str], decision: Decision
) -> list[dict[str, Any]]:
    """Each modality's accuracy on val: trained alone, and its own prediction inside joint and inside the chosen method.

    Returns:
        A list of `{"modality", "alone", "joint", "chosen"}`; None where it was not measured.
    """
    reference = [records[t] for t in decision.reference.trial_ids.values()]
    chosen = [records[t] for t in decision.chosen.trial_ids.values()]
    if decision.chosen is decision.reference or decision.kind == "unimodal":
        chosen = []

    def inside(trials: Sequence[TrialRecord], modality: str) -> float | None:
        return mean((r.metrics or {}).get(f"val/accuracy/{modality}") for r in trials)

    def alone(modality: str) -> float | None:
        trials = [
            r
            for r in records.values()
            if r.method == UNIMODAL and r.state == "complete" and r.document["method"].get("modality") == modality
        ]
        return mean(r.score for r in [r for r in trials if not r.searched] or trials)

    return [
        {"modality": m, "alone": alone(m), "joint": inside(reference, m), "chosen": inside(chosen, m)}
        for m in modalities
    ]


def run_cost(records: Mapping[str, TrialRecord]) -> dict[str, Any]:
    """What the whole run cost, and how its trials ended."""
    states = Counter(r.state for r in records.values())
    return {
        "trials": len(records),
        "states": dict(sorted(states.items())),
        "joint_epochs": sum(r.cost_joint_epochs or 0.0 for r in records.values()),
        "trial_seconds": sum(r.seconds or 0.0 for r in records.values()),
        "search_trials_per_method": dict(sorted(Counter(r.method for r in records.values() if r.searched).items())),
    }
