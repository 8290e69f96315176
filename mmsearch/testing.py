"""The conformance suite for methods, public: subclass it for a method of your own.

from mmsearch.testing import MethodConformance

class TestMine(MethodConformance):
    method = {"name": "mine", "strength": 0.5}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmsearch.batch import Modality
from mmsearch.data.clips import ClipData
from mmsearch.methods import METHODS
from mmsearch.training import Training, train


def toy_data(modalities: int = 2, *, clips: int = 200, classes: int = 4, missing: float = 0.0) -> ClipData:
    """Feature vectors in memory; the first modality is the easiest to learn from.

    Args:
        modalities: how many.
        clips: how many.
        classes: C.
        missing: share of the clips that lack the last modality.
    """
    rng = np.random.default_rng(0)
    label = np.arange(clips) % classes
    inputs, specs, present = {}, {}, {}
    for i in range(modalities):
        u = f"m{i}"
        prototypes = rng.normal(size=(classes, 12))
        inputs[u] = (prototypes[label] / (i + 1) + rng.normal(size=(clips, 12))).astype(np.float32)
        specs[u] = Modality(u, "vector", (12,))
        present[u] = np.ones(clips, dtype=bool)
    present[f"m{modalities - 1}"] = rng.random(clips) >= missing
    return ClipData.from_arrays(inputs, label, modalities=specs, present=present)


def teachers_for(document: dict[str, Any], data: ClipData, folder: Path) -> dict[str, Any]:
    """Trains the teachers a document needs; the result goes into :func:`mmsearch.training.train` as keywords."""
    method = METHODS.create(document["method"])
    if not method.needs_teachers:
        return {"document": document, "teachers": {}}
    paths = {}
    for u in method.modalities(list(data.modalities)):
        run = train({**document, "method": {"name": "unimodal", "modality": u}}, data)
        for _ in run:
            pass
        run.save_weights(folder / u)
        paths[u] = folder / u
    return {"document": {**document, "teachers": {u: f"teacher-{u}" for u in paths}}, "teachers": paths}


def weights(run: Training) -> dict[str, torch.Tensor]:
    """A copy of a run's weights."""
    return {k: v.clone() for k, v in run.model.state_dict().items()}


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest absolute difference of two sets of weights; infinite where the names differ."""
    if a.keys() != b.keys():
        return float("inf")
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


class MethodConformance:
    """What every method must hold, as pytest tests; set `method` to its document."""

    method: ClassVar[dict[str, Any]]
    epochs: ClassVar[int] = 4

    def document(self, data: ClipData) -> dict[str, Any]:
        """A short training of the method on the toy data."""
        method = dict(self.method)
        if method["name"] == "unimodal":
            method.setdefault("modality", next(iter(data.modalities)))
        return {
            "method": method,
            "optimizer": {"name": "sgd", "lr": 0.02},
            "epochs": self.epochs,
            "batch_size": 16,
        }

    def run(self, data: ClipData, folder: Path, **changes: Any) -> Training:
        """A fresh run."""
        return train(data=data, **teachers_for({**self.document(data), **changes}, data, folder))

    def finished(self, data: ClipData, folder: Path, **changes: Any) -> Training:
        """A run to its end."""
        run = self.run(data, folder, **changes)
        for _ in run:
            pass
        return run

    def test_its_document_survives_json(self) -> None:
        """create and document are inverse."""
        component = METHODS.create(self.method)
        document = METHODS.document(component)
        assert METHODS.document(METHODS.create(json.loads(json.dumps(document)))) == document

    def test_the_same_document_gives_the_same_result(self, tmp_path: Path) -> None:
        """Twice trained, the weights and every figure but the time are equal."""
        data = toy_data()
        runs = [self.run(data, tmp_path) for _ in range(2)]
        results = [[(r.score, r.metrics, r.cost_joint_epochs) for r in run] for run in runs]
        assert results[0] == results[1]
        assert difference(weights(runs[0]), weights(runs[1])) == 0

    def test_restoring_in_the_middle_equals_never_having_stopped(self, tmp_path: Path) -> None:
        """For every epoch at which it may stop."""
        data = toy_data()
        whole = self.run(data, tmp_path)
        results = []
        for result in whole:
            whole.save(tmp_path / f"after-{result.epoch}")
            results.append(result)
        for result in results[:-1]:
            rest = self.run(data, tmp_path)
            rest.restore(tmp_path / f"after-{result.epoch}")
            after = list(rest)
            assert [r.metrics for r in after] == [r.metrics for r in results if r.epoch > result.epoch]
            assert after[-1].cost_joint_epochs == results[-1].cost_joint_epochs
            assert difference(weights(whole), weights(rest)) == 0

    def test_it_leaves_the_callers_random_stream_alone(self, tmp_path: Path) -> None:
        """Training draws nothing from the global stream."""
        data = toy_data(clips=80)
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        self.finished(data, tmp_path, epochs=2)
        assert torch.equal(torch.rand(1), expected)

    def test_its_declared_no_op_holds(self, tmp_path: Path) -> None:
        """Under the no-op's knobs the weights are those of the method it equals; without one there is a reason."""
        no_op = METHODS.get(self.method["name"]).no_op
        if no_op.equals is None:
            assert no_op.reason
            return
        data = toy_data()
        mine = self.finished(data, tmp_path, method={"name": self.method["name"], **no_op.knobs})
        other = train({**self.document(data), "method": {"name": no_op.equals}}, data)
        for _ in other:
            pass
        assert difference(weights(mine), weights(other)) <= no_op.tolerance

    def test_three_modalities(self, tmp_path: Path) -> None:
        """It trains on three."""
        run = self.run(toy_data(3), tmp_path)
        assert [r.epoch for r in run][-1] == self.epochs

    def test_a_modality_missing_in_part_of_a_batch(self, tmp_path: Path) -> None:
        """Weights and scores stay finite."""
        run = self.finished(toy_data(missing=0.5), tmp_path)
        assert all(torch.isfinite(w).all() for w in weights(run).values() if w.is_floating_point())

    def test_micro_batches_see_the_whole_batch(self, tmp_path: Path) -> None:
        """Accumulation over micro-batches runs to the end, with finite weights."""
        data = toy_data()
        arguments = teachers_for(self.document(data), data, tmp_path)
        run = train(data=data, micro_batch=8, **arguments)
        for _ in run:
            pass
        assert all(torch.isfinite(w).all() for w in weights(run).values() if w.is_floating_point())
