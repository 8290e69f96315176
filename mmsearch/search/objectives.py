"""Several objectives at once: what each trial reached, and which trials nothing betters in all of them.

The sampler goes on optimising accuracy on val alone. Optuna ignores intermediate values of a study with several
objectives, so that stopping would have nothing to compare; and every method's floor and fair stopping are defined
by accuracy. The front is drawn afterwards, from the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmsearch.errors import MMSearchError, nearest
from mmsearch.search.trials import TrialRecord

OBJECTIVES = {
    "accuracy": "accuracy on val",
    "worst_modality": "accuracy on val of the worst modality's own prediction",
    "cost": "joint epochs of one training, teachers included",
    "size": "parameters of the model",
}
"""What can be weighed, and what each means."""

MINIMISED = frozenset({"cost", "size"})

DEFAULT = ("accuracy", "cost")


def check(names: Iterable[str]) -> None:
    """Raises for an objective that is not known.

    Raises:
        MMSearchError: with the nearest name.
    """
    for name in names:
        if name not in OBJECTIVES:
            raise MMSearchError(f"--objectives: unknown objective {name!r}{nearest(name, OBJECTIVES)}")


def measured(record: TrialRecord, records: Mapping[str, TrialRecord]) -> dict[str, float]:
    """The objectives of a trial that are known.

    A model that reads only some of the modalities has no worst modality: it says nothing of the others.

    Args:
        record: of a trial that has ended.
        records: all, for the cost of its teachers.
    """
    own = [record.metrics.get(f"val/accuracy/{u}") for u in record.document["encoders"]]
    teachers = [records[t].cost_joint_epochs for t in record.document.get("teachers", {}).values() if t in records]
    found = {
        "accuracy": record.score,
        "worst_modality": None if None in own else min(a for a in own if a is not None),
        "cost": record.cost_joint_epochs + sum(teachers),
        "size": record.metrics.get("parameters"),
    }
    return {name: value for name, value in found.items() if value is not None}


def front(records: Mapping[str, TrialRecord], objectives: Sequence[str] = DEFAULT) -> list[dict[str, Any]]:
    """The Pareto front of the search's complete trials, the best in the first objective first.

    A trial is on it where no other one is at least as good in every objective and better in one. Of trials that are
    equal in all of them the one asked first stands for the rest; a trial in which one was not measured is left out.

    Args:
        records: of a run.
        objectives: which, of :data:`OBJECTIVES`.

    Returns:
        A list of `{"trial_id", "method", "fusion", "objectives": {name: value}}`.
    """
    points: dict[tuple[float, ...], tuple[TrialRecord, dict[str, float]]] = {}
    for record in records.values():
        if record.searched and record.state == "complete":
            known = measured(record, records)
            if all(name in known for name in objectives):
                gain = tuple(-known[n] if n in MINIMISED else known[n] for n in objectives)
                points.setdefault(gain, (record, {n: known[n] for n in objectives}))
    best = [p for p in points if not any(q != p and all(a >= b for a, b in zip(q, p, strict=True)) for q in points)]
    return [
        {"trial_id": r.trial_id, "method": r.method, "fusion": r.fusion, "objectives": values}
        for r, values in (points[p] for p in sorted(best, reverse=True))
    ]
