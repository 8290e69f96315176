"""A head on frozen encoders."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from mmsearch.fusion.concat import Concat
from mmsearch.methods.frozen_probe import FrozenProbe
from mmsearch.testing import finish, teachers_for, toy_data, weights
from mmsearch.training import train


def test_encoders_stay_the_teachers_down_to_batch_norm_while_the_head_learns(tmp_path: Path) -> None:
    data = toy_data()
    document = {"method": {"name": "frozen_probe"}, "optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 4}
    run = train(data=data, **teachers_for(document, data, tmp_path))
    before = weights(run)
    results = finish(run)
    after = weights(run)
    for u, teacher in run.context.teachers.items():
        for k, v in teacher.encoders[u].state_dict().items():
            assert torch.equal(after[f"encoders.{u}.{k}"], v)
    assert any(not torch.equal(before[k], after[k]) for k in after if k.startswith("fusion"))
    assert results[-1].metrics["train/loss"] < results[0].metrics["train/loss"]
    assert results[-1].cost_joint_epochs < 3


def test_it_refuses_a_fusion_that_mixes_the_encoders() -> None:
    @dataclasses.dataclass
    class Mixing(Concat):
        mixes = True

    assert FrozenProbe().refuses(Mixing(), ["a", "v"])
    assert not FrozenProbe().refuses(Concat(), ["a", "v"])
