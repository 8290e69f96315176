"""Budgets and the plan of a sweep, through the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmsearch.arguments import Arguments
from mmsearch.cli import main

Write = Callable[..., Path]

DATASET = """\
name: tiny
manifest: m.csv
modalities:
  sound: {kind: sound, column: path, rate: 4000, seconds: 1}
  frames: {kind: frames, column: path, frames: 2, size: 32}
"""

SPACE = """\
epochs: 12
encoders:
  frames: {name: frames, size: 32}
methods:
  joint:
  mmpareto:
  g2d:
  unimodal_teacher: {teacher: [ume, umt]}
fusions:
  concat:
  sum:
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where clips would be decoded to."""
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sweep(dataset: Write, tmp_path: Path) -> list[str]:
    """The command for a small space."""
    (tmp_path / "space.yaml").write_text(SPACE)
    return [
        "sweep",
        "--dataset",
        str(dataset(yaml=DATASET)),
        "--space",
        str(tmp_path / "space.yaml"),
        "--out",
        str(tmp_path / "run"),
    ]


def printed(argv: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def refused(argv: list[str], capsys: pytest.CaptureFixture) -> str:
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and len(message.splitlines()) == 1
    return message


def row(text: str, method: str) -> list[str]:
    return next(re.split(r"\s{2,}", line) for line in text.splitlines() if line.startswith(f"{method} "))


def test_a_dry_run_prints_the_plan_and_starts_nothing(
    sweep: list[str], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text = printed([*sweep, "--dry-run", "--trials", "20", "--budget", "900"], capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert row(text, "joint")[1:6] == ["2", "12", "2 4", "2", "4"]
    assert row(text, "g2d")[3] == "6", "it acts late"
    assert row(text, "unimodal")[1] == "own"
    joined = " ".join(text.split())
    for part in (
        "20 trials",
        "5 fresh seeds",
        "900 joint epochs: the search asks for nothing more after 540",
        "1 core",
        "then what is recommended once more",
    ):
        assert part in joined, text
    assert "once more" not in printed([*sweep, "--dry-run", "--no-refit"], capsys)
    assert not (tmp_path / "run").exists() and not cache.exists()


def test_a_dry_run_does_not_even_load_ray(sweep: list[str]) -> None:
    code = "import sys; from mmsearch.cli import main; main(sys.argv[1:]); sys.exit('ray' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code, *sweep, "--dry-run"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Plan of the sweep")


def test_the_least_budget_is_enough_and_one_less_is_not(sweep: list[str], capsys: pytest.CaptureFixture) -> None:
    message = refused([*sweep, "--budget", "10"], capsys)
    assert "--budget: 60% of 10 joint epochs are too few for one trial of each of 5 methods" in message
    roughly = int(message.rpartition("at least about ")[2])
    message = refused([*sweep, "--budget", str(roughly * 0.6)], capsys)
    least = int(message.rpartition(" ")[2])
    assert str(least) in refused([*sweep, "--dry-run", "--budget", str(least - 1)], capsys)
    printed([*sweep, "--dry-run", "--budget", str(least)], capsys)


def test_equal_cost_shortens_what_is_dear(sweep: list[str], capsys: pytest.CaptureFixture) -> None:
    text = printed([*sweep, "--dry-run", "--equal-cost"], capsys)
    epochs = {m: int(row(text, m)[2]) for m in ("joint", "mmpareto", "unimodal")}
    assert epochs["joint"] == epochs["unimodal"] == 12
    assert 4 <= epochs["mmpareto"] < 12
    assert epochs["mmpareto"] == round(12 / float(row(text, "mmpareto")[6]) * float(row(text, "joint")[6]))


def test_a_budget_may_grow_on_resuming_and_the_plan_with_it(
    sweep: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    arguments = Arguments(sweep[2], space=sweep[4], trials=12, budget=800.0)
    (run / "sweep.json").write_text(json.dumps({"arguments": arguments.to_dict()}))
    (run / "space.yaml").write_text(SPACE)
    text = printed(["resume", str(run), "--dry-run", "--trials", "30", "--budget", "1000"], capsys)
    assert "30 trials" in text and "1000 joint epochs" in text
    assert "--budget: the run was started with 800.0 or more, not 10.0" in refused(
        ["resume", str(run), "--budget", "10"], capsys
    )
    assert "--equal-cost" in refused(["sweep", "--resume", "--out", str(run), "--equal-cost"], capsys)
    assert json.loads((run / "sweep.json").read_text())["arguments"]["trials"] == 12
