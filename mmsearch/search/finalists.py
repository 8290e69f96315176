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
"""Seeds from which on anybody looks: the confirmation may end, noise is pooled, and an estimate may give a verdict."""

DROP_LEVEL = 0.2
"""One-sided: a finalist is dropped where its gap to the leader would be as large by noise in this share of cases."""

_ROUNDING = 1e-9

_BASELINES = ("joint", "unimodal", "unimodal_teacher/ensemble")


def group_of(document: Mapping[str, Any]) -> str:
    """What a document stands for among the finalists: its method, with the ensemble of unimodal models apart."""
    return "unimodal_teacher/ensemble" if is_ensemble(document) else document["method"]["name"]


def baselines(documents: Sequence[Mapping[str, Any]]) -> set[int]:
    """The positions of joint training, one modality and the ensemble among finalists: these are never dropped.

    Of several documents of joint training, one a fusion, it is the first.
    """
    groups = [group_of(d) for d in documents]
    return {groups.index(g) for g in _BASELINES if g in groups}


def finalists(records: Records) -> list[dict[str, Any]]:
    """The documents to be confirmed: the best of every method, the baselines first, then by score; then fusions.

    The ensemble of unimodal models counts as a method of its own. With a handful of trials a method, the best score
    tells of luck with settings as much as of the method, so that no bar on it keeps the best method in; it is the
    confirmation that drops, as soon as it can tell. A trial that was stopped stands for a method only where none ran
    to its end, the one that came furthest first; a failed one never does. A tie goes to the one asked first.

    Which fusion is a question of its own: of joint training, and of the method with the highest score beside the
    baselines, the best trial with every other fusion follows, where one ran to its end.

    Args:
        records: of a finished search.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records.values():
        if record.state in ("complete", "pruned") and record.searched and record.score is not None:
            groups.setdefault(group_of(record.document), []).append(record)
    best = {g: max(found, key=_merit) for g, found in groups.items()}
    first = [g for g in _BASELINES if g in best]
    others = sorted((g for g in best if g not in _BASELINES), key=lambda g: _merit(best[g]), reverse=True)
    chosen = [best[g] for g in [*first, *others]]
    for g in [*(g for g in first if g == "joint"), *others[:1]]:
        fusions: dict[str, list[TrialRecord]] = {}
        for record in groups[g]:
            if record.state == "complete" and record.fusion != best[g].fusion:
                fusions.setdefault(record.fusion, []).append(record)
        chosen += [max(found, key=_merit) for found in fusions.values()]
    return [record.document for record in chosen]


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
