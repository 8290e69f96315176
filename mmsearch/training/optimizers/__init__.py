"""Optimisers: one file each, found by scanning this package and the entry points `mmsearch.training.optimizers`."""

from mmsearch.registry import Registry
from mmsearch.training.optimizers._base import Optimizer

OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", Optimizer, "mmsearch.training.optimizers")
"""Every optimiser by name."""

__all__ = ["OPTIMIZERS", "Optimizer"]
