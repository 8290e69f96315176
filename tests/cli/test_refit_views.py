"""The refit in the views of a run: its score is of clips it trained on, and it is no part of the confirmation."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from mmsearch.cli import main
from mmsearch.cli.progress import Plan, Progress, expected
from mmsearch.search.trials import records

sys.path.insert(0, str(Path(__file__).parents[1] / "recommend"))
from synthetic_run import Run, document, write_run


@pytest.fixture
def run() -> Run:
    """A run that is at its refit."""
    run = Run(seeds=2).search().confirm().read_test()
    run.events.pop()
    run.emit("phase", name="refit")
    run.trial({**document("ogm", seed=0), "fold": None}, 0.987, "ogm", why="refit", stage="refit")
    return run


def test_nobody_takes_its_score_for_one_on_val(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stream = io.StringIO()
    shown = Progress(stream, True, Plan(trials=6, seeds=2))
    for event in run.events:
        shown(event)
    assert "phase: training of the recommended model on all development clips" in stream.getvalue()
    assert "98.7% of the clips it trained on" in stream.getvalue()
    folder = write_run(tmp_path / "run", run.events)
    refit = next(e["trial_id"] for e in run.events if e.get("stage") == "refit")
    assert main(["show", str(folder), refit]) == 0
    printed = capsys.readouterr().out
    assert "Accuracy on clips trained on" in printed and "Accuracy on val" not in printed


def test_it_is_no_seed_of_the_confirmation(run: Run) -> None:
    trials = records(run.events)
    confirmed = {i: r for i, r in trials.items() if r.stage != "refit"}
    plan = Plan(trials=6, seeds=2)
    assert expected(plan, trials) == expected(plan, confirmed)
    with Console(file=io.StringIO(), width=120) as console:
        shown = Progress(io.StringIO(), True, plan, run.events)
        console.print(shown.table())
        assert "left in this phase" not in console.file.getvalue()
