"""The conformance suites for methods and fusions, public: subclass them for your own.

from mmsearch.testing import MethodConformance

class TestMine(MethodConformance):
    method = {"name": "mine", "strength": 0.5}
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from mmsearch.batch import Modality
from mmsearch.data.clips import ClipData
from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.knobs import MODALITIES, knobs_of
from mmsearch.methods import METHODS
from mmsearch.training import EpochResult, Training, default_encoder, evaluate, refusal, train


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
    held = method.needs_held
    for u in method.modalities(list(data.modalities)):
        recipe = {k: v for k, v in document.items() if k not in ("method", "fusion", "post_hoc")}
        run = train({**recipe, "held": held, "method": {"name": "unimodal", "modality": u}}, data)
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


def finish(run: Training) -> list[EpochResult]:
    """Runs a training to its end."""
    return list(run)


def fusion_for(method: dict[str, Any], data: ClipData) -> dict[str, Any]:
    """`{"fusion": ...}` with the first fusion that goes with a method, concat if it does; empty for one's own."""
    component = METHODS.create(method)
    if component.own_fusion:
        return {}
    encoders = {u: default_encoder(m.kind) for u, m in data.modalities.items()}
    used = component.modalities(list(data.modalities))
    names = sorted(FUSIONS.names(), key=lambda n: n != "concat")
    documents = ({"name": n} for n in names)
    return {"fusion": next(d for d in documents if not refusal(component, d, used, encoders))}


class MethodConformance:
    """What every method must hold, as pytest tests; set `method` to its document.

    Refusing a number of modalities with a reason, before anything starts, is a pass.
    """

    method: ClassVar[dict[str, Any]]
    epochs: ClassVar[int] = 4

    def document(self, data: ClipData) -> dict[str, Any]:
        """A short training of the method on the toy data."""
        method = dict(self.method)
        for name, knob in knobs_of(METHODS.get(method["name"])).items():
            if knob.choices == MODALITIES:
                method.setdefault(name, next(iter(data.modalities)))
        return {
            "method": method,
            **fusion_for(method, data),
            "optimizer": {"name": "sgd", "lr": 0.02},
            "epochs": self.epochs,
            "batch_size": 16,
        }

    def run(self, data: ClipData, folder: Path, micro_batch: int | None = None, **changes: Any) -> Training:
        """A fresh run."""
        arguments = teachers_for({**self.document(data), **changes}, data, folder)
        return train(data=data, micro_batch=micro_batch, **arguments)

    def finished(self, data: ClipData, folder: Path, **changes: Any) -> Training:
        """A run to its end."""
        run = self.run(data, folder, **changes)
        finish(run)
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
        """After every epoch at which it may stop, rehearsals included."""
        data = toy_data()
        whole = self.run(data, tmp_path)
        results = []
        for i, result in enumerate(whole):
            whole.save(tmp_path / f"after-{i}")
            results.append(result)
        for i in range(len(results) - 1):
            rest = self.run(data, tmp_path)
            rest.restore(tmp_path / f"after-{i}")
            after = list(rest)
            assert [r.metrics for r in after] == [r.metrics for r in results[i + 1 :]]
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
        method = {"name": self.method["name"], **no_op.knobs}
        mine = self.finished(data, tmp_path, method=method, **fusion_for(method, data))
        assert self._shared(mine, self._equal(mine, data, no_op.equals)) <= no_op.tolerance

    def test_before_its_window_it_changes_nothing(self, tmp_path: Path) -> None:
        """Of a method with the knob `start` or `warm_up`: until then the weights are those of the no-op's method."""
        component = METHODS.get(self.method["name"])
        times = [k for n, k in knobs_of(component).items() if n in ("start", "warm_up")]
        if not times or component.no_op.equals is None:
            return
        data = toy_data()
        method = {**self.method, times[0].name: times[0].high}
        before = int((times[0].high or 0) * 10)
        mine = self.run(data, tmp_path, method=method, epochs=10)
        other = self._equal(mine, data, component.no_op.equals, run=False)
        for _ in range(before):
            next(mine)
            next(other)
            assert self._shared(mine, other) <= component.no_op.tolerance

    def _equal(self, mine: Training, data: ClipData, name: str, run: bool = True) -> Training:
        """The method that `mine` is to equal, under the same document."""
        same = {k: v for k, v in mine.document.items() if k not in ("method", "teachers")}
        other = train({**same, "method": {"name": name}}, data)
        if run:
            finish(other)
        return other

    def _shared(self, mine: Training, other: Training) -> float:
        """The largest difference of weights; what only `mine` has is its own affair."""
        theirs = weights(other)
        return difference({k: v for k, v in weights(mine).items() if k in theirs}, theirs)

    @pytest.mark.parametrize("modalities", [1, 3, 4])
    def test_any_number_of_modalities(self, tmp_path: Path, modalities: int) -> None:
        """It trains on them or refuses with a reason."""
        data = toy_data(modalities)
        try:
            run = self.run(data, tmp_path, epochs=2)
        except (MMSearchError, StopIteration) as refused:
            assert isinstance(refused, StopIteration) or len(str(refused)) > 20
            return
        assert finish(run)[-1].final

    def test_a_modality_missing_in_part_of_a_batch(self, tmp_path: Path) -> None:
        """Weights and scores stay finite."""
        run = self.finished(toy_data(missing=0.5), tmp_path)
        assert all(torch.isfinite(w).all() for w in weights(run).values() if w.is_floating_point())

    def test_micro_batches_train_like_the_whole_batch(self, tmp_path: Path) -> None:
        """Down to micro-batches of one clip; without batch norm, which alone may tell them apart."""
        data = toy_data(clips=80)
        encoders = {u: {"name": "vector", "normalise": False} for u in data.modalities}
        runs = [self.run(data, tmp_path, micro_batch=m, encoders=encoders, epochs=2) for m in (None, 5, 1)]
        for run in runs:
            finish(run)
        for run in runs[1:]:
            assert difference(weights(runs[0]), weights(run)) < 1e-4


class FusionConformance:
    """What every fusion must hold, as pytest tests; set `fusion` to its document."""

    fusion: ClassVar[dict[str, Any]]

    def run(self, data: ClipData, **changes: Any) -> Training:
        """A fresh run of plain joint training."""
        document = {"fusion": self.fusion, "optimizer": {"name": "sgd", "lr": 0.02}, "epochs": 3, "batch_size": 16}
        return train({**document, **changes}, data)

    def test_its_document_survives_json(self) -> None:
        """create and document are inverse."""
        document = FUSIONS.document(FUSIONS.create(self.fusion))
        assert FUSIONS.document(FUSIONS.create(json.loads(json.dumps(document)))) == document

    @pytest.mark.parametrize("modalities", [1, 2, 3, 4])
    def test_any_number_of_modalities(self, modalities: int) -> None:
        """It trains every encoder and beats chance, or refuses with a reason."""
        try:
            run = self.run(toy_data(modalities), epochs=6, optimizer={"name": "sgd", "lr": 0.1})
        except MMSearchError as refused:
            assert len(str(refused)) > 20
            assert modalities != 2
            return
        before = weights(run)
        assert finish(run)[-1].metrics["val/accuracy"] > 0.4
        after = weights(run)
        for u in run.model.encoders:
            assert any(not torch.equal(before[k], after[k]) for k in after if k.startswith(f"encoders.{u}"))

    def test_restoring_in_the_middle_equals_never_having_stopped(self, tmp_path: Path) -> None:
        """Weights and figures."""
        data = toy_data()
        whole = self.run(data)
        next(whole)
        whole.save(tmp_path)
        rest = self.run(data)
        rest.restore(tmp_path)
        assert [r.metrics for r in whole] == [r.metrics for r in rest]
        assert difference(weights(whole), weights(rest)) == 0

    def test_saved_weights_predict_the_same(self, tmp_path: Path) -> None:
        """What was fitted after training is saved with the rest."""
        run = self.run(toy_data())
        finish(run)
        run.save_weights(tmp_path)
        there = evaluate(tmp_path, run.data, "select")
        assert np.array_equal(there.probabilities, run.evaluate("select").probabilities)

    def test_a_modality_missing_in_part_of_a_batch(self) -> None:
        """A clip that lacks a modality is judged the same whatever stands in its place."""
        data = toy_data(missing=0.5)
        run = self.run(data)
        finish(run)
        assert all(torch.isfinite(w).all() for w in weights(run).values() if w.is_floating_point())
        run.model.eval()
        batch = next(data.batches(data.part("val"), 16, run.predictor.views(training=False)))
        out = run.predictor.predict(batch).logits
        last = list(data.modalities)[-1]
        noise = torch.where(batch.present[last][:, None], batch.inputs[last], torch.randn_like(batch.inputs[last]))
        changed = dataclasses.replace(batch, inputs={**batch.inputs, last: noise})
        torch.testing.assert_close(run.predictor.predict(changed).logits, out)

    def test_unimodal_logits_add_up_where_it_says_so(self) -> None:
        """z = Σ_u z_u of a decomposable fusion (post hoc: in training); probes of any other touch nothing else."""
        run = self.run(toy_data(), epochs=1)
        finish(run)
        batch = next(run.data.batches(run.rows, 8, run.predictor.views(training=False)))
        out = run.model.train(run.model.kind.post_hoc)(batch)
        if run.model.kind.decomposable:
            torch.testing.assert_close(sum(out.unimodal.values()), out.logits)
        else:
            sum(z.sum() for z in out.unimodal.values()).backward()
            assert all(p.grad is None for g in ("m0", "m1", "head") for p in run.groups[g])
