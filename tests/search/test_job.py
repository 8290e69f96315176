"""Jobs and trainables with real training, without Ray."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.batch import Modality
from mmsearch.data.clips import ClipData
from mmsearch.errors import MMSearchError
from mmsearch.search.job import Job, heartbeat, out_of_memory, tidy, trial_dir
from mmsearch.search.trial import trainable
from mmsearch.training import Predictor, resolve, train, trial_id


@pytest.fixture(scope="module")
def data() -> ClipData:
    rng = np.random.default_rng(0)
    label = np.arange(120) % 3
    inputs = {
        "sound": (rng.normal(size=(120, 6)) + label[:, None]).astype("float32"),
        "frames": (rng.normal(size=(120, 5)) - label[:, None]).astype("float32"),
    }
    kinds = {u: Modality(u, "vector", (x.shape[1],)) for u, x in inputs.items()}
    return ClipData.from_arrays(inputs, label, modalities=kinds)


@pytest.fixture
def opened(data: ClipData):
    def open_run(document, path, teachers, device, micro_batch):
        return train(document, data, teachers=teachers, device="cpu", micro_batch=micro_batch)

    return open_run


def document(data: ClipData, **keys: object) -> dict:
    return resolve({"epochs": 4, "data": data.digest, **keys}, data.modalities)


def finish(job: Job) -> list[dict]:
    events: list[dict] = []
    while not events or events[-1]["event"] not in ("finished", "failed"):
        events += job.step()
    return events


def job(run: Path, doc: dict, opened, stage: str = "confirm", **options: object) -> Job:
    run.mkdir(exist_ok=True)
    return Job(run, trial_id(doc), stage, doc, open_run=opened, **options)


def test_going_on_gives_what_never_stopping_gives(tmp_path: Path, data: ClipData, opened) -> None:
    doc = document(data, method={"name": "ogm"})
    whole = finish(job(tmp_path / "whole", doc, opened))
    first = job(tmp_path / "cut", doc, opened)
    for _ in range(3):
        first.step()
    first.close()
    second = finish(job(tmp_path / "cut", doc, opened))
    assert second[0] == {"event": "started", "epoch": 2}
    scores = [
        [(e["epoch"], e["score"], e["metrics"]) for e in events if e["event"] == "epoch"] for events in (whole, second)
    ]
    assert scores[0] == scores[1], "with the epochs before the cut"
    models = [Predictor.load(tmp_path / r / "trials" / trial_id(doc) / "weights").model for r in ("whole", "cut")]
    for (name, p), q in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(p, q), name
    select = json.loads((tmp_path / "cut" / "trials" / trial_id(doc) / "select.json").read_text())
    assert select["accuracy"] == np.mean(np.array(select["label"]) == np.array(select["predicted"]))
    assert second[-1]["select"] == {k: select[k] for k in ("accuracy", "macro_f1", "unimodal", "right")}
    right = np.array(select["label"]) == np.array(select["predicted"])
    by_row = right[np.argsort(select["index"])]
    assert bytes.fromhex(select["right"]) == np.packbits(by_row).tobytes()


def test_checkpoints_by_time_and_one_at_a_time(tmp_path: Path, data: ClipData, opened) -> None:
    doc = document(data)
    eager = job(tmp_path, doc, opened, checkpoint_seconds=0.0)
    events = [e["event"] for _ in range(3) for e in eager.step()]
    assert events == ["started", "epoch", "checkpointed", "epoch", "checkpointed"]
    assert [p.name for p in (trial_dir(tmp_path, trial_id(doc)) / "checkpoint").iterdir()] == ["2"]
    tidy(tmp_path, trial_id(doc), keep=False)
    eager.close()
    assert not trial_dir(tmp_path, trial_id(doc)).exists(), "a finished trial leaves nothing when its actor ends"


def test_teachers_and_their_ensemble(tmp_path: Path, data: ClipData, opened) -> None:
    teachers = {u: document(data, method={"name": "unimodal", "modality": u}) for u in data.modalities}
    method = {"name": "unimodal_teacher", "teacher": "ume"}
    doc = document(data, method=method, teachers={u: trial_id(d) for u, d in teachers.items()})
    failed = finish(job(tmp_path, doc, opened))
    assert failed[-1]["event"] == "failed" and "the teacher of sound" in failed[-1]["reason"]
    for d in teachers.values():
        finish(job(tmp_path, d, opened, stage="teacher"))
    events = finish(job(tmp_path, doc, opened))
    assert [e["event"] for e in events] == ["started", "epoch", "finished"]
    assert events[1]["epoch"] == 4 and events[1]["cost_joint_epochs"] == 0


def test_an_exception_is_an_event_with_its_traceback_in_the_log(tmp_path: Path, data: ClipData) -> None:
    doc = document(data)

    def broken(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    [event] = job(tmp_path, doc, broken).step()
    assert event == {"event": "failed", "reason": "OutOfMemoryError: no memory"}
    assert "in broken" in (tmp_path / "logs" / f"{trial_id(doc)}.log").read_text()


def limited(data: ClipData, clips: int):
    """Trainings that run out of memory where more clips than these pass at once."""

    def open_run(document, path, teachers, device, micro_batch):
        run = train(document, data, teachers=teachers, device="cpu", micro_batch=micro_batch)
        step = run.method.step

        def stepped(ctx, batch):
            if run.epoch == 1 and (micro_batch or len(batch)) > clips:
                raise torch.OutOfMemoryError("planted")
            return step(ctx, batch)

        run.method.step = stepped
        return run

    return open_run


def test_a_batch_too_large_for_memory_goes_on_in_halves(tmp_path: Path, data: ClipData) -> None:
    doc = document(data, method={"name": "ogm"}, batch_size=20)
    events = finish(job(tmp_path, doc, limited(data, 5), checkpoint_seconds=0.0))
    halved = [{k: e[k] for k in ("micro_batch", "reason")} for e in events if e["event"] == "halved"]
    assert halved == [{"micro_batch": m, "reason": "OutOfMemoryError: planted"} for m in (10, 5)]
    assert [e["epoch"] for e in events if e["event"] == "started"] == [0, 1, 1], "from the checkpoint"
    epochs = [e["epoch"] for e in events if e["event"] == "epoch"]
    assert sorted(set(epochs)) == [1, 2, 3, 4] and events[-1]["event"] == "finished"
    assert "planted" in (tmp_path / "logs" / f"{trial_id(doc)}.log").read_text()


def test_where_the_smallest_micro_batch_does_not_fit_the_trial_has_failed(tmp_path: Path, data: ClipData) -> None:
    events = finish(job(tmp_path, document(data, batch_size=8), limited(data, 0)))
    assert [e["micro_batch"] for e in events if e["event"] == "halved"] == [4, 3], "batch norm needs more than one clip"
    assert events[-1] == {
        "event": "failed",
        "reason": "even a micro-batch of 3 does not fit in memory (OutOfMemoryError: planted)",
    }


def test_what_the_allocators_raise_is_known() -> None:
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(2**55)
    with pytest.raises(RuntimeError) as shapes:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert out_of_memory(too_much.value) and out_of_memory(torch.OutOfMemoryError()) and not out_of_memory(shapes.value)


def test_a_run_folder_that_is_gone_is_not_the_trial_s_fault(tmp_path: Path, data: ClipData, opened) -> None:
    run = tmp_path / "run"
    trial = job(run, document(data), opened, checkpoint_seconds=0.0)
    trial.step()
    shutil.rmtree(run)
    [event] = trial.step()
    assert event == {"event": "storage", "reason": f"{run}: the folder is gone"}
    trial.close()
    assert job_again(run, document(data), opened) == [event] and not run.exists()


def job_again(run: Path, doc: dict, opened) -> list[dict]:
    return Job(run, trial_id(doc), "search", doc, open_run=opened).step()


def test_a_long_epoch_shows_signs_of_life(tmp_path: Path, data: ClipData, opened) -> None:
    doc = document(data, batch_size=4)
    trial = job(tmp_path, doc, opened)
    trial.step()
    os.utime(tmp_path / heartbeat(trial_id(doc)), (0, 0))
    trial._beaten = 0.0
    trial._run.on_step()
    assert (tmp_path / heartbeat(trial_id(doc))).stat().st_mtime > 0
    beats = []
    trial._run.on_step = lambda: beats.append(1)
    trial.step()
    assert len(beats) == -(-len(data.part("train")) // 4), "one a step"


def test_trainable_for_anyones_own_tuner(tmp_path: Path, data: ClipData, opened, monkeypatch) -> None:
    monkeypatch.setattr("mmsearch.search.trial.clips", lambda _: data)
    cls = trainable("ogm", "sum")
    cls.open_run = staticmethod(opened)
    config = {"data": "data.json", "method": {"alpha": 0.7}, "epochs": 2}
    trial = cls.__new__(cls)
    trial.setup(config)
    results = [trial.step()]
    trial.save_checkpoint(str(tmp_path))
    results.append(trial.step())
    assert [r["done"] for r in results] == [False, True] and "val/accuracy" in results[0]
    assert trial._run.document["fusion"]["name"] == "sum" and trial._run.document["method"]["alpha"] == 0.7

    trial.reset_config(config | {"seed": 3})
    assert trial.step() != results[0]
    trial.reset_config(config)
    trial.load_checkpoint(str(tmp_path))
    again = trial.step()
    assert again["epoch"] == 2 and again["score"] == results[1]["score"]
    assert not list(tmp_path.rglob("*.pkl"))


def test_trainable_of_an_unknown_method() -> None:
    with pytest.raises(MMSearchError, match="did you mean 'ogm'"):
        trainable("ogmm")
