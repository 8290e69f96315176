"""The decision among finalists, on *select* alone.

The rule, and why:

1. **The reference is plain joint training** (the best of its fusions, by mean). A claim that balancing helps is a
   claim against joint training; nobody changes a training recipe without one.
2. **Beats joint** means: the paired difference is positive, at least `margin` (half a point: a smaller gain is not
   worth another recipe), and beyond the noise. What the noise is, :mod:`mmsearch.recommend.statistics` says. The
   chance that anything is declared better where nothing is, is held to :data:`FALSE_WINNER`: by Holm's correction over
   *all* finalists, those that the confirmation dropped included, and by spending that chance over the looks that a
   confirmation takes after each seed.
3. **Nothing beats joint**:
   - `baseline` where no estimated gain reaches the margin ("no method beats plain joint training here") or where
     every interval excludes a gain of the margin. With fewer than three seeds only the second counts: an
     estimate on two seeds is no ground for a verdict.
   - else `no_clear_winner`: someone leads by more than the margin, but not beyond the noise. No claim is made, but
     something has to be trained: step 4's choice of joint training and those with a higher mean is handed over.
4. **Something beats joint**: the leader is the highest mean among those that do. Of them, those whose mean falls
   short of the leader's by no more than `margin`, and not beyond the noise (paired, Holm), are as good as it, and
   among these the **cheapest** is chosen, with its teachers charged in full: half a point that may be noise is not
   worth a dearer recipe. Costs within a tenth of the lowest count as equal; then one training is preferred to several
   (no teachers), then the higher mean. Whoever else is not told apart from the chosen one is named as *tied* with it.
   Not being told apart is no ground by itself: with few clips nothing is, and the cheapest would always be handed over.
5. The kind is `unimodal` where the chosen finalist is a single modality, else `method`. The unimodal ensemble
   (`unimodal_teacher` with `teacher: ume`) counts as a method, charged with its teachers.

With one seed there is no interval, hence never a winner.

A finalist that the confirmation dropped early, because it was behind the leader beyond the noise, is listed with the
seeds that it has; it counts in the correction, but is never chosen, never the leader and tied with nobody. The chance
of a false winner and the coverage of the intervals are measured: `scripts/bench_confirmation.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mmsearch.errors import MMSearchError
from mmsearch.recommend.statistics import (
    LEVEL,
    Interval,
    Noise,
    Right,
    holm,
    mean_interval,
    paired_interval,
    pooled_noise,
    spent,
)
from mmsearch.search.blocks import fit
from mmsearch.search.finalists import FEW_SEEDS

MARGIN = 0.005
"""The smallest gain in accuracy worth another recipe: half a point."""

FALSE_WINNER = 0.01
"""The chance that something is declared better than joint training where nothing is."""

ONE_LOOK = 2 * FALSE_WINNER
"""What a two-sided p-value is held against where nobody looked before."""

DRAWS = 20_000
"""Draws behind a chance of being the best."""

BASELINE = "joint"
UNIMODAL = "unimodal"
_ALWAYS = (BASELINE, UNIMODAL)
EQUAL_COST = 1.1


def method_label(method: Mapping[str, Any]) -> str:
    """A trial document's method as printed: `uniform`, `frames alone`, `unimodal_teacher (ume)`."""
    if method["name"] == UNIMODAL and method.get("modality"):
        return f"{method['modality']} alone"
    return f"{method['name']} ({method['teacher']})" if method.get("teacher") else str(method["name"])


@dataclasses.dataclass(frozen=True)
class Finalist:
    """One configuration confirmed on fresh seeds.

    Attributes:
        config: its trial document without seed, fold and teachers' identities.
        trial_ids: the confirmation trial of each seed.
        select: accuracy on select of each seed, in [0, 1].
        test: accuracy on test of each seed; empty before the reading.
        cost_joint_epochs: one training, teachers not counted.
        cost_shared_joint_epochs: the teachers it uses.
        seconds: one training, teachers not counted.
        seconds_shared: the teachers it uses.
        dropped: whether the confirmation gave it fewer seeds, because it was beaten.
        right: by seed the clips of select and whether it was right on each; empty where that is not known.
    """

    config: dict[str, Any]
    trial_ids: dict[int, str]
    select: dict[int, float]
    test: dict[int, float] = dataclasses.field(default_factory=dict)
    cost_joint_epochs: float = 0.0
    cost_shared_joint_epochs: float = 0.0
    seconds: float = 0.0
    seconds_shared: float = 0.0
    dropped: bool = False
    right: Right = dataclasses.field(default_factory=dict, repr=False)

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.config["method"]["name"])

    @property
    def fusion(self) -> str:
        """The fusion's name; `own` where the method brings its head."""
        return str(self.config.get("fusion", {}).get("name", "own"))

    @property
    def modality(self) -> str | None:
        """The one modality of a unimodal finalist."""
        return self.config["method"].get("modality") if self.method == UNIMODAL else None

    @property
    def label(self) -> str:
        """As printed: `uniform · concat`, `frames alone`, `unimodal_teacher (ume)`."""
        name = method_label(self.config["method"])
        return name if self.modality or self.fusion == "own" else f"{name} · {self.fusion}"

    @property
    def full_cost(self) -> float:
        """Joint epochs with the teachers charged in full."""
        return self.cost_joint_epochs + self.cost_shared_joint_epochs

    @property
    def mean(self) -> float:
        """Mean accuracy on select."""
        return sum(self.select.values()) / len(self.select)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The paired difference a - b on select.

    Attributes:
        a, b: the finalists compared.
        difference: None where they share no seed.
        p_holm: adjusted over the comparisons of its family; 1 where `a` was dropped.
        level: what the p-value is held against.
    """

    a: Finalist
    b: Finalist
    difference: Interval | None
    p_holm: float
    level: float

    @property
    def proven(self) -> bool:
        """Whether the difference is beyond the noise."""
        return self.difference is not None and self.difference.known and self.p_holm < self.level

    def to_dict(self, labels: dict[int, str]) -> dict[str, Any]:
        """As JSON; `labels` by `id` of the finalist, since two may share a method and a fusion."""
        known = self.difference.to_dict() if self.difference else {"mean": None, "ci95": [None, None], "values": []}
        return {
            "a": labels[id(self.a)],
            "b": labels[id(self.b)],
            **known,
            "p": self.difference.p if self.difference else 1.0,
            "p_holm": self.p_holm,
            "beyond_noise": self.proven,
        }


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is recommended, and against what.

    Attributes:
        kind: `method`, `baseline`, `unimodal` or `no_clear_winner`.
        chosen: the finalist whose configuration is handed over.
        reference: plain joint training, the best of its fusions.
        leader: the highest mean on select.
        tied: finalists not told apart from the chosen one, best first; where that is not joint training, only those
            whose mean reaches joint training's.
        against_joint: every finalist against the reference.
        against_chosen: every finalist against the chosen one; empty where the chosen one is the reference.
        margin: the smallest gain that counts.
        seeds: how many seeds the chosen one has.
        noise: of a paired difference, pooled over the finalists.
    """

    kind: str
    chosen: Finalist
    reference: Finalist
    leader: Finalist
    tied: list[Finalist]
    against_joint: list[Comparison]
    against_chosen: list[Comparison]
    margin: float
    seeds: int
    noise: Noise | None

    @property
    def settled(self) -> bool:
        """Whether no further seed is needed: a winner is proven, and no rival that may be dropped is left beside it."""
        rivals = [c for c in self.against_chosen if not c.a.dropped and c.a.method not in _ALWAYS]
        return self.kind in ("method", "unimodal") and all(c.proven for c in rivals)

    def seeds_needed(self, most: int = 100) -> int | None:
        """Seeds in all after which the leader's lead over joint training, if it stays as it is, would be proven.

        As the last look of so many planned seeds, against as many rivals; None where more than `most` would not do, or
        nothing leads.
        """
        lead = self.gain(self.leader)
        d = lead.difference if lead else None
        if d is None or d.low is None or d.high is None or d.mean < self.margin:
            return None
        rivals = len(self.against_joint)
        half = float(stats.t.ppf((1 + LEVEL) / 2, d.freedom))
        one_seed = (d.high - d.low) / 2 / half * math.sqrt(len(d.values))
        for seeds in range(len(d.values) + 1, most + 1):
            level = spent(seeds, seeds, ONE_LOOK) / rivals
            freedom = max(1.0, d.freedom / len(d.values) * seeds)
            if d.mean > float(stats.t.isf(level / 2, freedom)) * one_seed / math.sqrt(seeds):
                return seeds
        return None

    def gain(self, finalist: Finalist) -> Comparison | None:
        """A finalist against plain joint training; None for joint training itself."""
        return next((c for c in self.against_joint if c.a is finalist), None)

    @property
    def largest_possible_gain(self) -> float | None:
        """The highest upper bound of a gain over joint training of what was not dropped; None where one is missing."""
        highs = [c.difference.high if c.difference else None for c in self.against_joint if not c.a.dropped]
        known = [h for h in highs if h is not None]
        return max(known, default=None) if len(known) == len(highs) else None


def compare(
    pairs: Sequence[tuple[Finalist, Finalist]],
    level: float,
    resolution: float = 0.0,
    noise: Noise | None = None,
) -> list[Comparison]:
    """The paired differences a - b of one family, with Holm's correction over all of them; one dropped has p = 1."""
    found = [
        paired_interval(
            a.select, b.select, resolution=resolution, noise=noise, right=(a.right, b.right) if a.right else None
        )
        for a, b in pairs
    ]
    p = holm([1.0 if d is None or a.dropped else d.p for (a, _), d in zip(pairs, found, strict=True)])
    return [Comparison(a, b, d, q, level) for (a, b), d, q in zip(pairs, found, p, strict=True)]


def chances(finalists: Sequence[Finalist]) -> list[float]:
    """The chance of each finalist to have the highest level, by :func:`mmsearch.search.blocks.fit`.

    The posterior under a flat prior, by draws with a fixed seed. All alike where the noise is not known.
    """
    known = [i for i, f in enumerate(finalists) if f.select]
    blocks = fit([finalists[i].select for i in known])
    share = np.zeros(len(finalists))
    if blocks is None:
        share[known] = 1 / max(1, len(known))
        return share.tolist()
    rng = np.random.default_rng(0)
    variance = blocks.variance * blocks.freedom / rng.chisquare(blocks.freedom, DRAWS)
    drawn = rng.multivariate_normal(np.zeros(len(known)), blocks.covariance, DRAWS, method="eigh")
    best = (blocks.level + np.sqrt(variance)[:, None] * drawn).argmax(1)
    share[known] = np.bincount(best, minlength=len(known)) / DRAWS
    return share.tolist()


def decide(
    finalists: Sequence[Finalist], *, margin: float = MARGIN, resolution: float = 0.0, planned: int | None = None
) -> Decision:
    """The decision among finalists, on select alone; the rule stands at the top of this module.

    Args:
        finalists: with plain joint training among them.
        margin: the smallest gain that counts, as a share (0.005 is half a point).
        resolution: one clip over the clips of select: the step in which accuracies move.
        planned: seeds that a finalist may get, after each of which somebody may have looked; None: these are all, and
            this is the only look.

    Raises:
        MMSearchError: plain joint training is not among the finalists.
    """
    contenders = [f for f in finalists if f.select and not f.dropped]
    joints = [f for f in contenders if f.method == BASELINE]
    if not joints:
        raise MMSearchError("recommend: no finished confirmation of plain joint training; nothing to compare against")
    reference = max(joints, key=lambda f: f.mean)
    others = [f for f in finalists if f is not reference and f.select]
    noise = pooled_noise([f.select for f in contenders])
    level = ONE_LOOK
    if planned is not None:
        level = spent(len(reference.select), max(len(reference.select), planned), level)
    against_joint = compare([(f, reference) for f in others], level, resolution, noise)
    gain = {id(c.a): c.difference.mean if c.difference else -math.inf for c in against_joint} | {id(reference): 0.0}
    leader = max([reference, *(f for f in contenders if f is not reference)], key=lambda f: gain[id(f)])

    judged = [c for c in against_joint if not c.a.dropped]
    winners = [c.a for c in judged if c.proven and gain[id(c.a)] >= margin]
    if winners:
        chosen = _cheapest(winners, gain, margin, level, resolution, noise)
        kind = "unimodal" if chosen.method == UNIMODAL else "baseline" if chosen.method == BASELINE else "method"
    elif _no_gain(judged, len(reference.select), margin):
        chosen, kind = reference, "baseline"
    else:
        better = [c.a for c in judged if gain[id(c.a)] > 0]
        chosen = _cheapest([reference, *better], gain, margin, level, resolution, noise)
        kind = "no_clear_winner"

    rivals = [] if chosen is reference else [f for f in others if f is not chosen]
    against_chosen = compare([(f, chosen) for f in rivals], level, resolution, noise)
    if chosen is reference:
        tied = [c.a for c in judged if not c.proven]
    else:
        tied = [c.a for c in against_chosen if not (c.proven or c.a.dropped) and gain[id(c.a)] >= 0]
        tied += [reference] if kind == "no_clear_winner" else []
    tied.sort(key=lambda f: -gain[id(f)])
    return Decision(
        kind, chosen, reference, leader, tied, against_joint, against_chosen, margin, len(chosen.select), noise
    )


def _cheapest(
    among: Sequence[Finalist],
    gain: Mapping[int, float],
    margin: float,
    level: float,
    resolution: float,
    noise: Noise | None,
) -> Finalist:
    """The cheapest of those as good as the best (step 4 of the rule)."""
    best = max(among, key=lambda f: gain[id(f)])
    rivals = compare([(f, best) for f in among if f is not best], level, resolution, noise)
    as_good = [best, *(c.a for c in rivals if not c.proven and gain[id(best)] - gain[id(c.a)] <= margin)]
    low = min(f.full_cost for f in as_good)
    equal = [f for f in as_good if f.full_cost <= EQUAL_COST * low]
    return min(equal, key=lambda f: (f.cost_shared_joint_epochs > 0, -gain[id(f)]))


def _no_gain(against_joint: Sequence[Comparison], seeds: int, margin: float) -> bool:
    """Whether the data say that nothing gains the margin over joint training (step 3 of the rule)."""
    gains = [c.difference for c in against_joint]
    if seeds >= FEW_SEEDS and all(d is not None and d.mean < margin for d in gains):
        return True
    return bool(gains) and all(d is not None and d.high is not None and d.high < margin for d in gains)


def summary(values: dict[int, float], resolution: float = 0.0) -> Interval:
    """Mean accuracy and its interval over seeds, cut to [0, 1]."""
    return mean_interval([values[s] for s in sorted(values)], bounds=(0.0, 1.0), resolution=resolution)
