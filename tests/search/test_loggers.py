"""Trackers are fed from the journal; TensorBoard's files are read back, the others run where they are installed."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest

from mmsearch.errors import MMSearchError
from mmsearch.search.journal import Journal
from mmsearch.search.loggers import Trackers, check

SECRET = "/home/someone/clips/the_label/clip7.mp4"


def trial(journal: Journal, trial_id: str, state: str = "complete", **told: object) -> None:
    document = {"method": {"name": "ogm", "alpha": 0.3}, "fusion": {"name": "concat"}, "seed": 7, "data": "d1"}
    document |= {"post_hoc": [{"name": "decision"}], "optimizer": {"name": "sgd", "lr": 0.05}}
    journal.append(
        {"event": "asked", "trial_id": trial_id, "stage": "confirm", "method": "ogm", "fusion": "concat",
         "document": document, "params": {}, "why": "tpe"}
    )  # fmt: skip
    journal.append({"event": "started", "trial_id": trial_id, "attempt": 1, "epoch": 0})
    for epoch in (1, 2):
        journal.append(
            {"event": "epoch", "trial_id": trial_id, "epoch": epoch, "score": 0.2 * epoch,
             "metrics": {"val/accuracy/sound": 0.1 * epoch}, "cost_joint_epochs": 1.0 * epoch, "seconds": 2.0}
        )  # fmt: skip
    journal.append({"event": "told", "trial_id": trial_id, "state": state, "epoch": 2, **told})


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard would draw: tag -> step -> value."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = round(value.simple_value, 5)
    return found


def everything(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())


def test_tensorboard_gets_every_epoch_and_the_knobs(tmp_path: Path) -> None:
    journal = Journal(None)
    with Trackers(["tensorboard"], tmp_path).attach(journal):
        trial(journal, "t1", select={"accuracy": 0.45})
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name == "ogm-concat-t1"
    drawn = scalars(folder)
    assert drawn["ray/tune/score"] == {1: 0.2, 2: 0.4}
    assert drawn["ray/tune/val/accuracy/sound"] == {1: 0.1, 2: 0.2}
    assert drawn["ray/tune/cost_joint_epochs"] == {1: 1.0, 2: 2.0}
    assert drawn["ray/tune/select/accuracy"] == {2: 0.45}
    assert b"method.alpha" in everything(folder) and b"optimizer.lr" in everything(folder)


def test_nothing_of_the_clips_leaves_unless_asked(tmp_path: Path) -> None:
    about = {"dataset": "secret set", "classes": ["the_label"], "store": "/home/someone"}
    for name, sent in (("silent", {}), ("told", about)):
        journal = Journal(None)
        with Trackers(["tensorboard"], tmp_path / name).attach(journal, sent):
            trial(journal, "t1", "failed", reason=f"cannot read {SECRET}")
    assert not any(s in everything(tmp_path / "silent") for s in (b"the_label", b"someone", b"secret set"))
    assert b"the_label" in everything(tmp_path / "told")
    assert b"clip7" not in everything(tmp_path)


def test_a_resumed_trial_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = Journal(None)
    trial(journal, "t1")
    told = journal.events.pop()
    del journal.events[-1]
    with Trackers(["tensorboard"], tmp_path).attach(journal):
        journal.append({"event": "started", "trial_id": "t1", "attempt": 2, "epoch": 1})
        journal.append({"event": "epoch", "trial_id": "t1", "epoch": 2, "score": 0.5, "metrics": {}, "seconds": 2.0})
        journal.append(told)
    assert scalars(tmp_path / "tensorboard/ogm-concat-t1")["ray/tune/score"] == {2: 0.5}


def test_a_tracker_that_fails_does_not_stop_the_sweep(tmp_path: Path) -> None:
    journal = Journal(None)
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    with Trackers(["tensorboard"], tmp_path).attach(journal):
        trial(journal, "t1")
        trial(journal, "t2")
    assert [e["event"] for e in journal.events].count("told") == 2
    (failed,) = [e for e in journal.events if e["event"] == "tracker_failed"]
    assert failed["tracker"] == "tensorboard" and "tensorboard" in failed["reason"]


def test_names_are_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check(["tensorboard"])
    with pytest.raises(MMSearchError, match=r"--log: unknown tracker 'tensorbord'; did you mean 'tensorboard'\?"):
        check(["tensorbord"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MMSearchError, match=r"--log: mlflow is not installed; pip install 'mmsearch\[mlflow\]'"):
        check(["mlflow"])


def test_mlflow_gets_runs_params_and_metrics(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    journal = Journal(None)
    with Trackers(["mlflow"], tmp_path).attach(journal):
        trial(journal, "t1")
        trial(journal, "t2", "failed", reason=f"cannot read {SECRET}")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name LIKE 'mmsearch%'")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert {name: r.info.status for name, r in runs.items()} == {
        "ogm-concat-t1": "FINISHED", "ogm-concat-t2": "FAILED",
    }  # fmt: skip
    assert runs["ogm-concat-t1"].data.params["method.alpha"] == "0.3"
    assert runs["ogm-concat-t1"].data.metrics["score"] == pytest.approx(0.4)
    assert b"clip7" not in everything(tmp_path)
