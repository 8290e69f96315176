"""OPM: what is dropped, how often, and what it is scaled by."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmsearch.batch import Batch, Output
from mmsearch.methods import Stage
from mmsearch.methods.opm import OPM, modulated
from mmsearch.testing import MethodConformance, finish, toy_data, weights
from mmsearch.training import Training, train


def scores(**s: float) -> dict[str, torch.Tensor]:
    return {u: torch.tensor(x, dtype=torch.float64) for u, x in s.items()}


E0 = scores(a=2.4540903701, v=1.6228968181)


@pytest.mark.parametrize(
    ("q_base", "q_a", "theta", "scale"),
    [(0.5, 0.6179078980, 0.3089539490, 1.4470815636), (0.4, 0.4943263184, 0.2471631592, 1.3283090649)],
)
def test_drop_rate_and_scale(q_base: float, q_a: float, theta: float, scale: float) -> None:
    q = OPM(q_base=q_base).drop_rates(E0)
    assert q["a"].item() == pytest.approx(q_a, abs=1e-8)
    assert q["v"] == 0
    assert (q["a"] / 2).item() == pytest.approx(theta, abs=1e-8)
    one = modulated({"a": torch.ones(1, 1).double()}, {"a": torch.tensor([True])}, q["a"] / 2)
    assert one["a"].item() == pytest.approx(scale, abs=1e-8)


@pytest.mark.parametrize(
    ("kept", "expected"), [(False, [0, 0, 3.984927, -1.328309]), (True, [1.328309, 2.656618, 3.984927, -1.328309])]
)
def test_modulated_features(kept: bool, expected: list) -> None:
    h = {"a": torch.tensor([[1.0, 2]]).double(), "v": torch.tensor([[3.0, -1]]).double()}
    keep = {"a": torch.tensor([kept]), "v": torch.tensor([True])}
    out = modulated(h, keep, torch.tensor(0.2471631592, dtype=torch.float64))
    torch.testing.assert_close(
        torch.cat([out["a"], out["v"]], 1)[0], torch.tensor(expected).double(), rtol=0, atol=1e-6
    )


def test_three_modalities_compare_with_the_mean_of_the_others() -> None:
    q = OPM().drop_rates(scores(a=3.0, v=2.0, t=5.0))
    assert q["a"] == q["v"] == 0
    assert q["t"].item() == pytest.approx(0.5 * (1 + 0.5 * 0.761594), abs=1e-6)


positive = st.floats(0.01, 10)


@example([1.5690104634924] * 3, 0.5, 1.0)
@settings(max_examples=30, deadline=None)
@given(st.lists(positive, min_size=2, max_size=4), st.floats(0.1, 0.9), st.floats(0.05, 2))
def test_the_weakest_is_never_dropped_and_names_do_not_matter(s: list, q_base: float, lam: float) -> None:
    method = OPM(q_base=q_base, lam=lam)
    q = method.drop_rates(scores(**{f"m{i}": x for i, x in enumerate(s)}))
    assert all(0 <= x <= 1 for x in q.values())
    assert q[f"m{s.index(min(s))}"] == 0
    turned = method.drop_rates(scores(**{f"m{i}": x for i, x in reversed(list(enumerate(s)))}))
    assert all(turned[u].item() == pytest.approx(q[u].item(), abs=1e-12) for u in q)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.9), st.floats(0, 0.9), st.integers(1, 5), st.integers(1, 5))
def test_the_expected_feature(q_a: float, q_v: float, d_a: int, d_v: int) -> None:
    q, d = {"a": q_a, "v": q_v}, {"a": d_a, "v": d_v}
    theta = torch.tensor((d_a * q_a + d_v * q_v) / (d_a + d_v), dtype=torch.float64)
    h = {u: torch.arange(1.0, d[u] + 1).double()[None] for u in q}
    mean = {u: torch.zeros_like(x) for u, x in h.items()}
    for m_a, m_v in itertools.product([False, True], repeat=2):
        out = modulated(h, {"a": torch.tensor([m_a]), "v": torch.tensor([m_v])}, theta)
        p = (1 - q_a if m_a else q_a) * (1 - q_v if m_v else q_v)
        mean = {u: mean[u] + p * out[u] for u in h}
    for u in h:
        torch.testing.assert_close(mean[u], h[u] * (1 - q[u]) / (1 - theta))


def one_step(missing: float = 0.0, **knobs: float) -> tuple[Training, dict, dict, Batch]:
    """A run, the features of a batch before and after the method, and the batch; the easier modality leads by then."""
    data = toy_data(missing=missing)
    method = {"name": "opm", "warm_up": 0.0, "p_exe": 1.0, **knobs}
    run = train({"method": method, "batch_size": 32, "epochs": 4}, data)
    finish(run)
    batch = next(data.batches(run.rows, 64, run.predictor.views(training=True), seed=0, epoch=0))
    run.context.start_epoch(Stage("train"), 0, 1)
    run.context.start_step(batch, 0.5)
    before = {u: e.pooled.detach() for u, e in run.model.encode(batch).items()}
    return run, before, run.method.modify_features(run.context, before, batch), batch


def test_only_the_leader_is_dropped_clip_by_clip_and_all_are_scaled_alike() -> None:
    _, before, after, _ = one_step(q_base=0.5)
    dropped = {u: (h == 0).all(1) for u, h in after.items()}
    leader, other = "m0", "m1"
    assert 0 < dropped[leader].sum() < 64
    assert not dropped[other].any()
    scale = (after[other] / before[other]).nanmean()
    assert scale > 1
    torch.testing.assert_close(after[other], before[other] * scale)
    torch.testing.assert_close(after[leader][~dropped[leader]], before[leader][~dropped[leader]] * scale)


def test_a_clip_of_which_nothing_remains_does_not_count() -> None:
    run, _, after, batch = one_step(missing=0.5, q_base=0.9)
    gone = torch.stack([(h == 0).all(1) for h in after.values()]).all(0)
    assert gone.any() and not gone.all()
    z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    out = Output(z, after, {})
    L = run.method.compute_loss(run.context, out, batch)
    torch.testing.assert_close(L, F.cross_entropy(z[~gone], batch.label[~gone]))


def test_nothing_happens_without_execution() -> None:
    data, document = toy_data(), {"epochs": 2, "batch_size": 16}
    idle = train({**document, "method": {"name": "opm", "p_exe": 0.0}}, data)
    joint = train({**document, "method": {"name": "joint"}}, data)
    finish(idle)
    finish(joint)
    assert all(torch.equal(a, b) for a, b in zip(weights(idle).values(), weights(joint).values(), strict=True))


def test_the_drop_rate_points_at_the_easier_modality() -> None:
    results = list(train({"method": {"name": "opm", "warm_up": 0.0}, "epochs": 3, "batch_size": 16}, toy_data()))
    assert results[-1].metrics["opm/q/m0"] > results[-1].metrics["opm/q/m1"]


class TestEveryBatch(MethodConformance):
    method = {"name": "opm", "warm_up": 0.0, "p_exe": 1.0, "q_base": 0.9}
    epochs = 3
