"""Samplers: one file each, found by scanning this package and the entry points `mmsearch.training.samplers`."""

from mmsearch.registry import Registry
from mmsearch.training.samplers._base import Sampler

SAMPLERS: Registry[Sampler] = Registry("sampler", Sampler, "mmsearch.training.samplers")
"""Every sampler by name."""

__all__ = ["SAMPLERS", "Sampler"]
