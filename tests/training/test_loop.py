"""The one loop: what it yields, what it costs, what it refuses."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.batch import Modality, View
from mmsearch.data.prefetch import prefetch
from mmsearch.encoders import ENCODERS, Encoded, Encoder, EncoderModule
from mmsearch.errors import MMSearchError
from mmsearch.testing import difference, teachers_for, toy_data, weights
from mmsearch.training import Predictor, evaluate, train


def test_it_yields_after_every_epoch() -> None:
    results = list(train({"epochs": 3}, toy_data()))
    assert [(r.epoch, r.final) for r in results] == [(1, False), (2, False), (3, True)]
    assert all(0 <= r.score <= 1 for r in results)
    assert {"train/loss", "val/accuracy", "val/macro_f1", "val/accuracy/m0", "val/accuracy/m1"} <= set(
        results[0].metrics
    )


def test_until_ends_the_training_where_the_planned_one_stood_then() -> None:
    data = toy_data()
    planned, ended = train({"epochs": 5}, data), train({"epochs": 5, "until": 2}, data)
    results = list(ended)
    assert [(r.epoch, r.epochs, r.final) for r in results] == [(1, 5, False), (2, 5, True)]
    assert "parameters" in results[-1].metrics
    for _ in range(2):
        next(planned)
    assert difference(weights(planned), weights(ended)) == 0


def test_the_whole_development_part_is_trained_on_and_scores_are_called_seen() -> None:
    data = toy_data()
    run = train({"fold": None, "epochs": 2}, data)
    assert sorted(run.rows) == sorted(np.flatnonzero(~data.test))
    last = list(run)[-1]
    assert "seen/accuracy" in last.metrics and not any(k.startswith("val/") for k in last.metrics)
    assert last.cost_joint_epochs == pytest.approx(2)


def test_joint_training_costs_one_joint_epoch_an_epoch() -> None:
    assert [round(r.cost_joint_epochs, 6) for r in train({"epochs": 3}, toy_data())] == [1, 2, 3]


def test_one_of_two_equal_encoders_costs_about_half() -> None:
    run = train({"method": {"name": "unimodal", "modality": "m0"}, "epochs": 1}, toy_data())
    assert 0.4 < next(run).cost_joint_epochs < 0.6


def test_distillation_costs_a_third_more_than_joint(tmp_path: Path) -> None:
    data = toy_data()
    document = {"method": {"name": "unimodal_teacher", "teacher": "umt"}, "epochs": 1}
    cost = next(train(data=data, **teachers_for(document, data, tmp_path))).cost_joint_epochs
    assert 1.2 < cost < 1.6


def test_an_ensemble_trains_nothing_and_ends_at_once(tmp_path: Path) -> None:
    data = toy_data()
    document = {"method": {"name": "unimodal_teacher", "teacher": "ume"}, "epochs": 4}
    results = list(train(data=data, **teachers_for(document, data, tmp_path)))
    assert [(r.epoch, r.final, r.cost_joint_epochs) for r in results] == [(4, True, 0.0)]


class Plain(EncoderModule):
    """An encoder without batch norm, which alone makes micro-batches differ from the batch."""

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.width = 8
        self.linear = torch.nn.Linear(d_in, 8)

    def forward(self, x: torch.Tensor, detail: bool = False, draws: torch.Tensor | None = None) -> Encoded:
        return Encoded(self.linear(x).tanh())


@ENCODERS.register
@dataclasses.dataclass
class PlainEncoder(Encoder):
    name = "z_plain"
    kind = "vector"
    summary = "for tests"

    def build(self, modality: Modality) -> EncoderModule:
        return Plain(modality.shape[0])


@pytest.mark.parametrize(
    "method", [{"name": "joint"}, {"name": "ogm", "ge": False}, {"name": "mla"}, {"name": "uniform"}]
)
def test_micro_batches_train_like_the_whole_batch(method: dict) -> None:
    data = toy_data()
    document = {"method": method, "epochs": 2, "encoders": {u: {"name": "z_plain"} for u in data.modalities}}
    whole, parts = train(document, data), train(document, data, micro_batch=16)
    list(whole)
    list(parts)
    assert difference(weights(whole), weights(parts)) < 1e-4


def test_bf16_trains_and_scores_in_float32() -> None:
    run = train({"epochs": 2, "precision": "bf16"}, toy_data())
    assert [r.epoch for r in run] == [1, 2]
    assert evaluate(run.predictor, run.data, "val").probabilities.dtype == np.float32


def test_saved_weights_predict_the_same(tmp_path: Path) -> None:
    data = toy_data()
    run = train({"epochs": 2, "method": {"name": "uniform"}}, data)
    list(run)
    run.save_weights(tmp_path / "w")
    before, after = evaluate(run.predictor, data, "select"), evaluate(tmp_path / "w", data, "select")
    assert np.array_equal(before.probabilities, after.probabilities)
    assert Predictor.load(tmp_path / "w").classes == data.classes


def test_a_checkpoint_of_another_document_is_refused(tmp_path: Path) -> None:
    data = toy_data()
    a = train({"epochs": 2}, data)
    next(a)
    a.save(tmp_path / "c")
    with pytest.raises(MMSearchError, match="another trial document"):
        train({"epochs": 3}, data).restore(tmp_path / "c")


def test_a_damaged_checkpoint_is_an_error_of_one_line(tmp_path: Path) -> None:
    data = toy_data()
    run = train({"epochs": 2}, data)
    run.save(tmp_path / "c")
    file = next((tmp_path / "c").iterdir())
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(MMSearchError, match="not a readable checkpoint"):
        run.restore(tmp_path / "c")


def test_data_of_another_dataset_are_refused() -> None:
    with pytest.raises(MMSearchError, match="made for data"):
        train({"data": "something else"}, toy_data())


def test_an_encoder_starts_alike_whatever_stands_beside_it() -> None:
    data = toy_data()
    alone = train({"method": {"name": "unimodal", "modality": "m1"}}, data)
    joint = train({"method": {"name": "uniform"}}, data)
    for a, b in zip(alone.model.encoders["m1"].parameters(), joint.model.encoders["m1"].parameters(), strict=True):
        assert torch.equal(a, b)


class Shaken(Plain):
    """Turns its draws into noise, and remembers them."""

    def forward(self, x: torch.Tensor, detail: bool = False, draws: torch.Tensor | None = None) -> Encoded:
        given.append(draws)
        return super().forward(x if draws is None else x + draws[:, :1] @ torch.ones(1, x.shape[1]))


@ENCODERS.register
@dataclasses.dataclass
class ShakenEncoder(Encoder):
    name = "z_shaken"
    kind = "vector"
    summary = "for tests"

    def build(self, modality: Modality) -> EncoderModule:
        return Shaken(modality.shape[0])

    def view(self, training: bool) -> View:
        return View(draws=3 if training else 0)


given: list[torch.Tensor | None] = []


def test_augmentation_draws_in_training_alone_and_costs_nothing_beside() -> None:
    data = toy_data()
    run = train({"epochs": 2, "encoders": {u: {"name": "z_shaken"} for u in data.modalities}}, data)
    given.clear()
    result = next(run)
    assert result.cost_joint_epochs == pytest.approx(1.0)
    trained = given[: 2 * -(-len(run.rows) // 32)]
    assert all(d is not None and d.shape[1] == 3 for d in trained)
    given.clear()
    run.evaluate("val")
    assert given and all(d is None for d in given)


def test_micro_batches_and_a_distilled_teacher_see_the_same_augmented_clips(tmp_path: Path) -> None:
    data = toy_data()
    encoders = {u: {"name": "z_shaken"} for u in data.modalities}
    document = {"epochs": 2, "encoders": encoders, "method": {"name": "unimodal_teacher", "teacher": "umt"}}
    arguments = teachers_for(document, data, tmp_path)
    whole, parts = train(data=data, **arguments), train(data=data, **arguments, micro_batch=10)
    assert not whole.context._keep_taught, "a teacher's output is not the same in the next epoch"
    list(whole)
    list(parts)
    assert difference(weights(whole), weights(parts)) < 1e-4


def reading_ahead(data, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets every epoch and evaluation read ahead, as on a GPU; the list gets the device of each."""
    asked = []
    batches = data.batches

    def ahead(*args, device=None, **options):
        asked.append(str(device))
        return prefetch(batches(*args, **options))

    monkeypatch.setattr(data, "batches", ahead)
    return asked


def reading_threads() -> int:
    return sum(t.name == "mmsearch-prefetch" for t in threading.enumerate())


def test_reading_ahead_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = train({"epochs": 2}, toy_data())
    results = list(plain)
    run = train({"epochs": 2}, toy_data())
    asked = reading_ahead(run.data, monkeypatch)
    assert [(r.score, r.metrics) for r in run] == [(r.score, r.metrics) for r in results]
    assert difference(weights(run), weights(plain)) == 0
    assert asked.count("cpu") == 4, "training and evaluation of every epoch"
    assert not reading_threads()


def test_an_epoch_left_in_the_middle_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    run = train({"epochs": 2}, toy_data())
    reading_ahead(run.data, monkeypatch)
    steps = run.steps(run.method.stages()[0], 0, 2)
    next(steps)
    assert reading_threads() == 1
    steps.close()
    assert not reading_threads()

    def broken(ctx, batch):
        raise RuntimeError("no")

    monkeypatch.setattr(run.method, "step", broken)
    with pytest.raises(RuntimeError, match="no") as caught:
        next(run)
    assert not reading_threads(), str(caught)
