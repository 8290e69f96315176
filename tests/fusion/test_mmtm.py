"""MMTM: squeeze and excitation across modalities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from mmsearch.batch import Batch, Modality
from mmsearch.encoders import ENCODERS
from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.fusion.mmtm import MMTMHead
from mmsearch.training import resolve
from mmsearch.training.model import Model


def test_gates_rescale_channels_by_what_all_modalities_say() -> None:
    head = MMTMHead({"a": 2, "v": 3}, 4, {"a": (2,), "v": (3,)}, blocks=1, ratio=4).double()
    maps = {
        "a": torch.randn(5, 1, 2, 4, 6, dtype=torch.float64),
        "v": torch.randn(5, 2, 3, 3, 3, dtype=torch.float64),
    }
    block = head.blocks["0"]
    S = torch.cat([maps["a"].mean((1, 3, 4)), maps["v"].mean((1, 3, 4))], 1)
    e = torch.relu(S @ block.squeeze.weight.T + block.squeeze.bias)
    gate = torch.sigmoid(e @ block.excite["v"].weight.T + block.excite["v"].bias)
    mixed = head.mix(0, maps)
    torch.testing.assert_close(mixed["v"], maps["v"] * gate[:, None, :, None, None])
    assert mixed["a"].shape == maps["a"].shape
    assert block.squeeze.out_features == 2 * 5 // 4


def test_blocks_stand_behind_the_last_stages_that_all_encoders_have() -> None:
    stages = {"a": (4, 4, 8, 8), "v": (16, 16)}
    head = FUSIONS.create({"name": "mmtm", "blocks": 1}).build({"a": 8, "v": 16}, 2, stages)
    assert list(head.blocks) == ["1"]
    assert head.blocks["1"].widths == {"a": 4, "v": 16}
    same = FUSIONS.create({"name": "mmtm"}).build({"a": 8, "v": 8}, 2, {"a": (4, 4, 8, 8), "v": (4, 4, 8, 8)})
    assert list(same.blocks) == ["1", "2", "3"]


def test_fixed_gates_take_the_place_of_a_modalitys_own() -> None:
    head = MMTMHead({"a": 2, "v": 2}, 3, {"a": (2,), "v": (2,)}, blocks=1, ratio=4)
    maps = {u: torch.randn(3, 1, 2, 2, 2) for u in "av"}
    own = head.mix(0, maps)
    gates = head.gates
    head.fixed = {"a": [torch.tensor([0.25, 0.5])]}
    fixed = head.mix(0, maps)
    torch.testing.assert_close(fixed["a"], maps["a"] * torch.tensor([0.25, 0.5])[:, None, None])
    assert torch.equal(fixed["v"], own["v"])
    assert all(torch.equal(head.gates[u][0], gates[u][0]) for u in "av")


def test_each_modality_hears_of_the_other(real_model: Callable[..., Model], real_batch: Batch) -> None:
    model = real_model({"name": "mmtm"}).eval()
    assert list(model.fusion.blocks) == ["1", "2", "3"]
    before = model(real_batch)
    changed = dataclasses.replace(
        real_batch, inputs={**real_batch.inputs, "frames": real_batch.inputs["frames"].flip(-1) // 2}
    )
    after = model(changed)
    assert not torch.equal(after.features["sound"][:3], before.features["sound"][:3])
    torch.testing.assert_close(sum(before.unimodal.values()), before.logits)


def test_gradients_reach_every_parameter(real_model: Callable[..., Model], real_batch: Batch) -> None:
    model = real_model({"name": "mmtm"})
    model(real_batch).logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_missing_modality_says_nothing_to_the_others(real_model: Callable[..., Model], real_batch: Batch) -> None:
    model = real_model({"name": "mmtm"}).eval()
    out = model(real_batch)
    noise = real_batch.inputs["frames"].clone()
    noise[3] = torch.randint(0, 256, noise[3].shape, dtype=torch.uint8)
    changed = model(dataclasses.replace(real_batch, inputs={**real_batch.inputs, "frames": noise}))
    torch.testing.assert_close(changed.logits, out.logits)
    alone = model(real_batch, mask=["sound"])
    torch.testing.assert_close(alone.logits[3], out.logits[3])


def test_an_encoder_without_stages_is_refused() -> None:
    assert ENCODERS.create({"name": "image", "backbone": "test_vit"}).stages == 0
    modalities = {"picture": Modality("picture", "image", (1, 32, 32, 3)), "x": Modality("x", "vector", (4,))}
    document = {"fusion": {"name": "mmtm"}, "encoders": {"picture": {"name": "image", "backbone": "test_vit"}}}
    with pytest.raises(MMSearchError, match="the encoder image of picture has no stages"):
        resolve(document, modalities)
