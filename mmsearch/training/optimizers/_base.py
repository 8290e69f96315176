"""The interface of an optimiser."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

WARM_UP = 0.2
"""Share of the planned training over which the learning rate rises."""

FIRST = 0.002
"""The very first step is taken as if this share of the training were done, so that it moves at all."""


@dataclasses.dataclass
class Optimizer:
    """Base of all optimisers; fields made with :func:`mmsearch.knobs.knob` are its knobs.

    The learning rate rises in a line over the first fifth of the planned training and then falls from `lr` to zero
    along half a cosine; it is set before every step from the progress, and nothing but the progress decides it.

    Attributes:
        name: in documents.
        summary: one line of what it is.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    lr: float

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The torch optimiser of one parameter group."""
        raise NotImplementedError

    def lr_at(self, progress: float) -> float:
        """The learning rate where `progress` in [0, 1] of the training is done."""
        if progress < WARM_UP:
            return self.lr * (progress + FIRST) / (WARM_UP + FIRST)
        return 0.5 * self.lr * (1 + math.cos(math.pi * (min(progress, 1.0) - WARM_UP) / (1 - WARM_UP)))
