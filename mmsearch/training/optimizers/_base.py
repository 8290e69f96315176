"""The interface of an optimiser."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn


@dataclasses.dataclass
class Optimizer:
    """Base of all optimisers; fields made with :func:`mmsearch.knobs.knob` are its knobs.

    The learning rate falls from `lr` to zero along half a cosine over the planned training, set before every
    step from the progress, so that nothing but the progress decides it.

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
        return 0.5 * self.lr * (1 + math.cos(math.pi * min(progress, 1.0)))
