"""What draws the next setting of a method: Optuna's samplers, and two that Optuna keeps in a study that lives on.

The study that they see is built anew from the journal at every draw. CMA-ES is therefore told its generations again,
and a Sobol sequence is entered at the number of the draw.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr, ndtri

from mmsearch.knobs import Prior

STARTUP = 6
"""Trials of a method before its sampler models them; the paper's settings count."""

SAMPLERS = ("tpe", "random", "gp", "cmaes", "qmc")

Ranges = dict[str, BaseDistribution]
_LEARNT = (TrialState.COMPLETE, TrialState.PRUNED)


class Known(optuna.storages.InMemoryStorage):
    """A storage in memory that shows trials which are there already, without copying them.

    Args:
        trials: in order; those that are asked of the study come after them.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._known = trials

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The known trials, then those that were asked."""
        known = [t for t in self._known if states is None or t.state in states]
        return known + super().get_all_trials(study_id, deepcopy, states)

    get_best_trial = optuna.storages.BaseStorage.get_best_trial


def make_sampler(
    name: str, trials: Sequence[FrozenTrial], priors: Mapping[str, Prior], *, seed: int, sequence: int, position: int
) -> BaseSampler:
    """The sampler for one draw.

    Before :data:`STARTUP` trials have ended with a score, every sampler but `qmc` draws from the priors, and uniformly
    where there is none. After that a knob that only some settings have is drawn by TPE in `gp` and `cmaes`, and so is
    a choice in `cmaes`; so is everything in `gp` until as many trials ran to their end.

    Args:
        name: one of :data:`SAMPLERS`.
        trials: those of the method so far.
        priors: by the name of the parameter.
        seed: of this draw.
        sequence: the seed of the method's Sobol sequence.
        position: of this draw in it; below 0 for a random draw instead.
    """
    random = _Random(priors, seed)
    if name == "qmc" and position >= 0:
        return _Sobol(priors, random, sequence, position)
    if name in ("random", "qmc") or sum(t.state in _LEARNT for t in trials) < STARTUP:
        return random
    tpe = TPESampler(n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=True, seed=seed)
    if name == "gp":
        return GPSampler(n_startup_trials=STARTUP, independent_sampler=tpe, seed=seed, warn_independent_sampling=False)
    return _CmaEs(priors, tpe, seed) if name == "cmaes" else tpe


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its remarks on every use of `group`, every study and a package that would speed `gp` up."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


class _Random(RandomSampler):
    """Draws from the priors, and uniformly where there is none."""

    def __init__(self, priors: Mapping[str, Prior], seed: int) -> None:
        super().__init__(seed=seed)
        self._priors = priors
        self._generator = np.random.default_rng(seed)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name not in self._priors:
            return super().sample_independent(study, trial, param_name, param_distribution)
        return _value(
            param_distribution, _quantile(self._generator.random(), self._priors[param_name], param_distribution)
        )


class _Within(BaseSampler):
    """Draws some parameters together and leaves the others to another sampler."""

    def __init__(self, priors: Mapping[str, Prior], others: BaseSampler) -> None:
        self._priors = priors
        self._others = others

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    @staticmethod
    def _trials(study: optuna.Study, states: tuple[TrialState, ...] | None = None) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False, states=states)


class _Sobol(_Within):
    """One point of a scrambled Sobol sequence over every parameter that a trial of the method has had."""

    def __init__(self, priors: Mapping[str, Prior], others: BaseSampler, sequence: int, position: int) -> None:
        super().__init__(priors, others)
        self._sequence = sequence
        self._position = position

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Ranges:
        return {name: d for t in self._trials(study) for name, d in t.distributions.items()}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Ranges) -> dict[str, Any]:
        if not search_space:
            return {}
        from scipy.stats.qmc import Sobol

        engine = Sobol(len(search_space), rng=np.random.default_rng(self._sequence))
        if self._position:
            engine.fast_forward(self._position)
        shares = zip(search_space.items(), engine.random(1)[0], strict=True)
        return {
            name: _value(d, _quantile(float(u), self._priors[name], d) if name in self._priors else float(u))
            for (name, d), u in shares
        }


class _CmaEs(_Within):
    """CMA-ES over the numbers that every trial of the method has.

    A generation is as many trials as CMA-ES asks for, in the order in which they were asked, whoever drew them. It
    looks at ranks alone: trials that ran to their end come before stopped ones, and these by how far they came.
    """

    def __init__(self, priors: Mapping[str, Prior], others: BaseSampler, seed: int) -> None:
        super().__init__(priors, others)
        self._seed = seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Ranges:
        first, *others = self._trials(study, _LEARNT)
        common = [n for n in first.distributions if all(n in t.distributions for t in others)]
        space = {n: first.distributions[n] for n in common}
        return {n: d for n, d in space.items() if not (isinstance(d, CategoricalDistribution) or d.single())}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Ranges) -> dict[str, Any]:
        if not search_space:
            return {}
        import cmaes

        priors = [self._priors.get(n) for n in search_space]
        mean = [_share(d, p.at) if p else 0.5 for p, d in zip(priors, search_space.values(), strict=True)]
        spread = np.array([p.spread if p else 1 / 6 for p in priors])
        optimizer = cmaes.CMA(
            mean=np.array(mean),
            sigma=float(spread.min()),
            cov=np.diag((spread / spread.min()) ** 2),
            bounds=np.array([[0.0, 1.0]] * len(mean)),
            seed=self._seed % 2**31,
            n_max_resampling=10 * len(mean),
        )
        trials = self._trials(study, _LEARNT)
        size = optimizer.population_size
        for i in range(0, len(trials) - size + 1, size):
            generation = sorted(trials[i : i + size], key=_merit, reverse=True)
            points = [np.array([_share(d, t.params[n]) for n, d in search_space.items()]) for t in generation]
            optimizer.tell([(x, float(rank)) for rank, x in enumerate(points)])
        return {n: _value(d, float(u)) for (n, d), u in zip(search_space.items(), optimizer.ask(), strict=True)}


def _merit(trial: FrozenTrial) -> tuple[bool, int, float]:
    return trial.state == TrialState.COMPLETE, trial.last_step or 0, trial.value or 0.0


def _ends(distribution: BaseDistribution) -> tuple[float, float]:
    """The ends of a range of numbers, on the log scale where it has one; a whole number is as wide as any other."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
    ends = np.array([distribution.low - half, distribution.high + half])
    low, high = np.log(ends) if distribution.log else ends
    return float(low), float(high)


def _share(distribution: BaseDistribution, value: float) -> float:
    """How far along its range a number lies, from 0 to 1."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _ends(distribution)
    return float(((np.log(value) if distribution.log else value) - low) / (high - low))


def _value(distribution: BaseDistribution, share: float) -> Any:
    """The inverse of :func:`_share`; of a choice the one that the share falls on."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[min(int(share * len(distribution.choices)), len(distribution.choices) - 1)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _ends(distribution)
    value = low + share * (high - low)
    value = float(np.exp(value)) if distribution.log else value
    value = min(max(value, distribution.low), distribution.high)
    return round(value) if isinstance(distribution, IntDistribution) else value


def _quantile(u: float, prior: Prior, distribution: BaseDistribution) -> float:
    """The quantile `u` of a prior, as a share of the range: a normal distribution that the range cuts off."""
    at = _share(distribution, prior.at)
    low, high = ndtr((0 - at) / prior.spread), ndtr((1 - at) / prior.spread)
    return float(np.clip(at + prior.spread * ndtri(low + u * (high - low)), 0, 1))
