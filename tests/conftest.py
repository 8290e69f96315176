"""Fixtures for every test."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MMSEARCH_KNOWLEDGE"] = tempfile.mkdtemp(prefix="mmsearch-knowledge-")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def real_clips() -> Path:
    """The folder of real clips."""
    folder = os.environ.get("MMSEARCH_CLIPS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real clips are not here: set MMSEARCH_CLIPS to their folder")
    return Path(folder)
