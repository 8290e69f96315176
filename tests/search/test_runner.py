"""Sweeps under Ray, in processes that can be killed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mmsearch.search.journal import read_events
from mmsearch.search.trials import records

ROOT = Path(__file__).parents[2]


def start(run: Path, **options: object) -> subprocess.Popen[str]:
    arguments = [str(a) for k, v in options.items() for a in (f"--{k.replace('_', '-')}", v)]
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("driver.py")), str(run), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], run: Path, enough: Callable[[list[dict]], bool]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        if (run / "journal.jsonl").exists() and enough(read_events(run)):
            return
        time.sleep(0.02)
    process.kill()
    raise AssertionError("the sweep did not get so far")


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=240)
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
    for folder in (p for p in (run / "trials").iterdir() if p.is_dir()):
        assert {p.name for p in folder.iterdir()} <= {"weights", "select.json"}
        assert told[folder.name].stage in ("teacher", "confirm")


def test_lost_workers_and_exceptions(tmp_path: Path) -> None:
    run = tmp_path / "run"
    behave = {"die": "ogm", "raise": "unimodal_teacher", "deadly": "joint"}
    out = finish(start(run, trials=6, seeds=0, slots=2, retries=1, behave=json.dumps(behave)))
    assert len(out.splitlines()) == 1, "Ray has said nothing: " + out

    told = records(read_events(run))
    by_method = {m: [r for r in told.values() if r.method == m] for m in ("ogm", "joint", "unimodal_teacher")}
    lost = [r for r in by_method["ogm"] if r.retries]
    assert len(lost) == 1 and lost[0].state == "complete"
    attempts = [e for e in read_events(run) if e["event"] == "started" and e["trial_id"] == lost[0].trial_id]
    assert [(e["attempt"], e["epoch"]) for e in attempts] == [(1, 0), (2, 1)]
    [deadly] = by_method["joint"]
    assert deadly.state == "failed" and deadly.retries == 2 and "its worker was lost 2 times" in deadly.reason
    assert "died unexpectedly" in (run / "logs" / f"{deadly.trial_id}.log").read_text()
    raised = [r for r in by_method["unimodal_teacher"] if r.document["method"]["teacher"] == "umt"]
    assert raised and all(r.state == "failed" and r.reason == "ValueError: planted" for r in raised)
    assert "Traceback" in (run / "logs" / f"{raised[0].trial_id}.log").read_text()
    assert all(r.finished for r in told.values()) and len(told) == 6


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
