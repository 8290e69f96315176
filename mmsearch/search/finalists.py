"""Finalists: which documents the search hands to the confirmation, and which of them stay in it to the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mmsearch.search.allocation import spread
from mmsearch.search.space import is_ensemble
from mmsearch.search.trials import Records, TrialRecord

REACH = 2.0
"""A method is a finalist where its best score is within so many spreads of the highest."""

FIRST_SEEDS = 2
"""Seeds of every finalist before any is dropped."""

DROP_LEVEL = 0.05
"""One-sided: a finalist is dropped where its gap to the leader would be as large by noise in this share of cases."""

_BASELINES = ("joint", "unimodal", "unimodal_teacher/ensemble")


def group_of(document: Mapping[str, Any]) -> str:
    """What a document stands for among the finalists: its method, with the ensemble of unimodal models apart."""
    return "unimodal_teacher/ensemble" if is_ensemble(document) else document["method"]["name"]


def is_baseline(document: Mapping[str, Any]) -> bool:
    """Whether it is joint training, one modality or the ensemble: always a finalist, never dropped."""
    return group_of(document) in _BASELINES


def finalists(records: Records, reach: float = REACH) -> list[dict[str, Any]]:
    """The documents to be confirmed: the baselines, then the others by score.

    Always the best of `joint`, of `unimodal` and of the ensemble of unimodal models; beside them the best document of
    every other method whose best score is within `reach` spreads of the highest. The spread is that of
    :func:`mmsearch.search.allocation.spread`: what one more trial or another seed may change. Only trials that ran to
    their end count; a tie goes to the one asked first.

    Args:
        records: of a finished search.
        reach: in spreads.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records.values():
        if record.state == "complete" and record.searched and record.score is not None:
            groups.setdefault(group_of(record.document), []).append(record)
    if not groups:
        return []
    scores = {g: [r.score or 0.0 for r in found] for g, found in groups.items()}
    best = {g: max(found, key=lambda r: r.score or 0.0) for g, found in groups.items()}
    bar = max(map(max, scores.values())) - reach * spread(list(scores.values()))
    baselines = [g for g in _BASELINES if g in best]
    others = [g for g in best if g not in _BASELINES and max(scores[g]) >= bar]
    return [best[g].document for g in [*baselines, *sorted(others, key=lambda g: -max(scores[g]))]]


def beaten(scores: Sequence[Mapping[int, float]], level: float = DROP_LEVEL) -> set[int]:
    """Which finalists are behind the leader beyond the noise.

    Differences are paired by seed. The noise is what is left of the scores without the mean of each finalist and of
    each seed, pooled over all finalists (the residual of a randomised block design); the leader is the highest mean.

    Args:
        scores: per finalist the accuracy on select of each seed; one without any is left out of account.
        level: see :data:`DROP_LEVEL`.

    Returns:
        Their positions.
    """
    known = [i for i, s in enumerate(scores) if s]
    seeds = sorted(set.intersection(*(set(scores[i]) for i in known))) if known else []
    if len(known) < 2 or len(seeds) < 2:
        return set()
    y = np.array([[scores[i][seed] for seed in seeds] for i in known])
    mean = y.mean(1)
    residual = y - y.mean(0) - mean[:, None] + y.mean()
    freedom = (len(known) - 1) * (len(seeds) - 1)
    error = math.sqrt(2 * float((residual**2).sum()) / freedom / len(seeds))
    behind = mean.max() - mean > float(stats.t.isf(level, freedom)) * error
    return {i for i, out in zip(known, behind, strict=True) if out}
