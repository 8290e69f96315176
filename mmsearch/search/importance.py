"""Which knobs decide the score: Optuna's functional ANOVA over a search's complete trials, from the journal alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sklearn.ensemble import RandomForestRegressor

from mmsearch.encoders import ENCODERS
from mmsearch.fusion import FUSIONS
from mmsearch.knobs import Knob, knobs_of
from mmsearch.methods import METHODS
from mmsearch.search.samplers import quiet
from mmsearch.search.trials import TrialRecord
from mmsearch.training.optimizers import OPTIMIZERS

ENOUGH = 10
"""Complete trials below which nothing is said: a forest finds a pattern in any handful of points."""

TREES = 64


@dataclasses.dataclass(frozen=True)
class Importance:
    """What the knobs of a method explain of its trials' scores.

    Attributes:
        trials: complete trials of the search.
        shares: per knob the share of the variance that it explains by itself, the largest first; interactions are in
            none, so they add up to 1 at most. Empty with fewer than :data:`ENOUGH` trials or nothing that varies.
        unseen: R² of such a forest on trials that it has not seen (out of bag): at 0 or below it has learned noise,
            and the shares say nothing. None where there are no shares.
    """

    trials: int
    shares: dict[str, float]
    unseen: float | None

    @property
    def told(self) -> bool:
        """Whether the shares are more than noise."""
        return self.unseen is not None and self.unseen > 0


def importances(trials: Sequence[TrialRecord], *, seed: int = 0) -> dict[str, Importance]:
    """The importance of knobs by method, from complete trials of the search.

    Args:
        trials: of a run.
        seed: of the forests.
    """
    done = _complete(trials)
    return {m: _importance([r for r in done if r.method == m], {}, seed) for m in dict.fromkeys(r.method for r in done)}


def shared_importance(trials: Sequence[TrialRecord], *, seed: int = 0) -> Importance:
    """The importance of what most methods choose alike, such as the optimiser's knobs and the fusion.

    Scores count from the mean of their method, so that a good method does not make its knobs look good. Trials that
    lack a knob which most have, such as an ensemble's without an optimiser, are left out.
    """
    done = _complete(trials)
    times = Counter(name for r in done for name in r.params)
    common = [name for name, n in times.items() if 2 * n > len(done)]
    done = [r for r in done if all(name in r.params for name in common)]
    scores: dict[str, list[float]] = {}
    for r in done:
        scores.setdefault(r.method, []).append(r.score or 0.0)
    level = {m: float(np.mean(found)) for m, found in scores.items() if len(found) > 1}
    return _importance([r for r in done if r.method in level], level, seed)


def _complete(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [r for r in trials if r.searched and r.state == "complete" and r.score is not None and r.params]


def _importance(trials: Sequence[TrialRecord], level: Mapping[str, float], seed: int) -> Importance:
    common = [name for name in (trials[0].params if trials else {}) if all(name in r.params for r in trials)]
    ranges = {name: _range(name, [r.params[name] for r in trials]) for name in common}
    varied = {name: found for name, found in ranges.items() if found is not None}
    values = [(r.score or 0.0) - level.get(r.method, 0.0) for r in trials]
    if len(trials) < ENOUGH or not varied or np.ptp(values) == 0:
        return Importance(len(trials), {}, None)
    with quiet():
        study = optuna.create_study(direction="maximize")
        for r, value in zip(trials, values, strict=True):
            params = {name: r.params[name] for name in varied}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=varied, value=value))
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    return Importance(len(trials), dict(shares), _unseen(trials, varied, values, seed))


def _unseen(
    trials: Sequence[TrialRecord], ranges: Mapping[str, BaseDistribution], values: Sequence[float], seed: int
) -> float:
    rows = [[_position(ranges[name], r.params[name]) for name in ranges] for r in trials]
    forest = RandomForestRegressor(n_estimators=4 * TREES, oob_score=True, random_state=seed)
    return float(forest.fit(rows, values).oob_score_)


def _position(found: BaseDistribution, value: Any) -> float:
    if isinstance(found, CategoricalDistribution):
        return float(found.to_internal_repr(value))
    return float(np.log(value)) if getattr(found, "log", False) else float(value)


def _range(name: str, values: Sequence[Any]) -> BaseDistribution | None:
    """The range that was tried, on the knob's own scale; None of a knob that always had one value."""
    if len(set(values)) < 2:
        return None
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    knob = declared(name)
    low, high = min(numbers), max(numbers)
    log = bool(knob and knob.log) and low > 0
    if all(isinstance(v, int) for v in numbers):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def declared(name: str) -> Knob | None:
    """The declaration behind a parameter of the search, such as `sgd.lr` or `encoder.sound.spectrogram.n_mels`."""
    prefix, _, knob = name.partition(":")[0].rpartition(".")
    component = prefix.rpartition(".")[2]
    for registry in (ENCODERS,) if prefix.startswith("encoder.") else (METHODS, FUSIONS, OPTIMIZERS):
        if component in registry:
            return knobs_of(registry.get(component)).get(knob)
    return None
