"""Greedy: curation by conditional learning speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.errors import MMSearchError
from mmsearch.methods.greedy import Greedy, bdr, speed
from mmsearch.testing import MethodConformance, toy_data, weights
from mmsearch.training import Training, resolve, train

BUSY = {"name": "greedy", "eps": 1e-4, "window": 3, "start": 0.0}


class TestBusy(MethodConformance):
    """Curating most of the time."""

    method = BUSY


def run(method: dict[str, Any], **changes: Any) -> Training:
    document = {"method": method, "fusion": {"name": "mmtm"}, "epochs": 3, "batch_size": 16}
    data = toy_data(clips=80, missing=changes.pop("missing", 0.0))
    return train({**document, "optimizer": {"name": "sgd", "lr": 0.02}, **changes}, data)


def test_worked_example() -> None:
    method = Greedy()
    method._bypass, method._main = [0.02 + 0.03, 0.08 + 0.12], [0.4 + 0.6, 0.5 + 0.5]
    assert method.difference() == pytest.approx(-0.602060, abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    a=st.floats(1e-6, 1e3), b=st.floats(1e-6, 1e3), c=st.floats(1e-6, 1e3), d=st.floats(1e-6, 1e3), k=st.floats(0.1, 9)
)
def test_the_difference_swaps_with_the_modalities_and_ignores_a_common_factor(
    a: float, b: float, c: float, d: float, k: float
) -> None:
    assert bdr(a, b) - bdr(c, d) == pytest.approx(-(bdr(c, d) - bdr(a, b)))
    assert bdr(k * a, b) - bdr(k * c, d) == pytest.approx(bdr(a, b) - bdr(c, d), abs=1e-9)


def test_speed_is_the_gradient_over_the_weights_of_all_tensors_together() -> None:
    p, q = (torch.nn.Parameter(torch.tensor(x)) for x in ([1.0, 2.0], [3.0]))
    p.grad = torch.tensor([2.0, 4.0])
    assert speed([p, q]) == pytest.approx(20 / 14)


def one_step(training: Training) -> None:
    batch = next(training.data.batches(training.rows, 16, training.predictor.views(training=True)))
    training.context.start_step(batch, 0.0)
    training.model.train()
    training.method.step(training.context, batch)


@pytest.mark.parametrize(
    ("bypass", "main", "caring"),
    [([0.2, 0.05], [1, 1], 0), ([0.05, 0.2], [1, 1], 1), ([0.1, 0.1], [1, 1], None), ([0.1, 0.1], [1, 1.5], 0)],
)
def test_the_modality_with_the_larger_bdr_is_cared_for(bypass: list, main: list, caring: int | None) -> None:
    training = run({"name": "greedy", "start": 0.0})
    much = 1e9  # beside which a step adds nothing
    state = {**training.method.state_dict(), "bypass": [much * b for b in bypass], "main": [much * m for m in main]}
    training.method.load_state_dict(state)
    one_step(training)
    after = training.method.state_dict()
    assert (after["caring"] if after["left"] else None) == caring


def test_a_curation_lasts_its_window_and_adds_up_no_speeds() -> None:
    training = run({**BUSY, "window": 3})
    one_step(training)
    method = training.method
    for left in (3, 2, 1):
        assert method._left == left
        before = (list(method._bypass), list(method._main))
        one_step(training)
        assert (method._bypass, method._main) == before
    assert method._left == 0
    one_step(training)
    assert method._bypass != before[0]


def test_a_curated_modality_hears_nothing_of_the_other_one_and_the_other_keeps_its_gates() -> None:
    training = run(BUSY)
    one_step(training)
    u = training.context.modalities[training.method._caring]
    other = next(v for v in training.context.modalities if v != u)
    batch = next(training.data.batches(training.rows, 16, training.predictor.views(training=True)))
    head = training.model.eval().fusion
    head.fixed = {u: training.method._average[u]}
    features = training.model(batch).features
    batch.inputs[other] = batch.inputs[other].flip(0)
    assert torch.equal(training.model(batch).features[u], features[u])
    batch.inputs[other] = batch.inputs[other].flip(0)
    batch.inputs[u] = batch.inputs[u].flip(0)
    assert not torch.equal(training.model(batch).features[other], features[other])


def test_every_modality_has_the_running_average_of_its_own_gates() -> None:
    training = run({"name": "greedy", "start": 1.0})
    seen: dict[str, list[torch.Tensor]] = {"m0": [], "m1": []}
    for _ in range(3):
        one_step(training)
        for u, gates in training.model.fusion.gates.items():
            seen[u].append(gates[0].mean(0))
    for u, gates in seen.items():
        torch.testing.assert_close(training.method._average[u][0], torch.stack(gates).mean(0))


def test_the_average_counts_only_clips_that_have_the_modality() -> None:
    training = run({"name": "greedy", "start": 1.0}, missing=0.5)
    batch = next(training.data.batches(training.rows, 16, training.predictor.views(training=True)))
    here = batch.present["m1"]
    assert not here.all()
    one_step(training)
    expected = training.model.fusion.gates["m1"][0][here].mean(0)
    torch.testing.assert_close(training.method._average["m1"][0], expected)


def test_evaluation_uses_the_gates_themselves_and_leaves_the_averages_alone() -> None:
    training = run(BUSY)
    one_step(training)
    assert training.method._left
    before = {u: [a.clone() for a in gates] for u, gates in training.method._average.items()}
    probabilities = training.evaluate("val").probabilities
    assert training.model.fusion.fixed == {}
    assert all(torch.equal(a, b) for u in before for a, b in zip(before[u], training.method._average[u], strict=True))
    training.method._left = 0
    assert (training.evaluate("val").probabilities == probabilities).all()


def test_curation_changes_the_training() -> None:
    busy, idle = run(BUSY), run({"name": "greedy", "start": 1.0})
    curated = [sum(v for k, v in r.metrics.items() if k.startswith("greedy/curated")) for r in busy]
    list(idle)
    assert all(share > 0.3 for share in curated)
    assert any(not torch.equal(a, b) for a, b in zip(weights(busy).values(), weights(idle).values(), strict=True))


def test_a_curation_goes_on_after_a_restart(tmp_path: Path) -> None:
    whole = run({**BUSY, "window": 50})
    next(whole)
    assert whole.method._left > 0
    whole.save(tmp_path)
    rest = run({**BUSY, "window": 50})
    rest.restore(tmp_path)
    assert [r.metrics for r in rest] == [r.metrics for r in whole]


@pytest.mark.parametrize("fusion", ["concat", "sum", "film"])
def test_other_fusions_are_refused(fusion: str) -> None:
    with pytest.raises(MMSearchError, match="only the fusion mmtm has"):
        resolve({"method": {"name": "greedy"}, "fusion": {"name": fusion}}, toy_data().modalities)


@pytest.mark.parametrize("modalities", [1, 3])
def test_other_numbers_of_modalities_are_refused(modalities: int) -> None:
    document = {"method": {"name": "greedy"}, "fusion": {"name": "mmtm"}}
    with pytest.raises(MMSearchError, match=f"two modalities, here are {modalities}"):
        resolve(document, toy_data(modalities).modalities)
