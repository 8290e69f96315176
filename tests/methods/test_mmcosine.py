"""MMCosine against its worked example, and that length means nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.mmcosine import CosineHead
from mmsearch.testing import finish, toy_data
from mmsearch.training import train


def head(s: float = 10.0) -> CosineHead:
    made = CosineHead({"a": 2, "v": 2}, 2, s).double()
    made.linear.weight.data = torch.tensor([[1, 0, -1, 2], [0, 1, 1, -1]], dtype=torch.float64)
    return made


H = {"a": torch.tensor([[1.0, 2]], dtype=torch.float64), "v": torch.tensor([[3.0, -1]], dtype=torch.float64)}


def test_worked_example() -> None:
    z_u, z = head().unimodal(H), head()(H)
    expected = {"a": [4.472136, 8.944272], "v": [-7.071068, 8.944272]}
    for u, values in expected.items():
        torch.testing.assert_close(z_u[u][0], torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(z[0], torch.tensor([-2.598932, 17.888544], dtype=torch.float64), rtol=0, atol=1e-6)
    assert abs(F.cross_entropy(z, torch.tensor([0])).item() - 20.4874757) < 1e-6


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(2, 64))
def test_the_length_of_features_and_weights_means_nothing(seed: int, factor: float, s: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    h = {u: torch.randn(3, 2, generator=generator, dtype=torch.float64) for u in ("a", "v")}
    one, other = head(s), head(s)
    other.linear.weight.data[:, 2:] *= factor
    torch.testing.assert_close(other({**h, "a": h["a"] * factor}), one(h))
    assert all((z_u.abs() <= s + 1e-9).all() for z_u in one.unimodal(h).values())
    torch.testing.assert_close(sum(one.unimodal(h).values()), one(h))


def test_a_zero_feature_adds_nothing_and_gets_no_gradient() -> None:
    h_v = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    z = head()({"a": H["a"], "v": h_v})
    torch.testing.assert_close(z, head()({"a": H["a"]}))
    z.sum().backward()
    assert h_v.grad is not None
    assert not h_v.grad.any()


def test_evaluation_uses_cosines_and_the_easier_modality_has_the_larger_one() -> None:
    data = toy_data()
    run = train(
        {"method": {"name": "mmcosine", "s": 5.0}, "epochs": 3, "batch_size": 16, "optimizer": {"name": "sgd"}}, data
    )
    results = finish(run)
    assert all(r.metrics["mmcosine/cosine/m0"] > r.metrics["mmcosine/cosine/m1"] for r in results)
    assert float(run.evaluate("val").output.logits.abs().max()) <= 10
    assert not any("bias" in name for name, _ in run.model.fusion.named_parameters())
