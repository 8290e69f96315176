"""What may differ from session to session: the machines, and how progress is told."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from mmsearch.cli import main, parser
from mmsearch.cli.progress import JsonLines
from mmsearch.cli.sweep import cluster_of


def test_resume_begins_a_sweep_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = ["sweep", "--out", str(tmp_path / "run"), "--resume", "--dry-run"]
    assert main([*new, "--dataset", "demo"]) == 0
    assert "trials" in capsys.readouterr().out
    assert main(new) == 2
    assert "no sweep there to go on with" in capsys.readouterr().err
    assert main(["sweep", "--resume", "--dataset", "demo"]) == 2
    assert "say which run" in capsys.readouterr().err


def test_the_machines_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    args = ["resume", "run", "--concurrent", "8", "--gpu-kind", "A100", "--memory-per-trial", "16"]
    found = cluster_of(parser().parse_args(args))
    assert (found.address, found.concurrent, found.gpu_kind, found.memory) == ("10.0.0.1:6379", 8, "A100", 16 * 2**30)
    assert cluster_of(parser().parse_args([*args, "--address", "auto"])).address == "auto"
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster_of(parser().parse_args(["resume", "run"])).address is None


def test_events_as_json_name_the_run_and_leave_out_documents() -> None:
    stream = io.StringIO()
    with JsonLines(stream, "s3://bucket/run") as show:
        show({"event": "asked", "time": 1.0, "trial_id": "a", "document": {"epochs": 3}})
    assert json.loads(stream.getvalue()) == {"run": "s3://bucket/run", "event": "asked", "time": 1.0, "trial_id": "a"}
