"""The logarithmic opinion pool."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.fusion import FUSIONS
from mmsearch.fusion._post_hoc import log_product
from mmsearch.fusion.log_pool import LARGEST, LogPoolHead

Z_A = torch.tensor([[2, 0.5, -1], [0.2, 1.5, 0], [1, 0, 2.5], [1.2, 0.3, 0.1]], dtype=torch.float64)
Z_V = torch.tensor([[0.3, 0.1, 0], [0.5, 0.4, 0.2], [0.2, 0.6, 0.5], [0, 0.9, 0.1]], dtype=torch.float64)
E0 = {"a": Z_A, "v": Z_V}
ALL = {u: torch.ones(4, dtype=torch.bool) for u in E0}


def pool(M: int = 2, classes: int = 3) -> LogPoolHead:
    return FUSIONS.create({"name": "log_pool"}).build({f"m{i}": 1 for i in range(M)}, classes).double()


def named(z: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"m{i}": x for i, x in enumerate(z.values())}


@pytest.mark.parametrize(
    ("w", "expected"), [([0.5, 0.5], [0.6175, 0.2639, 0.1186]), ([1.0, 1.0], [0.8200, 0.1498, 0.0302])]
)
def test_worked_example(w: list[float], expected: list[float]) -> None:
    head = pool()
    head.w.copy_(torch.tensor(w))
    p = head.combine(named(E0), named(ALL)).softmax(1)[0]
    torch.testing.assert_close(p, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-5)
    exact = (w[0] * Z_A + w[1] * Z_V)[0].softmax(0)
    torch.testing.assert_close(p, exact, rtol=0, atol=1e-12)


def test_before_the_fit_the_weights_are_equal() -> None:
    torch.testing.assert_close(pool(4).w, torch.full((4,), 0.25, dtype=torch.float64))


@settings(deadline=None, max_examples=15)
@given(M=st.integers(1, 4), seed=st.integers(0, 999))
def test_fitted_weights_have_the_least_nll(M: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = {f"m{i}": torch.randn(60, 3, dtype=torch.float64, generator=generator) for i in range(M)}
    label = torch.multinomial(sum(z.values()).softmax(1), 1, generator=generator)[:, 0]
    present = {u: torch.rand(60, generator=generator) > 0.2 for u in z}
    head = pool(M)
    head.fit(z, label, present)
    log_p = torch.stack([x.log_softmax(1) for x in z.values()])
    here = torch.stack(list(present.values()))
    w = head.w.clone().requires_grad_()
    F.cross_entropy(log_product(log_p, here, w), label).backward()
    for w_u, slope in zip(head.w, w.grad, strict=True):
        inside = 0 < w_u < LARGEST
        assert abs(slope) < 1e-3 if inside else (slope > -1e-3 if w_u == 0 else slope < 1e-3)


def test_the_modality_that_knows_gets_the_weight() -> None:
    label = torch.arange(40) % 3
    generator = torch.Generator().manual_seed(0)
    knows = 2 * torch.eye(3, dtype=torch.float64)[label] + torch.randn(40, 3, dtype=torch.float64, generator=generator)
    noise = torch.randn(40, 3, dtype=torch.float64, generator=generator)
    head = pool()
    head.fit({"m0": knows, "m1": noise}, label, {u: torch.ones(40, dtype=torch.bool) for u in ("m0", "m1")})
    assert head.w[0] > 3 * head.w[1]


def test_a_missing_modality_drops_out_of_the_product() -> None:
    head = pool()
    head.w.copy_(torch.tensor([0.7, 0.2]))
    z = head.combine(named(E0), {"m0": ALL["a"], "m1": ~ALL["v"]})
    torch.testing.assert_close(z, 0.7 * Z_A.log_softmax(1))
