"""Adam with decoupled weight decay."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from mmsearch.knobs import knob
from mmsearch.training.optimizers import Optimizer


@dataclasses.dataclass
class AdamW(Optimizer):
    """AdamW. Scaling a gradient by a constant hardly changes its steps: gradient-scaling methods nearly vanish."""

    name: ClassVar[str] = "adamw"
    summary: ClassVar[str] = "Adam with decoupled weight decay, warm-up, cosine to zero"

    lr: float = knob(1e-3, "learning rate at the start", low=1e-5, high=1e-1, log=True)
    weight_decay: float = knob(1e-2, "weight decay", low=1e-4, high=1.0, log=True)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """torch.optim.AdamW."""
        return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
