"""Is the evidence what it says: coverage of the printed intervals, false winners, and gains found, by simulation.

    python scripts/bench_confirmation.py
    python scripts/bench_confirmation.py --runs 500 --jobs 2

A finalist is right on a clip with probability Φ(level + how easy the clip is + how easy it is for this finalist + what
this seed made of the finalist + what this seed made of the finalist for this clip). Development is a fresh draw of
clips in every run, cut by `mmsearch.data.splits` as in a sweep: small sets rotate their folds, large ones are shuffled
anew, so that seeds share some clips of select and not others. The truth is the mean over all clips and seeds.

coverage: all finalists get so many seeds; how often the 95 % interval of a finalist's paired gain over joint training
holds the true gain, by seeds. Rows differ in the clips, in how noisy seeds are and in whether one finalist is three
times as noisy as the others.

winners: the confirmation as it runs: a first seed, then the beaten are dropped after each seed and the end comes as
soon as it is settled, with the rules of `mmsearch.search.finalists` and `mmsearch.recommend.decision`. How often
something is declared better than joint training, where nothing is and where one finalist is better by so many points;
and the seeds and trainings that it took.

Exit status 1 where coverage is not within 93 and 97 % or false winners are above 1 %, beyond the error of the
simulation.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from scipy.stats import norm

from mmsearch.data.splits import development_fold
from mmsearch.recommend.decision import Finalist, decide
from mmsearch.search.finalists import FEW_SEEDS, FIRST_SEEDS, beaten

COVERED, FALSE = (0.93, 0.97), 0.01
CLASSES = 10


@dataclasses.dataclass(frozen=True)
class World:
    """How finalists, seeds and clips differ, in units of Φ's argument.

    Attributes:
        clips: of development.
        finalists: joint training and one modality among them.
        gains: of finalists over joint training, as probabilities; the rest have none.
        easy, own, seed, twist: standard deviations of the four effects above.
        noisy: how many times as noisy the third finalist's seeds are.
    """

    clips: int
    finalists: int = 8
    gains: tuple[float, ...] = ()
    easy: float = 1.0
    own: float = 0.5
    seed: float = 0.05
    twist: float = 0.5
    noisy: float = 1.0
    base: float = 0.85

    def spread(self) -> np.ndarray:
        """By finalist the standard deviation of all effects together, with that of the last draw."""
        seed = self.seed * np.where(np.arange(self.finalists) == 2, self.noisy, 1.0)
        return np.sqrt(1 + self.easy**2 + self.own**2 + seed**2 + self.twist**2)

    def truth(self) -> np.ndarray:
        """By finalist the expected accuracy."""
        gain = np.zeros(self.finalists)
        gain[2 : 2 + len(self.gains)] = self.gains
        return self.base + gain

    def draw(self, rng: np.random.Generator, seeds: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Per seed the rows of select, and bool `[finalists, clips of select]`."""
        label = rng.integers(0, CLASSES, self.clips)
        level = norm.ppf(self.truth()) * self.spread()
        easy = self.easy * rng.normal(size=self.clips)
        own = self.own * rng.normal(size=(self.finalists, self.clips))
        sd = self.seed * np.where(np.arange(self.finalists) == 2, self.noisy, 1.0)
        rows, right = [], []
        for i in range(seeds):
            at = np.flatnonzero(development_fold(label, None, 1 + i) == 2)
            made = level[:, None] + easy[at] + own[:, at] + (sd * rng.normal(size=self.finalists))[:, None]
            made = made + self.twist * rng.normal(size=made.shape) + rng.normal(size=made.shape)
            rows.append(at)
            right.append(made > 0)
        return rows, right


NAMES = ("joint", "unimodal", *(f"m{i}" for i in range(100)))


def finalists_of(rows: Sequence[np.ndarray], right: Sequence[np.ndarray], given: Sequence[int]) -> list[Finalist]:
    """What a confirmation knows in which each finalist had so many seeds."""
    most = max(given[2:], default=given[0])
    found = []
    for a, seeds in enumerate(given):
        clips = {s: (rows[s], right[s][a]) for s in range(seeds)}
        select = {s: float(right[s][a].mean()) for s in range(seeds)}
        document = {"method": {"name": NAMES[a]}}
        found.append(Finalist(document, {}, select, dropped=a > 1 and seeds < most, right=clips))
    return found


def confirmed(
    rows: Sequence[np.ndarray], right: Sequence[np.ndarray], search: np.ndarray, seeds: int
) -> tuple[list[int], str]:
    """How many seeds each finalist gets, and the kind of the decision.

    Args:
        rows, right: of all seeds.
        search: `[finalists]`, what the search scored.
        seeds: at most.
    """
    count = len(search)
    left, given = list(range(count)), [0] * count
    for i in range(seeds):
        if i >= FIRST_SEEDS:
            out = beaten([{-1: search[n], **{s: float(right[s][n].mean()) for s in range(i)}} for n in left])
            kept = [n for k, n in enumerate(left) if k not in out]
            left = [n for n in left if n in kept or n < 2]
            if i >= FEW_SEEDS:
                found = finalists_of(rows, right, given)
                found = [dataclasses.replace(f, dropped=a not in left) for a, f in enumerate(found)]
                if kept == [0] or decide(found, planned=seeds).settled:
                    break
        for n in left:
            given[n] += 1
    return given, decide(finalists_of(rows, right, given), planned=seeds).kind


def covered(world: World, seeds: int, seed: int) -> list[bool]:
    """Whether the interval of each finalist's gain holds the truth."""
    rng = np.random.default_rng([seed, seeds])
    rows, right = world.draw(rng, seeds)
    decision = decide(finalists_of(rows, right, [seeds] * world.finalists))
    truth = dict(zip(NAMES, world.truth(), strict=False))
    found = []
    for c in decision.against_joint:
        assert c.difference is not None and c.difference.low is not None and c.difference.high is not None
        gain = truth[c.a.method] - truth["joint"]
        found.append(c.difference.low <= gain <= c.difference.high)
    return found


def run(world: World, seeds: int, seed: int) -> tuple[bool, int, int]:
    """Whether something is declared better, joint training's seeds, and the trainings of all."""
    rng = np.random.default_rng([seed, seeds, 1])
    rows, right = world.draw(rng, seeds)
    sd = math.sqrt(world.base * (1 - world.base) / (world.clips / 8))
    search = (world.truth()[:, None] + rng.normal(0, sd / 2, (world.finalists, 3))).max(1)
    given, kind = confirmed(rows, right, search, seeds)
    return kind in ("method", "unimodal"), given[0], sum(given)


WORLDS = {
    "758 clips": World(758),
    "758 clips, seeds matter more": World(758, seed=0.15),
    "758 clips, one noisier": World(758, seed=0.1, noisy=3.0),
    "4000 clips": World(4000),
    "758 clips, 20 finalists": World(758, finalists=20),
    "758 clips, 4 finalists": World(758, finalists=4),
}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="of each row")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    missed = []
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        print("| coverage of 95 % intervals | 3 seeds | 5 seeds | 10 seeds |\n|---|---|---|---|")
        for name, world in WORLDS.items():
            cells = []
            for seeds in (3, 5, 10):
                each = pool.map(functools.partial(covered, world, seeds), range(args.runs), chunksize=20)
                share = np.array([np.mean(found) for found in each])
                error = 2.6 * float(share.std(ddof=1)) / math.sqrt(len(share))
                cells.append(f"{share.mean():.1%}")
                if not COVERED[0] - error <= share.mean() <= COVERED[1] + error:
                    missed.append(f"{name}, {seeds} seeds: coverage {share.mean():.1%}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
        print("\n| winners declared | seeds at most | true gain | declared | seeds of joint | trainings |")
        print("|---|---|---|---|---|---|")
        for (name, world), seeds in itertools.product(WORLDS.items(), (5, 10)):
            for gain in (0.0, 0.02, 0.04):
                true = dataclasses.replace(world, gains=(gain,) if gain else ())
                found = list(pool.map(functools.partial(run, true, seeds), range(args.runs), chunksize=20))
                won, used, trainings = np.mean(found, axis=0)
                shown = f"{100 * gain:g} points" if gain else "none"
                print(f"| {name} | {seeds} | {shown} | {won:.1%} | {used:.1f} | {trainings:.1f} |", flush=True)
                if not gain and won > FALSE + 2.6 * math.sqrt(FALSE * (1 - FALSE) / args.runs):
                    missed.append(f"{name}, {seeds} seeds: false winners {won:.1%}")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
