"""Finalists: which documents the search hands to the confirmation, and which of them stay in it to the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mmsearch.search.blocks import fit
from mmsearch.search.space import is_ensemble
from mmsearch.search.trials import Records, TrialRecord

FIRST_SEEDS = 1
"""Seeds of every finalist before any is dropped."""

FEW_SEEDS = 3
"""Seeds after which the confirmation ends where joint training beats everything else."""

DROP_LEVEL = 0.2
"""One-sided: a finalist is dropped where its gap to the leader would be as large by noise in this share of cases."""

_ROUNDING = 1e-9

_BASELINES = ("joint", "unimodal", "unimodal_teacher/ensemble")


def group_of(document: Mapping[str, Any]) -> str:
    """What a document stands for among the finalists: its method, with the ensemble of unimodal models apart."""
    return "unimodal_teacher/ensemble" if is_ensemble(document) else document["method"]["name"]


def is_baseline(document: Mapping[str, Any]) -> bool:
    """Whether it is joint training, one modality or the ensemble: always a finalist, never dropped."""
    return group_of(document) in _BASELINES


def finalists(records: Records) -> list[dict[str, Any]]:
    """The documents to be confirmed: the best of every method, the baselines first, then by score.

    The ensemble of unimodal models counts as a method of its own. With a handful of trials a method, the best score
    tells of luck with settings as much as of the method, so that no bar on it keeps the best method in; it is the
    confirmation that drops, as soon as it can tell. A trial that was stopped stands for a method only where none ran
    to its end, the one that came furthest first; a failed one never does. A tie goes to the one asked first.

    Args:
        records: of a finished search.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records.values():
        if record.state in ("complete", "pruned") and record.searched and record.score is not None:
            groups.setdefault(group_of(record.document), []).append(record)
    best = {g: max(found, key=_merit) for g, found in groups.items()}
    baselines = [g for g in _BASELINES if g in best]
    others = sorted((g for g in best if g not in _BASELINES), key=lambda g: _merit(best[g]), reverse=True)
    return [best[g].document for g in [*baselines, *others]]


def _merit(record: TrialRecord) -> tuple[bool, int, float]:
    return record.state == "complete", 0 if record.state == "complete" else record.epoch, record.score or 0.0


def beaten(scores: Sequence[Mapping[int, float]], level: float = DROP_LEVEL) -> set[int]:
    """Which finalists are behind the leader beyond the noise, by :func:`mmsearch.search.blocks.fit`.

    Args:
        scores: per finalist the accuracy of each seed; one without any is left out of account. What the search scored
            may stand for one seed more: it is too high by selection, but that shifts all finalists alike.
        level: see :data:`DROP_LEVEL`.

    Returns:
        Their positions.
    """
    blocks = fit(scores)
    if blocks is None:
        return set()
    leader = int(np.nanargmax(blocks.level))
    bar = float(stats.t.isf(level, blocks.freedom))
    behind = blocks.level[leader] - blocks.level
    return {i for i in range(len(scores)) if behind[i] > bar * blocks.error(leader, i) + _ROUNDING}
