"""A model of real sound and frames, small enough for a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmsearch.batch import Batch, Modality
from mmsearch.training import resolve
from mmsearch.training.model import Model

MODALITIES = {
    "sound": Modality("sound", "sound", (8000,), 8000),
    "frames": Modality("frames", "frames", (4, 48, 48, 3), 4),
}


@pytest.fixture
def real_model() -> Callable[..., Model]:
    def build(fusion: dict[str, Any]) -> Model:
        return Model(resolve({"fusion": fusion}, MODALITIES), MODALITIES, 5)

    return build


@pytest.fixture
def real_batch() -> Batch:
    """Four clips; the last one lacks its frames."""
    generator = torch.Generator().manual_seed(0)
    present = {"sound": torch.ones(4, dtype=torch.bool), "frames": torch.tensor([True, True, True, False])}
    inputs = {
        "sound": 0.1 * torch.randn(4, 8000, generator=generator),
        "frames": torch.randint(0, 256, (4, 2, 3, 48, 48), dtype=torch.uint8, generator=generator),
    }
    return Batch(inputs, torch.arange(4), torch.arange(4), present)
