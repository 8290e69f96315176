"""What holds for every fusion that reads tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from mmsearch.batch import Batch
from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.testing import toy_data
from mmsearch.training import resolve
from mmsearch.training.model import Model

pytestmark = pytest.mark.parametrize("name", [n for n in FUSIONS.names() if FUSIONS.get(n).reads_tokens])


def test_tokens_of_real_encoders(name: str, real_model: Callable[..., Model], real_batch: Batch) -> None:
    model = real_model({"name": name})
    out = model(real_batch)
    assert out.logits.shape == (4, 5)
    assert all(x.shape[1] > 1 for x in out.tokens.values())
    out.logits.square().sum().backward()
    assert all(p.grad is not None for g in ("sound", "frames", "head") for p in model.groups()[g])
    model.eval()
    z = model(real_batch).logits
    noise = real_batch.inputs["frames"].clone()
    noise[3] = 255 - noise[3]
    changed = dataclasses.replace(real_batch, inputs={**real_batch.inputs, "frames": noise})
    torch.testing.assert_close(model(changed).logits, z)


def test_one_modality_is_refused(name: str) -> None:
    with pytest.raises(MMSearchError, match="there is only one"):
        resolve({"fusion": {"name": name}}, toy_data(1).modalities)
