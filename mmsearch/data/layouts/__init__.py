"""Layouts of known datasets: one file each, found by scanning this package and the entry points of its name."""

from mmsearch.data.layouts._base import Layout, Listing, Missing, Row
from mmsearch.data.layouts._build import Built, build
from mmsearch.registry import Registry

LAYOUTS: Registry[Layout] = Registry("layout", Layout, "mmsearch.data.layouts")
"""Every layout by name."""

__all__ = ["LAYOUTS", "Built", "Layout", "Listing", "Missing", "Row", "build"]
