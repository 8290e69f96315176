"""Sweeps without training: learning curves with known truth, run through the real study, stopping and allocation.

A :class:`World` says what a document's training would look like. :func:`drive` runs a source of trials against it,
several at a time, in simulated time; nothing but the training is left out. :class:`Synthetic` is a world drawn from a
family of problems: how the methods differ, how late they act, how noisy seeds are, what an epoch costs, how often one
fails.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mmsearch.errors import MMSearchError
from mmsearch.knobs import Knob
from mmsearch.search.sources import FINISHED, WAIT, Source
from mmsearch.search.space import Space, is_ensemble
from mmsearch.search.study import Study
from mmsearch.training import trial_id

CHANCE = 0.1
"""The accuracy before the first epoch."""

_PARTS = ("val", "select")


@dataclasses.dataclass(frozen=True)
class Curve:
    """What a training would report.

    Attributes:
        scores: on val, after every epoch.
        cost: of an epoch, in joint epochs.
        select: the accuracy on select of the final model.
        fails_at: the epoch in which it fails; None: it does not.
        at_once: whether nothing is trained and only the end is reported.
        right: clip by clip, whether the final model is right on select, as a trial packs it; None: not known.
    """

    scores: list[float]
    cost: float
    select: float
    fails_at: int | None = None
    at_once: bool = False
    right: str | None = None


class World(Protocol):
    """What would come of training a document."""

    def curve(self, document: Mapping[str, Any], params: Mapping[str, Any]) -> Curve:
        """The learning curve of a document, a pure function of it.

        Args:
            document: resolved.
            params: the flat parameters it was suggested with; empty for a confirmation.
        """
        ...

    def truth(self, document: Mapping[str, Any]) -> float:
        """The expected final accuracy over seeds."""
        ...

    def peaks(self) -> dict[str, float]:
        """By method the truth of its best setting."""
        ...


@dataclasses.dataclass
class Spent:
    """What a simulated sweep has cost.

    Attributes:
        seconds: simulated time, with an epoch of joint training as the second.
        cost: joint epochs over all trials.
    """

    seconds: float = 0.0
    cost: float = 0.0


def drive(study: Study, source: Source, world: World, *, slots: int = 4, budget: float = math.inf) -> Spent:
    """Runs everything that a source has to ask, `slots` trials at once.

    Args:
        study: with its journal, usually one in memory.
        source: what to run.
        world: what the trainings would give.
        slots: trials at once.
        budget: joint epochs after which nothing more is asked; what runs is finished.

    Returns:
        What it cost.
    """
    spent = Spent()
    queue: list[tuple[float, int, str]] = []
    curves: dict[str, Curve] = {}
    turn = 0

    def begin(identity: str) -> None:
        nonlocal turn
        record = study.records[identity]
        curves[identity] = world.curve(record.document, record.params)
        study.started(identity, record.epoch)
        heapq.heappush(queue, (spent.seconds + curves[identity].cost, turn, identity))
        turn += 1

    again = [r.trial_id for r in study.unfinished()]
    while True:
        while len(queue) < slots and spent.cost < budget:
            if again:
                begin(again.pop(0))
                continue
            answer = source.next()
            if answer in (WAIT, FINISHED):
                break
            study.issue(answer)  # type: ignore[arg-type]
            begin(answer.trial_id)  # type: ignore[union-attr]
        if not queue:
            return spent
        spent.seconds, _, identity = heapq.heappop(queue)
        record, curve = study.records[identity], curves[identity]
        over = _epoch(study, identity, curve)
        spent.cost += curve.cost
        if over:
            source.told(record)
        else:
            heapq.heappush(queue, (spent.seconds + curve.cost, turn, identity))
            turn += 1


def _epoch(study: Study, identity: str, curve: Curve) -> bool:
    """One epoch of a trial; whether the trial is over."""
    record = study.records[identity]
    epochs = record.epochs
    epoch = epochs if curve.at_once else record.epoch + 1
    if curve.fails_at is not None and epoch >= curve.fails_at:
        study.tell(identity, "failed", reason="simulated")
        return True
    result = {
        "epoch": epoch,
        "epochs": epochs,
        "score": curve.scores[-1 if curve.at_once else epoch - 1],
        "metrics": {},
        "cost_joint_epochs": record.cost_joint_epochs + curve.cost,
        "seconds": record.seconds + curve.cost,
    }
    if not study.report(identity, result) and epoch >= epochs:
        clip_wise = {} if curve.right is None else {"right": curve.right}
        select = {"accuracy": curve.select, **clip_wise} if record.stage == "confirm" else None
        study.tell(identity, "complete", select=select)
    return record.finished


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """How a method behaves in a problem.

    Attributes:
        peak: expected accuracy at its best setting.
        width: how far from the best setting, in shares of a knob's range, accuracy falls by `fall`.
        fall: how much it can lose.
        speed: how fast it learns; the higher, the sooner it saturates.
        acts: share of training before which it is joint training.
        cost: of an epoch, in joint epochs.
        failing: share of its settings that fail.
    """

    peak: float
    width: float
    fall: float
    speed: float
    acts: float
    cost: float
    failing: float


FAMILIES: dict[str, dict[str, float]] = {
    "spread": {"spread": 0.015},
    "one": {"spread": 0.003, "lead": 0.03},
    "none": {"spread": 0.0},
    "late": {"spread": 0.01, "lead": 0.02, "late": 0.6},
    "crossing": {"spread": 0.012, "slow": 1.0},
    "narrow": {"spread": 0.012, "narrow": 1.0},
    "noisy": {"spread": 0.015, "noise": 0.02},
    "costly": {"spread": 0.015, "cost": 1.0},
    "failing": {"spread": 0.015, "failing": 0.25},
    "baseline": {"spread": 0.008, "lead": -0.01},
}
"""What sets a family of problems apart; what is not named takes its usual value.

spread: standard deviation of the methods' peaks. lead: of the one best method over the rest (below 0: of joint training
over all). late: the best method acts from this share of training on. slow: better methods learn more slowly. narrow:
better methods have narrower optima. noise: standard deviation over seeds. cost: methods differ in what an epoch costs
by up to four times. failing: share of settings that fail, of some methods.
"""

NOISE = 0.008
"""Standard deviation of a final score over trainings that share their split."""

SPLIT_NOISE = 0.005
"""Standard deviation over splits, shared by all trainings on a split."""

EPOCH_NOISE = 0.004
"""Standard deviation of an epoch's score around the curve, before the last epoch."""


class Synthetic:
    """A problem drawn from a family: every method's behaviour, and where in its knobs the best setting lies.

    A numeric knob is at its best near the paper's setting in half of the cases, anywhere in the other half. An
    optimiser's knobs have nearly the same best setting for all methods.

    Args:
        family: one of :data:`FAMILIES`.
        seed: another seed, another problem.
        space: what is searched.
    """

    def __init__(self, family: str, seed: int, space: Space) -> None:
        self.family, self.seed, self.space = family, seed, space
        traits = FAMILIES[family]
        rng = self._rng("methods")
        names = list(space.methods)
        gains = rng.normal(0.0, traits["spread"], len(names))
        joint = names.index("joint")
        rivals = [i for i in range(len(names)) if i != joint and names[i] != "unimodal"]
        best = int(rng.choice(rivals))
        lead = traits.get("lead", 0.0)
        if lead > 0:
            gains[best] = max(gains) + lead
        elif lead < 0:
            gains[joint] = max(gains) - lead
        rank = np.argsort(np.argsort(gains)) / max(1, len(names) - 1)
        base = rng.uniform(0.6, 0.9)
        self.noise = traits.get("noise", NOISE)
        self.behaviour: dict[str, Behaviour] = {}
        for i, name in enumerate(names):
            gain = gains[i] - (0.08 if name == "unimodal" else 0.0)
            slow = traits.get("slow", 0.0) * rank[i]
            narrow = traits.get("narrow", 0.0) * rank[i]
            self.behaviour[name] = Behaviour(
                peak=float(np.clip(base + gain, 0.2, 0.99)),
                width=float(rng.uniform(0.35, 0.7) * (1 - 0.65 * narrow)),
                fall=float(rng.uniform(0.03, 0.15)),
                speed=float(rng.uniform(4, 7) * (1 - 0.6 * slow)),
                acts=traits.get("late", 0.0) if i == best else float(rng.choice([0.0, 0.0, 0.1])),
                cost=float(rng.uniform(1, 1 + 3 * traits["cost"])) if "cost" in traits else 1.0,
                failing=traits.get("failing", 0.0) * float(rng.random() < 0.5),
            )
        self._distance: dict[str, float] = {}
        self._curves: dict[str, Curve] = {}

    def curve(self, document: Mapping[str, Any], params: Mapping[str, Any]) -> Curve:
        """See :class:`World`."""
        identity = trial_id(dict(document))
        known = self._curves.get(identity)
        if known is None:
            known = self._curves[identity] = self._draw(document, identity)
        return known

    def truth(self, document: Mapping[str, Any]) -> float:
        """See :class:`World`."""
        how = self.behaviour[document["method"]["name"]]
        return max(CHANCE, how.peak - how.fall * min(1.0, (self.distance(document) / how.width) ** 2))

    def peaks(self) -> dict[str, float]:
        """See :class:`World`."""
        return {m: b.peak for m, b in self.behaviour.items()}

    def distance(self, document: Mapping[str, Any]) -> float:
        """How far a document's knobs are from the best ones of its method: root mean square, in shares of ranges."""
        key = _settings(document)
        if key not in self._distance:
            self._distance[key] = self._measured(document)
        return self._distance[key]

    def _measured(self, document: Mapping[str, Any]) -> float:
        method = document["method"]["name"]
        squares = []
        for part in ("method", "fusion", "optimizer"):
            component = document[part]
            choices = getattr(self.space, f"{part}s")
            if component["name"] not in choices:
                continue
            if len(choices) > 1 and part != "method":
                squares.append(self._chosen(0.5, component["name"], list(choices), method, part) ** 2)
            for name, knob in choices[component["name"]].knobs.items():
                if name in component and knob.search and name not in choices[component["name"]].fixed:
                    squares.append(self._off(method, part, knob, component[name]) ** 2)
        return math.sqrt(sum(squares) / len(squares)) if squares else 0.0

    def _chosen(self, scale: float, value: Any, choices: Sequence[Any], *purpose: str) -> float:
        """The distance of one of several choices from the best of them, at most `scale`."""
        draws = {str(c): self._rng(*purpose, str(c)).random() for c in choices}
        return scale * (draws[str(value)] - min(draws.values()))

    def _off(self, method: str, part: str, knob: Knob, value: Any) -> float:
        """The distance of one knob, in shares of its range."""
        if knob.choices is not None:
            choices = list(self.space.modalities) if isinstance(knob.choices, str) else knob.choices
            return self._chosen(0.6, value, choices, method, part, knob.name)
        own = self._rng(method, part, knob.name)
        if part == "optimizer":
            best = self._rng(part, knob.name).uniform(0.15, 0.85) + own.normal(0, 0.1)
        elif own.random() < 0.5:
            best = _share(knob, knob.paper) + own.normal(0, 0.1)
        else:
            best = own.uniform(0, 1)
        return _share(knob, value) - float(np.clip(best, 0, 1))

    def _draw(self, document: Mapping[str, Any], identity: str) -> Curve:
        how, joint = self.behaviour[document["method"]["name"]], self.behaviour["joint"]
        epochs = document["epochs"]
        rng = self._rng("trial", identity)
        val, select = (self._rng("split", part, str(document["fold"])).normal(0, SPLIT_NOISE) for part in _PARTS)
        truth = self.truth(document)
        end, selected = (truth + split + rng.normal(0, self.noise) for split in (val, select))
        share = np.arange(1, epochs + 1) / epochs
        grown = _growth(share, how.speed)
        if how.acts:
            before = (min(joint.peak, end) - CHANCE) * _growth(share, joint.speed)
            after = np.clip((share - how.acts) / (1 - how.acts), 0, 1)
            values = CHANCE + before + (end - CHANCE - before) * _growth(after, how.speed)
        else:
            values = CHANCE + (end - CHANCE) * grown
        values = values + rng.normal(0, EPOCH_NOISE, epochs) * (share < 1)
        fails = rng.random() < how.failing
        free = is_ensemble(document)
        return Curve(
            scores=[float(v) for v in np.clip(values, 0, 1)],
            cost=0.0 if free else how.cost * (0.5 if document["method"]["name"] == "unimodal" else 1.0),
            select=float(np.clip(selected, 0, 1)),
            fails_at=int(rng.integers(1, epochs + 1)) if fails else None,
            at_once=free,
        )

    def _rng(self, *purpose: str) -> np.random.Generator:
        text = "/".join([self.family, str(self.seed), *purpose])
        return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()))


class Recorded:
    """A table of real trainings: a document goes as the recorded training of its method with the nearest setting.

    A setting is a document without seed, fold and teachers; where it was recorded more than once, each document gets
    one of its trainings by its identity. A training on another fold was recorded on another split. The truth is the
    mean over a setting's trainings on *select*, which the search does not see; of a setting that was recorded once a
    confirmation therefore repeats the truth, without noise.

    Args:
        lines: `document`, `val` and `select` (accuracy after every epoch it had; one alone: nothing was trained, fewer
            than planned: it failed) and `cost` (joint epochs an epoch).

    Raises:
        MMSearchError: no line at all.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if not lines:
            raise MMSearchError("recorded trainings: the table is empty")
        self._settings: dict[str, list[tuple[dict[str, Any], list[Mapping[str, Any]]]]] = defaultdict(list)
        known: dict[str, list[Mapping[str, Any]]] = {}
        for line in lines:
            setting = flat(line["document"])
            key = repr(sorted(setting.items()))
            if key not in known:
                known[key] = []
                self._settings[line["document"]["method"]["name"]].append((setting, known[key]))
            known[key].append(line)
        self._ranges: dict[str, tuple[float, float]] = {}
        for setting, _ in itertools.chain.from_iterable(self._settings.values()):
            for key, value in setting.items():
                if _number(value):
                    low, high = self._ranges.get(key, (value, value))
                    self._ranges[key] = min(low, value), max(high, value)

    def curve(self, document: Mapping[str, Any], params: Mapping[str, Any]) -> Curve:
        """See :class:`World`."""
        lines = self._nearest(document)
        line = lines[int(trial_id(dict(document)), 16) % len(lines)]
        known, epochs = len(line["val"]), line["document"]["epochs"]
        at_once = known == 1 < epochs
        return Curve(
            scores=[*line["val"], *line["val"][-1:] * (epochs - known)],
            cost=line["cost"],
            select=line["select"][-1],
            fails_at=known + 1 if known < epochs and not at_once else None,
            at_once=at_once,
        )

    def truth(self, document: Mapping[str, Any]) -> float:
        """See :class:`World`."""
        return _mean_select(self._nearest(document))

    def peaks(self) -> dict[str, float]:
        """See :class:`World`."""
        return {m: max(_mean_select(lines) for _, lines in settings) for m, settings in self._settings.items()}

    def _nearest(self, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        wanted = flat(document)
        return min(self._settings[document["method"]["name"]], key=lambda known: self._distance(known[0], wanted))[1]

    def _distance(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
        """Between two settings: 1 for every choice that differs, a number's difference in shares of its range."""
        distance = 0.0
        for key in {*a, *b}:
            if _number(a.get(key)) and _number(b.get(key)):
                low, high = self._ranges.get(key, (0.0, 0.0))
                x, y = (min(max(d[key], low), high) for d in (a, b))
                if high > low:
                    log = low > 0 and high >= 10 * low
                    distance += abs(math.log(x / y) / math.log(high / low)) if log else abs(x - y) / (high - low)
            else:
                distance += a.get(key) != b.get(key)
        return distance


def flat(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a document chooses, as `"method.alpha"`, `"encoders.sound.n_mels"`, …; without seed, fold and teachers."""
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            found[prefix] = value

    for part in ("method", "fusion", "optimizer", "encoders"):
        walk(part, document.get(part))
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean_select(lines: Sequence[Mapping[str, Any]]) -> float:
    return sum(line["select"][-1] for line in lines) / len(lines)


def _growth(share: np.ndarray, speed: float) -> np.ndarray:
    """From 0 to 1 as training goes on, with its end at 1 exactly."""
    return (1 - np.exp(-speed * share)) / (1 - math.exp(-speed))


def _share(knob: Knob, value: float) -> float:
    """Where in its range a number lies, from 0 to 1."""
    assert knob.low is not None and knob.high is not None
    at = min(max(value, knob.low), knob.high)
    if knob.log:
        return math.log(at / knob.low) / math.log(knob.high / knob.low)
    return (at - knob.low) / (knob.high - knob.low)


def _settings(document: Mapping[str, Any]) -> str:
    return repr([document[k] for k in ("method", "fusion", "optimizer")])
