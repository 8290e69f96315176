from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmsearch.errors import MMSearchError
from mmsearch.search.journal import Journal, read_events, seconds_spent
from mmsearch.search.trials import TrialTable, records


def asked(trial_id: str) -> dict:
    return {
        "event": "asked", "trial_id": trial_id, "stage": "search", "method": "joint", "fusion": "concat",
        "document": {"seed": 0, "fold": 0, "epochs": 3}, "params": {}, "why": "tpe",
    }  # fmt: skip


@pytest.mark.parametrize("torn", [b'{"event":"to', b'{"event":"told","time":1', b"\x00\x00\n", b"{}\n"])
def test_torn_last_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    with Journal(tmp_path) as journal:
        journal.append(asked("a"))
    whole = (tmp_path / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(whole + torn)
    assert [e["event"] for e in read_events(tmp_path)] == ["opened", "asked"]
    with Journal(tmp_path) as journal:
        journal.append({"event": "started", "trial_id": "a", "epoch": 0})
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["opened", "asked", "opened", "started"]


def test_damage_inside_is_an_error(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append(asked("a"))
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"rubbish\n" + path.read_bytes())
    with pytest.raises(MMSearchError, match=r"journal.jsonl:1: not an event"):
        Journal(tmp_path)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mmsearch.search.journal import Journal; Journal(Path(sys.argv[1]))"
    )
    with Journal(tmp_path):
        second = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
        assert second.returncode and "another process is running this run" in second.stderr
        assert len(read_events(tmp_path)) == 1
    Journal(tmp_path).close()


def test_subscribers_hear_only_what_is_on_disk(tmp_path: Path) -> None:
    heard = []
    with Journal(tmp_path) as journal:
        journal.subscribe(lambda event: heard.append(read_events(tmp_path)[-1] == event))
        journal.append({"event": "epoch", "trial_id": "a", "score": math.nan})
    assert heard == [True]
    assert read_events(tmp_path)[-1]["score"] is None


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(MMSearchError, match="no run there"):
        read_events(tmp_path)


def test_seconds_spent_leaves_out_the_time_between_sessions() -> None:
    events = [{"event": e, "time": t} for e, t in [("opened", 10), ("asked", 15), ("opened", 100), ("told", 103)]]
    assert seconds_spent(events) == 8


def test_a_run_keeps_its_events_in_the_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "time", lambda: now)
    with Journal(tmp_path) as journal:
        now = 108.0
        journal.append(asked("a"))
        assert [e["event"] for e in journal.events] == ["opened", "asked"]
        assert journal.events[0] is not journal.events[0]
    now = 500.0
    with Journal(tmp_path) as journal:
        now = 502.0
        assert journal.seconds() == 10
        journal.append({"event": "told", "trial_id": "a"})
        now = 503.0
        assert journal.seconds() == 11 and seconds_spent(journal.events) == 10
    assert [e["event"] for e in journal.events] == ["opened", "asked", "opened", "told"]


def test_records_and_table(tmp_path: Path) -> None:
    events = [
        asked("a"),
        {"event": "started", "trial_id": "a", "attempt": 1, "epoch": 0},
        {"event": "epoch", "trial_id": "a", "epoch": 1, "score": 0.4, "metrics": {"m": 1.0}, "seconds": 2.0},
        {"event": "lost", "trial_id": "a", "reason": "gone"},
        {"event": "epoch", "trial_id": "a", "epoch": 2, "score": 0.5, "metrics": {"m": 2.0}, "seconds": 3.0},
        {"event": "told", "trial_id": "a", "state": "complete", "score": 0.5, "reason": None},
        {"event": "test", "trial_id": "a", "accuracy": 0.6},
    ]
    live = records(events)
    record = live["a"]
    assert record.curve == [(1, 0.4), (2, 0.5)] and record.retries == 1 and record.state == "complete"
    assert record.test == {"accuracy": 0.6} and record.metrics == {"m": 2.0}
    (tmp_path / "trials.jsonl").write_text('{"torn')
    table = TrialTable(tmp_path, live)
    table(events[5])
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert [line["trial_id"] for line in lines] == ["a", "a"] and lines[0]["epochs"] == 2
