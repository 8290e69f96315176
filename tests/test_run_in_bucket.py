"""A sweep whose run and store are in a bucket: its driver is lost, and another machine goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mmsearch.cli import main
from mmsearch.data import ClipData
from mmsearch.data.demo import DemoConfig, write_demo
from mmsearch.data.places import Place
from mmsearch.recommend.watch import LiveReport
from mmsearch.search import segments
from mmsearch.search.run_folder import viewed
from mmsearch.search.space import Space
from mmsearch.search.trials import records
from mmsearch.search.warm import Start


def events(address: str) -> list[dict]:
    return [json.loads(line) for line in segments.read(Place(address)).splitlines()]


def test_a_lost_driver_is_replaced_from_another_machine(
    tmp_path: Path, bucket: str, small_space: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_demo(tmp_path / "clips", DemoConfig.of("sound_dominates", n_clips=120, n_classes=2), workers=1)
    (tmp_path / "space.yaml").write_text(small_space)
    run, machines = bucket.replace("/clips?", "/runs/mine?"), [str(tmp_path / name) for name in ("one", "other")]

    def began(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "mmsearch", *map(str, arguments), "--plain"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"MMSEARCH_CACHE": machines.pop(0)},
        )  # fmt: skip

    first = began(
        "sweep", "--dataset", tmp_path / "clips/dataset.yaml", "--space", tmp_path / "space.yaml", "--store", bucket,
        "--out", run, "--trials", 5, "--seeds", 2,
    )  # fmt: skip
    until = time.monotonic() + 240
    while Counter(e["event"] for e in events(run))["told"] < 2:
        assert first.poll() is None and time.monotonic() < until, first.communicate()[0]
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = events(run)

    again = began("resume", run)
    printed, _ = again.communicate(timeout=400)
    assert again.returncode == 0, printed
    assert f"run: {run}" in printed.replace("\n", "") and "Traceback" not in printed
    after = events(run)
    assert after[: len(before)] == before
    counts = Counter(e["trial_id"] for e in after if e["event"] == "told")
    assert set(counts.values()) == {1} and counts.keys() == {e["trial_id"] for e in after if e["event"] == "asked"}
    assert sum(e["event"] == "decoded" for e in after) == 1, "the clips were in the store already"
    files = Place(run).tree()
    assert {"sweep.json", "space.yaml", "data.json", "recommendation.json", "report.html"} <= files.keys()
    assert {"best/model.safetensors", "diagnosis.json"} <= files.keys()
    assert not [name for name in files if name.startswith((".ray", "claims")) or "/checkpoint/" in name]
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [name for name in files if secret in Place(run).read(name)]

    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "third"))
    assert main(["status", run, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["phase"] == "done" and status["run"] == run and status["recommendation"]
    clip = next((tmp_path / "clips").rglob("*.mp4"))
    assert main(["predict", run.replace("/mine?", "/mine/best?"), str(clip), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["path"] == str(clip)
    assert main(["sweep", "--dataset", str(tmp_path / "clips/dataset.yaml"), "--out", run]) == 2
    assert "already holds a sweep" in capsys.readouterr().err
    assert LiveReport(run, "n").now().done
    data = ClipData.open(viewed(run) / "data.json")
    space = Space.load(tmp_path / "space.yaml", data.modalities, data=data.digest)
    searched = {r.trial_id for r in records(after).values() if r.searched and r.state in ("complete", "pruned")}
    known = Start.load(space, None, run).known
    assert {trial.trial_id for trials in known.values() for trial in trials} == searched
