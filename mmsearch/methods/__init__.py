"""Balancing methods: one file each, found by scanning this package and the entry points `mmsearch.methods`."""

from mmsearch.methods._base import Context, Dominance, Gradients, Method, NoOp, Stage
from mmsearch.registry import Registry

METHODS: Registry[Method] = Registry("method", Method, "mmsearch.methods")
"""Every balancing method by name."""

__all__ = ["METHODS", "Context", "Dominance", "Gradients", "Method", "NoOp", "Stage"]
