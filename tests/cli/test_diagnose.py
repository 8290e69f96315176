"""`mmsearch diagnose`, and how a diagnosis gets into the recommendation of a run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from mmsearch.cli import main
from mmsearch.data import ClipData
from mmsearch.recommend import card, diagnosis
from mmsearch.search.job import clips, weights_dir
from mmsearch.search.journal import read_events

sys.path.insert(0, str(Path(__file__).parents[1] / "recommend"))
from synthetic_run import Run, write_run
from trained_run import SWEEP, confirm, vectors


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipData]:
    folder, data = tmp_path_factory.mktemp("finished") / "run", vectors({"sound": 1.2, "frames": 0.5}, clips=400)
    card.write(folder, confirm(folder, data, [{}, {"method": {"name": "uniform"}}]))
    (folder / "sweep.json").write_text(json.dumps(SWEEP))
    (folder / "data.json").write_text("{}")
    return folder, data


@pytest.fixture
def run_dir(finished: tuple[Path, ClipData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished run whose clips are in memory."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("mmsearch.data.clips.ClipData.open", lambda path: finished[1])
    clips.cache_clear()
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def test_it_prints_a_table_the_words_and_the_cost_and_keeps_them(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(run_dir)]) == 0
    printed = capsys.readouterr().out
    rec = card.read(run_dir)
    found = rec["diagnosis"]
    assert json.loads((run_dir / diagnosis.FILE).read_text()) == found
    assert all(m["label"] in printed for m in found["models"].values())
    joined = " ".join(printed.split())
    assert found["sentences"] and all(s["text"] in joined for s in found["sentences"])
    assert f"Measured on {found['cost']['clips']} clips of select" in joined and "not touched" in joined
    assert (run_dir / "report.html").is_file()
    assert rec["decision"] == card.build(read_events(run_dir), ClipData.open("data.json"), SWEEP)["decision"]


def test_as_json(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"].keys() >= {"joint"}


def test_a_recommendation_that_is_rebuilt_has_it_again(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(run_dir)]) == 0
    before = card.read(run_dir)
    (run_dir / "recommendation.json").unlink()
    with (run_dir / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps({"event": "phase", "time": 0.0, "name": "done"}) + "\n")
    capsys.readouterr()
    assert main(["recommend", str(run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["diagnosis"] == before["diagnosis"]


def test_before_the_confirmation_ends_there_is_nothing_to_diagnose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", Run(trials=2).search().events)
    assert main(["diagnose", str(run)]) == 2
    assert "no recommendation yet" in capsys.readouterr().err


def test_a_sweep_goes_on_where_the_diagnosis_fails_and_tries_again_next_time(run_dir: Path) -> None:
    rec, events = card.read(run_dir), read_events(run_dir)

    def lost() -> dict[str, Any]:
        raise RuntimeError("a traceback\nthe worker died")

    whole = diagnosis.attach(run_dir, rec, events, lost)
    assert "It failed and is not shown: the worker died" in whole["diagnosis"]["sentences"][0]["text"]
    assert card.read(run_dir) == whole and whole["decision"] == rec["decision"]
    assert not (run_dir / diagnosis.FILE).exists()
    whole = diagnosis.attach(run_dir, rec, events, lambda: diagnosis.diagnose_run(run_dir))
    assert whole["diagnosis"]["models"]
    assert diagnosis.attach(run_dir, rec, events, lost) == whole, "what is there is not made again"


def test_a_damaged_model_is_a_line_with_its_reason_and_a_traceback_in_the_log(run_dir: Path) -> None:
    joint = next(f for f in card.read(run_dir)["finalists"] if f["method"] == "joint")
    weights = weights_dir(run_dir, joint["trial_ids"][0]) / "state.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    found = diagnosis.diagnose_run(run_dir)
    assert found["models"] == {} and "not a readable checkpoint" in found["sentences"][0]["text"]
    assert "Traceback" in (run_dir / "logs" / "diagnosis.log").read_text()
