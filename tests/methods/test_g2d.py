"""G²D: what is distilled and who waits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.g2d import G2D, distillation, silenced
from mmsearch.testing import MethodConformance, teachers_for, toy_data
from mmsearch.training import EpochResult, Training, train

Z = torch.tensor([[2, 0.5, -1], [0.2, 1.5, 0]], dtype=torch.float64)
Z_T = torch.tensor([[0.3, 0.1, 0], [0.5, 0.4, 0.2]], dtype=torch.float64)


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_distillation_is_the_divergence_from_the_teacher_times_the_squared_temperature(T: float) -> None:
    p, p_T = F.softmax(Z / T, 1), F.softmax(Z_T / T, 1)
    torch.testing.assert_close(distillation(Z, Z_T, T), T**2 * (p_T * (p_T / p).log()).sum(1))
    assert torch.equal(distillation(Z, Z, T), torch.zeros(2).double())


def scores(**s: float) -> dict[str, torch.Tensor]:
    return {u: torch.tensor(x) for u, x in s.items()}


def test_the_modality_of_the_stronger_teacher_waits() -> None:
    assert silenced(scores(a=2.4, v=1.6), 1) == {"a": True, "v": False}
    assert silenced(scores(a=1.6, v=2.4), 1) == {"a": False, "v": True}


def test_in_a_tie_nobody_waits() -> None:
    assert not any(silenced(scores(a=2.0, v=2.0), 1).values())


def test_three_modalities_join_from_the_weakest_on() -> None:
    method = G2D(end=0.6)
    joined = []
    for progress in (0.0, 0.29, 0.31, 0.59, 0.6, 1.0):
        waits = silenced(scores(a=3.0, v=1.0, t=2.0), method.learning(progress, 3))
        joined.append("".join(u for u in waits if not waits[u]))
    assert joined == ["v", "v", "vt", "vt", "avt", "avt"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=5), st.floats(0, 1))
def test_the_weakest_always_learns(s: list, progress: float) -> None:
    waits = silenced(scores(**{f"m{i}": x for i, x in enumerate(s)}), G2D().learning(progress, len(s)))
    assert not waits[f"m{s.index(min(s))}"]
    if progress >= 0.5:
        assert not any(waits.values())


def run(folder: Path, epochs: int = 4, modalities: int = 2, **knobs: object) -> Training:
    data = toy_data(modalities)
    document = {
        "method": {"name": "g2d", **knobs},
        "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 1e-6},
        "epochs": epochs,
        "batch_size": 400,
    }
    return train(data=data, **teachers_for(document, data, folder))


def moved(training: Training, u: str) -> tuple[bool, EpochResult]:
    """Whether any matrix of an encoder moves in the next epoch, by more than weight decay does."""
    before = [p.clone() for p in training.model.encoders[u].parameters() if p.ndim >= 2]
    result = next(training)
    after = [p for p in training.model.encoders[u].parameters() if p.ndim >= 2]
    return any((a - b).abs().max() > 1e-6 for a, b in zip(before, after, strict=True)), result


@pytest.mark.parametrize("apply_to", ["grad", "lr"])
def test_the_encoder_of_the_stronger_teacher_stands_still_until_the_end_of_the_window(
    tmp_path: Path, apply_to: str
) -> None:
    training = run(tmp_path, apply_to=apply_to)
    found = [moved(training, "m0") for _ in range(4)]
    assert [m for m, _ in found] == [False, False, True, True]
    first = found[0][1].metrics
    assert first["g2d/score/m0"] > first["g2d/score/m1"]
    assert (first["g2d/waits/m0"], first["g2d/waits/m1"]) == (1, 0)
    assert found[-1][1].metrics["g2d/waits/m0"] == 0


def test_the_weaker_encoder_learns_all_along(tmp_path: Path) -> None:
    training = run(tmp_path)
    assert all(moved(training, "m1")[0] for _ in range(4))


def test_vectors_have_no_convolutions_to_halt(tmp_path: Path) -> None:
    assert moved(run(tmp_path, tensors="conv"), "m0")[0]


class TestDistillationAlone(MethodConformance):
    method = {"name": "g2d", "end": 0.0, "T": 4.0, "w_feature": 10.0}
    epochs = 3


class TestRates(MethodConformance):
    method = {"name": "g2d", "end": 0.8, "apply_to": "lr"}
    epochs = 3
