"""Which search recommends best: allocations and peers on generated problems and recorded trainings, at equal cost.

    python scripts/bench_search.py --work /tmp/search

A problem is a family of `mmsearch.search.simulate.FAMILIES` and a seed, which draws the methods and fusions of a space
and then the world. Whatever can be tuned is tuned on TUNE; FINAL is for the final figure.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np

from mmsearch.batch import Modality
from mmsearch.search.simulate import FAMILIES, Synthetic
from mmsearch.search.space import BASELINES, Space

TUNE = range(20)
"""Seeds of the problems that allocation and finalists are tuned on, of every family."""

FINAL = range(100, 110)
"""Seeds of the problems of the final figure, of every family."""

EPOCHS = 27
METHOD_COUNTS = (3, 12)
"""Methods beyond the baselines, from and to."""

OTHERS = (
    "agm", "amco", "cggm", "cml", "diagnose_relearn", "frozen_probe", "g2d", "gradient_blending", "greedy", "inforeg",
    "lfm", "mbsd", "mla", "mmcosine", "mmpareto", "modality_valuation", "mses", "mslr", "ogm", "opm", "pmr", "qmf",
    "reconboost", "uniform",
)  # fmt: skip
"""Methods that a problem draws from; written out, so that a new method changes no problem."""

FUSIONS = ("concat", "sum", "gated")
MODALITIES = {
    "sound": Modality("sound", "sound", (16000,), 16000.0),
    "frames": Modality("frames", "frames", (4, 32, 32, 3), 2.0),
}


def problem(family: str, seed: int) -> Synthetic:
    """The world of a family and a seed, on a space of its own: one fusion in two of three problems, else three."""
    digest = hashlib.blake2b(f"{family}/{seed}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest))
    low, high = METHOD_COUNTS
    methods = [*BASELINES, *map(str, rng.permutation(OTHERS)[: rng.integers(low, high, endpoint=True)])]
    fusions = FUSIONS[: 3 if rng.random() < 1 / 3 else 1]
    return Synthetic(family, seed, make_space(methods, fusions, seed))


def make_space(methods: list[str], fusions: tuple[str, ...], seed: int) -> Space:
    """A space of these methods and fusions with all their knobs, and SGD; a method that goes with none is left out."""
    lines = [f"epochs: {EPOCHS}", "fusions:", *(f"  {f}:" for f in fusions), "optimizers:", "  sgd:"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "space.yaml"
        path.write_text("\n".join(lines))
        space = Space.load(path, MODALITIES, data="simulated", seed=seed)
    space.methods = {m: space.methods[m] for m in methods if m in space.methods}
    return space


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", choices=["tune", "final"], default="final", help="which problems")
    args = parser.parse_args()
    for family in FAMILIES:
        for seed in TUNE if args.seeds == "tune" else FINAL:
            world = problem(family, seed)
            print(f"{family} {seed}: {len(world.space.methods)} methods, {len(world.space.fusions)} fusions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
