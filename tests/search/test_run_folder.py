"""A run in a bucket: folders arrive whole, copies follow the bucket, a trial goes on on another machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mmsearch.batch import Modality
from mmsearch.data.clips import ClipData
from mmsearch.data.places import Place
from mmsearch.errors import MMSearchError
from mmsearch.search import run_folder, segments
from mmsearch.search.job import Job, tidy, trial_dir
from mmsearch.search.run_folder import IN_BUCKET, IN_FOLDER, RunFolder, drivers, near, viewed
from mmsearch.search.segments import Segments
from mmsearch.training import resolve, train, trial_id


@pytest.fixture
def address(bucket: str) -> str:
    """Of a run in a bucket."""
    return bucket.replace("/clips?", "/runs/mine?")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes this process one on another machine: with another cache."""
    return lambda name: monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / name))


@pytest.fixture(scope="module")
def data() -> ClipData:
    rng = np.random.default_rng(0)
    label = np.arange(60) % 3
    inputs = {u: (rng.normal(size=(60, 5)) + label[:, None]).astype("float32") for u in ("sound", "frames")}
    return ClipData.from_arrays(inputs, label, modalities={u: Modality(u, "vector", (5,)) for u in inputs})


@pytest.fixture
def job(data: ClipData):
    """Makes the job of a three-epoch training in a run."""
    document = resolve({"epochs": 3, "data": data.digest}, data.modalities)

    def open_run(document, path, teachers, device, micro_batch):
        assert path.is_file()
        return train(document, data, teachers=teachers, device="cpu", micro_batch=micro_batch)

    def make(run: RunFolder | Path) -> Job:
        return Job(run, trial_id(document), "confirm", document, checkpoint_seconds=0.0, open_run=open_run)

    return make


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def put(folder: RunFolder, name: str, text: str = "x") -> None:
    (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
    (folder.path / name).write_text(text)


def test_a_folder_goes_and_comes_whole_and_only_when_it_is_another(address: str, machine) -> None:
    machine("a")
    here = RunFolder(address, "worker")
    put(here, "trials/t/weights/model.json", "one")
    put(here, "trials/t/weights/deep/er.json")
    here.send("trials/t/weights")
    assert set(here.away.tree()) == {"trials/t/weights.tar"}
    machine("b")
    there = RunFolder(address, "worker")
    there.fetch("trials/t")
    assert files(there.path) == {"trials/t/weights/model.json", "trials/t/weights/deep/er.json"}
    first = (there.path / "trials/t/weights").stat().st_ino
    there.fetch("trials/t")
    assert (there.path / "trials/t/weights").stat().st_ino == first
    seen = there.away.seen("trials/t/weights.tar")
    os.utime(there.path / "trials/t/weights", ns=(seen.time - 1, seen.time - 1))
    there.fetch("trials/t")
    assert (there.path / "trials/t/weights").stat().st_ino != first
    assert not [p for p in there.path.rglob(".*")]


def test_the_driver_sends_what_has_changed_and_what_is_gone(address: str, monkeypatch) -> None:
    here = RunFolder(address)
    for name in ("sweep.json", "best/model.safetensors", "trials/t/select.json", ".ray/x", "journal.jsonl"):
        put(here, name)
    here.send_all()
    assert set(here.away.tree()) == {"sweep.json", "best/model.safetensors"}
    (here.path / "best/model.safetensors").unlink()
    put(here, "sweep.json", "another")
    sent = []
    monkeypatch.setattr(RunFolder, "send", lambda self, name: sent.append(name))
    here.send_all()
    assert sent == ["sweep.json"]
    assert "best/model.safetensors" not in here.away.tree()


def test_a_copy_has_what_the_run_has_and_no_more(address: str) -> None:
    driver = RunFolder(address)
    put(driver, "sweep.json")
    put(driver, "report.html")
    put(driver, "best/model.safetensors")
    driver.send_all()
    put(driver, "trials/t/select.json", "{}")
    driver.send("trials/t/select.json")
    journal = Segments(driver.away)
    journal.append(b'{"event":"opened","time":0}\n')
    journal.close()
    view = viewed(address)
    assert files(view) == {"sweep.json", "report.html", "trials/t/select.json", "journal.jsonl"}
    assert view != driver.path and view.name == "mine"
    driver.away.delete("report.html")
    assert files(viewed(address)) == {"sweep.json", "trials/t/select.json", "journal.jsonl"}
    assert files(near(address.replace("/mine?", "/mine/best?"))) == {"model.safetensors"}


def test_no_run_there(address: str) -> None:
    with pytest.raises(MMSearchError, match=r"runs/mine.*: no run there"):
        viewed(address)
    with pytest.raises(MMSearchError, match="no run there"):
        RunFolder(address).taken()


def test_a_run_that_this_machine_is_running_is_not_touched(address: str) -> None:
    here = RunFolder(address)
    put(here, "sweep.json")
    here.send_all()
    with run_folder.locked(here.path), pytest.raises(MMSearchError, match="another process is running this run"):
        RunFolder(address).taken()


def test_in_a_folder_nothing_is_sent_or_fetched(tmp_path: Path) -> None:
    here = RunFolder(tmp_path)
    put(here, "trials/t/weights/x")
    here.send("trials/t/weights")
    here.send_all()
    here.copy(drivers)
    assert here.fetch() == set() and files(tmp_path) == {"trials/t/weights/x"}
    assert here.pace == IN_FOLDER and here.trials() == {"t"}
    assert viewed(tmp_path) == near(tmp_path) == here.taken().path == tmp_path


def test_a_trial_goes_on_on_another_machine(address: str, machine, job, tmp_path: Path) -> None:
    machine("driver")
    driver = RunFolder(address)
    put(driver, "data.json")
    driver.send_all()
    machine("a")
    first = job(RunFolder(address, "worker"))
    assert [e["event"] for _ in range(2) for e in first.step()] == ["started", "epoch", "checkpointed"]
    name = f"trials/{first.trial_id}"
    assert set(driver.away.tree("trials")) == {f"{name}/{n}" for n in ("heartbeat", "epochs.jsonl", "checkpoint/1.tar")}
    machine("b")
    second = job(RunFolder(address, "worker"))
    events = [e for _ in range(3) for e in second.step()]
    assert events[0] == {"event": "started", "epoch": 1} and events[-1]["event"] == "finished"
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [1, 2, 3]
    second.close()
    assert not trial_dir(second.run_dir, second.trial_id).exists(), "a worker's disk does not fill"

    assert driver.trials() == {second.trial_id}
    tidy(driver, second.trial_id, keep=True)
    assert set(driver.away.tree("trials")) == {f"{name}/weights.tar", f"{name}/select.json"}
    machine("driver")
    driver.fetch("trials")
    put(RunFolder(tmp_path / "whole"), "data.json")
    whole = job(tmp_path / "whole")
    for _ in range(4):
        whole.step()
    mine, theirs = (
        load_file(next((trial_dir(run, whole.trial_id) / "weights").glob("*.safetensors")))
        for run in (driver.path, whole.run_dir)
    )
    assert all(torch.equal(mine[k], theirs[k]) for k in mine | theirs)
    tidy(driver, second.trial_id, keep=False)
    assert not driver.trials()


def test_a_bucket_that_is_gone_is_trouble_with_the_storage(address: str, job, monkeypatch) -> None:
    folder = RunFolder(address, "worker")
    put(folder, "data.json")
    folder.send("data.json")
    trial = job(folder)
    trial.step()
    monkeypatch.setattr(segments.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Place, "copy", lambda *_: (_ for _ in ()).throw(OSError("no route to the host")))
    last = trial.step()[-1]
    assert last["event"] == "storage" and "no route to the host" in last["reason"]
    assert folder.pace == IN_BUCKET
