"""Manifests, decoding, the clip store and batches. Names are imported on first use: decode workers stay small."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsearch.data.clips import ClipData, clip_data
    from mmsearch.data.dataset import Clip, Dataset, ModalityConfig
    from mmsearch.data.pipeline import Prepared, prepare
    from mmsearch.data.quality import Quality
    from mmsearch.data.store import Store, default_store

__all__ = [
    "Clip",
    "ClipData",
    "Dataset",
    "ModalityConfig",
    "Prepared",
    "Quality",
    "Store",
    "clip_data",
    "default_store",
    "prepare",
]

_HOME = {
    "Clip": "dataset",
    "ClipData": "clips",
    "Dataset": "dataset",
    "ModalityConfig": "dataset",
    "Prepared": "pipeline",
    "Quality": "quality",
    "Store": "store",
    "clip_data": "clips",
    "default_store": "store",
    "prepare": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
