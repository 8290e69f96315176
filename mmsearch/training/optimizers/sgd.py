"""Stochastic gradient descent with momentum."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from mmsearch.knobs import knob
from mmsearch.training.optimizers import Optimizer


@dataclasses.dataclass
class SGD(Optimizer):
    """SGD with momentum: the optimiser of most papers of the field, under which gradient scaling means something."""

    name: ClassVar[str] = "sgd"
    summary: ClassVar[str] = "stochastic gradient descent with momentum, warm-up, cosine to zero"

    lr: float = knob(0.1, "learning rate at the start", low=1e-4, high=1.0, log=True)
    weight_decay: float = knob(1e-4, "weight decay", low=1e-6, high=1e-2, log=True)
    momentum: float = knob(0.9, "momentum", low=0.0, high=0.99, search=False)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """torch.optim.SGD."""
        return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
