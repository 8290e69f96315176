"""Every class equally often."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from mmsearch.training.samplers import Sampler


@dataclasses.dataclass
class ClassBalanced(Sampler):
    """Every class equally often, in the numbers of an epoch to within one clip.

    A class goes through its clips in a random order, anew when they are used up and on from one epoch to the next,
    so that no clip of it comes k + 1 times before every one has come k times.
    """

    name: ClassVar[str] = "class_balanced"
    summary: ClassVar[str] = "every class equally often; the clips of a small one come several times an epoch"

    def rows(self, rows: np.ndarray, label: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """N clips: place t of all epochs, epoch·N ≤ t < (epoch + 1)·N, is the class t mod C's, its draw t div C."""
        classes = np.unique(label)
        C, N = len(classes), len(rows)
        t = np.arange(epoch * N, (epoch + 1) * N)
        chosen = [_drawn(rows[label == c], t[t % C == i] // C, seed, int(c)) for i, c in enumerate(classes)]
        return np.concatenate([rows[:0], *chosen])


def _drawn(clips: np.ndarray, draws: np.ndarray, seed: int, label: int) -> np.ndarray:
    """Places `draws`, one after the other, of the endless row of shuffles of a class's clips."""
    first, last = int(draws[0]) // len(clips), int(draws[-1]) // len(clips)
    orders = [np.random.default_rng([seed, label, r]).permutation(clips) for r in range(first, last + 1)]
    return np.concatenate(orders)[draws - first * len(clips)]
