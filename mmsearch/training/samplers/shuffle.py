"""Every clip once."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from mmsearch.training.samplers import Sampler


@dataclasses.dataclass
class Shuffle(Sampler):
    """Every clip once an epoch."""

    name: ClassVar[str] = "shuffle"
    summary: ClassVar[str] = "every clip once an epoch"

    def rows(self, rows: np.ndarray, label: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """All of them."""
        return rows
