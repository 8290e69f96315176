"""Fusion heads: one file each, found by scanning this package and the entry points `mmsearch.fusion`."""

from mmsearch.fusion._base import Fusion, Head
from mmsearch.registry import Registry

FUSIONS: Registry[Fusion] = Registry("fusion", Fusion, "mmsearch.fusion")
"""Every fusion by name."""

OWN = "own"
"""The fusion of a method that brings its own head."""

__all__ = ["FUSIONS", "OWN", "Fusion", "Head"]
