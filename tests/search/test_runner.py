"""Sweeps under Ray, in processes that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from mmsearch.search.journal import read_events
from mmsearch.search.trials import records
from mmsearch.training import trial_id

ROOT = Path(__file__).parents[2]


def start(run: Path, environment: Mapping[str, str] = MappingProxyType({}), **options: object) -> subprocess.Popen[str]:
    arguments = [str(a) for k, v in options.items() for a in (f"--{k.replace('_', '-')}", v)]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("driver.py")), str(run), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], run: Path, enough: Callable[[list[dict]], bool]) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        if (run / "journal.jsonl").exists() and enough(read_events(run)):
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError("the sweep did not get so far")


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=480)
    assert process.returncode == 0, out
    return out


def kinds(events: list[dict]) -> Counter:
    return Counter(e["event"] for e in events)


def amid_a_trial(events: list[dict]) -> bool:
    """After the second or third of six epochs, not in the first trial."""
    last = events[-1] if events else {"event": None}
    return kinds(events)["told"] >= 1 and last["event"] in ("epoch", "checkpointed") and last["epoch"] in (2, 3)


class Poison:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.marker),)


def poison(run: Path) -> Path:
    """Puts pickles that leave a trace when they are loaded wherever something might load one."""
    marker = run.parent / "executed"
    payload = pickle.dumps(Poison(marker))
    names = ["tuner.pkl", "trainable.pkl", "params.pkl", "error.pkl", "searcher-state-2020-01-01_00-00-00.pkl",
             "search_gen_state-2020-01-01_00-00-00.json", "experiment_state-2020-01-01_00-00-00.json",
             "_dict_checkpoint.pkl", "study.pkl", "state.pt", "weights.pkl"]  # fmt: skip
    folders = [run, *(p for p in run.rglob("*") if p.is_dir()), run / ".ray", run / ".ray" / "old"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_bytes(payload)
    return marker


def test_interrupted_and_killed_a_sweep_ends_as_if_nothing_had_happened(
    tmp_path: Path, driver, make_study, simulate
) -> None:
    run = tmp_path / "run"
    options = {"trials": 9, "seeds": 1, "epochs": 6, "behave": json.dumps({"sleep": 0.15})}

    process = start(run, checkpoint_seconds=1000, **options)
    wait_for(process, run, amid_a_trial)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 3 and out.strip().endswith("what was done is kept")
    assert not (run / ".ray").exists()

    process = start(run, **options)
    wait_for(
        process,
        run,
        lambda events: kinds(events)["opened"] == 2 and kinds(events)["told"] >= 3 and amid_a_trial(events),
    )
    process.kill()
    process.communicate()

    marker = poison(run)
    finish(start(run, **options))
    assert not marker.exists(), "a pickle in the run's folder was loaded"

    events = read_events(run)
    told = records(events)
    whole = make_study(epochs=6)
    simulate(whole, driver.make_sources(whole, 9, 1))
    assert [r.document for r in told.values()] == [r.document for r in whole.records.values()]
    assert {i: (r.state, r.curve) for i, r in told.items()} == {i: (r.state, r.curve) for i, r in whole.records.items()}

    assert max(Counter(e["trial_id"] for e in events if e["event"] == "told").values()) == 1
    again = [e["epoch"] for e in events if e["event"] == "started" and e["attempt"] > 1]
    assert len(again) == 2 and all(epoch > 0 for epoch in again), "each went on from its checkpoint"
    trained = Counter((run / "trained.log").read_text().splitlines())
    assert sum(trained.values()) - len(trained) <= 1, "only the epoch under way at the kill is trained again"
    assert len((run / "trials.jsonl").read_text().splitlines()) == len(told)
    assert kept_models(run) == expected_models(events)


def kept_models(run: Path) -> set[str]:
    """The trials that have a folder; nothing else may lie in one than a model and its figures."""
    folders = [p for p in (run / "trials").iterdir() if p.is_dir()]
    for folder in folders:
        assert {p.name for p in folder.iterdir()} <= {"weights", "select.json"}
    return {p.name for p in folders}


def expected_models(events: list[dict], keep: int = 0) -> set[str]:
    """Every teacher and confirmation, the best search trials and the last."""
    told = records(events)
    order = [told[e["trial_id"]] for e in events if e["event"] == "told" and e["state"] == "complete"]
    searched = [r for r in order if r.stage == "search"]
    best = sorted(searched, key=lambda r: -r.score)[: keep + 1]
    return {r.trial_id for r in [*best, searched[-1], *(r for r in order if r.stage != "search")]}


def test_lost_workers_and_exceptions(tmp_path: Path) -> None:
    run = tmp_path / "run"
    behave = {"die": "ogm", "raise": "unimodal_teacher", "deadly": "joint"}
    out = finish(start(run, trials=6, seeds=0, slots=2, worker=1, keep=2, behave=json.dumps(behave)))
    assert len(out.splitlines()) == 1, "Ray has said nothing: " + out

    told = records(read_events(run))
    by_method = {m: [r for r in told.values() if r.method == m] for m in ("ogm", "joint", "unimodal_teacher")}
    lost = [r for r in by_method["ogm"] if r.retries]
    assert len(lost) == 1 and lost[0].state == "complete" and lost[0].losses == [("worker", 1)]
    attempts = [e for e in read_events(run) if e["event"] == "started" and e["trial_id"] == lost[0].trial_id]
    assert [(e["attempt"], e["epoch"]) for e in attempts] == [(1, 0), (2, 1)]
    [deadly] = by_method["joint"]
    assert deadly.state == "failed" and deadly.retries == 2 and "its worker was lost 2 times" in deadly.reason
    assert "died unexpectedly" in (run / "logs" / f"{deadly.trial_id}.log").read_text()
    raised = [r for r in by_method["unimodal_teacher"] if r.document["method"]["teacher"] == "umt"]
    assert raised and all(r.state == "failed" and r.reason == "ValueError: planted" for r in raised)
    assert "Traceback" in (run / "logs" / f"{raised[0].trial_id}.log").read_text()
    assert all(r.finished for r in told.values()) and len(told) == 6
    assert kept_models(run) == expected_models(read_events(run), keep=2)


def test_a_hung_trial_is_begun_once_more(tmp_path: Path) -> None:
    run = tmp_path / "run"
    behave = {"hang": "ogm", "freeze": "unimodal_teacher"}
    finish(start(run, trials=6, seeds=0, slots=2, hang_after=6, wave=3, behave=json.dumps(behave)))
    told = records(read_events(run))
    assert all(r.finished for r in told.values()) and len(told) == 6
    for hung in (r for r in told.values() if r.method == "ogm"):
        assert hung.state == "failed" and hung.losses == [("hang", 1)] * 2 and "it hung 2 times" in hung.reason
    [frozen] = [r for r in told.values() if r.document["method"].get("teacher") == "umt"]
    assert frozen.state == "complete" and frozen.losses == [("hang", 1)]


def test_a_machine_out_of_memory_is_a_loss_of_its_own_kind(tmp_path: Path) -> None:
    run = tmp_path / "run"
    behave = {"sleep": 30}
    environment = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    process = start(run, environment, trials=4, seeds=0, worker=1, behave=json.dumps(behave))
    wait_for(process, run, lambda events: kinds(events)["told"] == 1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    first = next(iter(records(read_events(run)).values()))
    assert first.state == "failed" and first.losses == [("memory", 0)] * 2
    assert "the machine ran out of memory" in first.reason


def test_a_full_disk_ends_a_sweep_in_one_line_and_it_can_be_resumed(tmp_path: Path, small_disk: Path) -> None:
    run, behave = small_disk / "run", {"sleep": 0.3, "large": "joint"}
    options = {"trials": 6, "seeds": 0, "epochs": 6, "behave": json.dumps(behave)}
    process = start(run, **options)
    wait_for(process, run, amid_a_trial)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 512):
            pass
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 2, out
    assert "no space left on device" in out and len(out.strip().splitlines()) == 1
    assert f"mmsearch resume {run}" in out
    filler.unlink()
    before = read_events(run)
    finish(start(run, **options))
    told = records(read_events(run))
    assert len(told) == 6 and all(r.state in ("complete", "pruned") for r in told.values())
    assert read_events(run)[: len(before)] == before
    [large] = [r for r in told.values() if r.method == "joint"]
    assert large.micro_batch == 8 and trial_id(large.document) == large.trial_id
    assert [e["micro_batch"] for e in read_events(run) if e["event"] == "halved"] == [16, 8]
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert {line["trial_id"]: line["micro_batch"] for line in lines}[large.trial_id] == 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_more_than_there_is_fails_at_once(tmp_path: Path) -> None:
    program = (
        "from mmsearch.search.cluster import connect\n"
        "from mmsearch.errors import MMSearchError\n"
        "try:\n    connect({arguments})\n"
        "except MMSearchError as error:\n    print(error)\n"
    )
    for arguments, name in (("gpus_per_trial=99", "GPU"), ("cpus_per_trial=4096, gpus_per_trial=0", "CPU")):
        before = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", program.format(arguments=arguments)], capture_output=True, text=True, timeout=120
        )
        last = done.stdout.splitlines()[-1]
        assert f"asks for {arguments.split('=')[1].split(',')[0]} {name}s" in last and "has " in last
        assert time.monotonic() - before < 60
