"""CML against its worked example, and that its hinge is each clip's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.batch import Batch, Output
from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.methods.cml import chain, chain_losses, confidence
from mmsearch.testing import finish, toy_data
from mmsearch.training import train


def output(unimodal: dict[str, torch.Tensor], present: dict[str, list[bool]] | None = None) -> tuple[Output, Batch]:
    n = len(next(iter(unimodal.values())))
    there = {u: torch.tensor((present or {}).get(u, [True] * n)) for u in unimodal}
    return Output(torch.stack(list(unimodal.values())).sum(0), {}, unimodal), Batch(
        {}, torch.zeros(n).long(), torch.arange(n), there
    )


def test_worked_example() -> None:
    full, sub = (confidence(torch.tensor([z], dtype=torch.float64)) for z in ([2.0, 0, 0], [3.0, 0, 0]))
    assert abs(full.item() - 0.786986) < 1e-6
    assert abs(sub.item() - 0.909443) < 1e-6
    assert abs(F.relu(sub - full).item() - 0.122457) < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.permutations(["a", "v", "t"]))
def test_each_subset_is_the_one_before_less_what_was_removed(seed: int, order: list[str]) -> None:
    generator = torch.Generator().manual_seed(seed)
    z_u = {u: torch.randn(4, 3, generator=generator, dtype=torch.float64) for u in ("a", "v", "t")}
    z = chain(z_u, order)
    torch.testing.assert_close(z[0], sum(z_u.values()))
    for k, u in enumerate(order[:-1]):
        torch.testing.assert_close(z[k] - z[k + 1], z_u[u])


def test_the_hinge_of_one_clip_is_not_paid_by_another() -> None:
    kept = torch.tensor([[3.0, 0, 0], [0.0, 0, 0]], dtype=torch.float64)
    removed = torch.tensor([[-1.0, 0, 0], [5.0, 0, 0]], dtype=torch.float64)
    out, batch = output({"a": removed, "v": kept})
    L, hinge, drops = chain_losses(out, batch, ["a", "v"])
    rise = confidence(kept) - confidence(out.logits)
    assert rise.sum() < 0
    torch.testing.assert_close(hinge, F.relu(rise).mean())
    torch.testing.assert_close(drops, {"a": -rise.mean()})
    torch.testing.assert_close(L, (F.cross_entropy(out.logits, batch.label) + F.cross_entropy(kept, batch.label)) / 2)


def test_a_clip_counts_only_in_subsets_of_which_it_has_something() -> None:
    z = {u: torch.randn(2, 3, dtype=torch.float64) for u in ("a", "v")}
    out, batch = output(z, {"v": [True, False]})
    before = chain_losses(out, batch, ["a", "v"])
    out.unimodal["v"] = z["v"] + torch.tensor([[0.0], [9.0]]) * torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(chain_losses(out, batch, ["a", "v"]), before)


def test_a_clip_that_lacked_the_removed_modality_has_no_hinge() -> None:
    out, batch = output({"a": torch.full((1, 3), -1.0) * torch.eye(3)[:1], "v": torch.eye(3)[:1]}, {"a": [False]})
    assert chain_losses(out, batch, ["a", "v"])[1] == 0


def test_one_modality_is_plain_training() -> None:
    out, batch = output({"a": torch.randn(4, 3)})
    L, hinge, _ = chain_losses(out, batch, ["a"])
    assert hinge == 0
    assert torch.equal(L, F.cross_entropy(out.logits, batch.label))


def test_the_easier_modality_is_the_one_that_is_missed() -> None:
    run = train({"method": {"name": "cml"}, "epochs": 4, "batch_size": 16, "optimizer": {"name": "sgd"}}, toy_data())
    last = finish(run)[-1].metrics
    assert last["cml/drop/m0"] > last["cml/drop/m1"]


def test_a_fusion_that_does_not_add_up_is_refused() -> None:
    other = next(n for n in FUSIONS.names() if not FUSIONS.get(n).decomposable)
    with pytest.raises(MMSearchError, match="add up"):
        train({"method": {"name": "cml"}, "fusion": {"name": other}}, toy_data())
