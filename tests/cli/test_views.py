"""The commands that look at a run: status, show, recommend, report; and methods, fusions, progress."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from mmsearch.cli import main
from mmsearch.cli.progress import Plan, Progress, expected, render, rows
from mmsearch.cli.show import sparkline
from mmsearch.recommend import card
from mmsearch.search.trials import records

sys.path.insert(0, str(Path(__file__).parents[1] / "recommend"))
from synthetic_run import SWEEP, FakeClips, Run, whole_run, write_run


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return whole_run(trials=4, seeds=3)


@pytest.fixture
def run_dir(tmp_path: Path, events: list[dict[str, Any]]) -> Path:
    return write_run(tmp_path / "run", events)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def drawn(renderable: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=120).print(renderable)
    return stream.getvalue()


def failed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and "Traceback" not in text
    return text


@pytest.mark.parametrize("command", ["status", "show", "recommend", "report"])
def test_a_folder_that_is_no_run_is_an_error_for_people(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no run there" in failed(capsys, command, tmp_path)
    assert "no run there" in failed(capsys, command, tmp_path / "missing")


def test_status(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(run_dir)]) == 0
    text = capsys.readouterr().out
    assert "done" in text and "uniform" in text and str(run_dir) in text


def test_status_as_json(run_dir: Path, capsys: pytest.CaptureFixture[str], events: list[dict[str, Any]]) -> None:
    assert main(["status", str(run_dir), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    asked = sum(e["event"] == "asked" for e in events)
    assert status["phase"] == "done"
    assert status["trials_done"] == status["trials_expected"] == asked
    assert sum(m["done"] for m in status["methods"]) == asked
    assert [m["failed"] for m in status["methods"] if m["method"] == "mla"] == [1]
    assert status["recommendation"] is False


def test_show_lists_all_trials(run_dir: Path, capsys: pytest.CaptureFixture[str], events: list[dict[str, Any]]) -> None:
    assert main(["show", str(run_dir)]) == 0
    text = capsys.readouterr().out
    assert all(e["trial_id"] in text for e in events if e["event"] == "asked")


def test_show_one_trial_by_the_beginning_of_its_name(
    run_dir: Path, capsys: pytest.CaptureFixture[str], events: list[dict[str, Any]]
) -> None:
    trial = next(r for r in records(events).values() if r.state == "failed")
    (run_dir / "logs").mkdir()
    log = [f"line {i}" for i in range(80)] + ["RuntimeError: [bold]loss[/bold] is not finite"]
    (run_dir / "logs" / f"{trial.trial_id}.log").write_text("\n".join(log))
    assert main(["show", str(run_dir), trial.trial_id[:8]]) == 0
    text = capsys.readouterr().out
    assert "loss is not finite at step 212" in text
    assert "RuntimeError: [bold]loss[/bold] is not finite" in text
    assert "line 79" in text and "line 20" not in text
    assert "optimizer.lr" in text


def test_show_an_unknown_trial_names_the_nearest(
    run_dir: Path, capsys: pytest.CaptureFixture[str], events: list[dict[str, Any]]
) -> None:
    known = next(e["trial_id"] for e in events if e["event"] == "asked")
    wrong = "x" + known[1:]
    assert f"did you mean '{known}'" in failed(capsys, "show", run_dir, wrong)
    assert "give more of it" in failed(capsys, "show", run_dir, "")


def test_recommend_prints_the_recorded_one(
    run_dir: Path, capsys: pytest.CaptureFixture[str], events: list[dict[str, Any]]
) -> None:
    rec = card.build(events, FakeClips(), SWEEP)
    card.write(run_dir, rec)
    assert main(["recommend", str(run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == rec
    assert main(["recommend", str(run_dir)]) == 0
    assert rec["decision"]["headline"] in capsys.readouterr().out


def test_recommend_recomputes_what_the_journal_supports(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmsearch.data.clips.ClipData.open", lambda path: FakeClips())
    assert main(["recommend", str(run_dir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decision"]["method"] == "uniform"


def test_recommend_says_nothing_before_the_confirmation_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", Run(trials=2).search().events)
    assert "no recommendation yet" in failed(capsys, "recommend", run)
    assert "no recommendation yet" in failed(capsys, "report", run)


def test_report_is_rebuilt(run_dir: Path, capsys: pytest.CaptureFixture[str], events: list[dict[str, Any]]) -> None:
    card.write(run_dir, card.build(events, FakeClips(), SWEEP))
    assert main(["report", str(run_dir)]) == 0
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    assert main(["report", str(run_dir), "--out", str(run_dir / "other.html")]) == 0
    assert (run_dir / "other.html").read_text() == (run_dir / "report.html").read_text()
    assert "cannot be written" in failed(capsys, "report", run_dir, "--out", run_dir / "none" / "x.html")


@pytest.mark.parametrize("command, name", [("methods", "ogm"), ("fusions", "concat")])
def test_components(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 0
    assert name in capsys.readouterr().out
    assert main([command, "--json"]) == 0
    found = {c["name"]: c for c in json.loads(capsys.readouterr().out)}
    assert found[name]["summary"]
    assert main([command, name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found[name]
    assert "did you mean" in failed(capsys, command, name + "x")


def test_a_method_shows_formula_source_and_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "ogm"]) == 0
    text = capsys.readouterr().out
    assert "CVPR 2022" in text and "tanh" in text and "alpha" in text and "0.05 to 3 (log)" in text


def test_plain_progress_has_a_line_a_trial_and_no_control_characters(events: list[dict[str, Any]]) -> None:
    stream = io.StringIO()
    told = 0
    with Progress(stream, True, Plan("runs/x", 26, 3)) as progress:
        for event in events:
            progress(event)
            told += event["event"] == "told"
    lines = stream.getvalue().splitlines()
    assert all(c.isprintable() for line in lines for c in line)
    assert sum("trials done" in line for line in lines) == told
    assert any("FAILED: RuntimeError: loss is not finite" in line for line in lines)
    assert any("worker was lost" in line for line in lines)
    assert any("output in runs/x" in line for line in lines)
    assert "phase: done" in lines[-1]


def test_plain_progress_hides_escape_sequences(events: list[dict[str, Any]]) -> None:
    stream = io.StringIO()
    with Progress(stream, True, Plan()) as progress:
        for event in events:
            progress(event | {"reason": "\x1b[31mred\x07\nlast\r"} if event.get("state") == "failed" else event)
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_plain_progress_speaks_up_during_long_trials(events: list[dict[str, Any]]) -> None:
    slow = [e | {"time": 1e9 + 100 * i} for i, e in enumerate(events[:8])]
    stream = io.StringIO()
    with Progress(stream, True, Plan("", 26, 3)) as progress:
        for event in slow:
            progress(event)
    assert stream.getvalue().count("0 of 26 trials done, 1 running") == 4


def test_resumed_progress_does_not_repeat_what_was(events: list[dict[str, Any]]) -> None:
    stream = io.StringIO()
    with Progress(stream, True, Plan(), events[:500]) as progress:
        assert stream.getvalue() == ""
        for event in events[500:]:
            progress(event)
    done = sum(e["event"] == "told" for e in events)
    assert f"{done} trials done" in stream.getvalue()


def test_live_progress_draws_a_row_a_method(events: list[dict[str, Any]]) -> None:
    stream = io.StringIO()
    with Progress(stream, False, Plan("runs/x")) as progress:
        for event in events:
            progress(event)
    text = stream.getvalue()
    assert all(m in text for m in ("joint", "uniform", "ogm", "mla", "unimodal_teacher"))


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 10, 200, 700])
def test_progress_of_any_prefix_can_be_drawn(events: list[dict[str, Any]], cut: int) -> None:
    assert "elapsed" in drawn(render(events[:cut], Plan("runs/x", 26, 3)))


def test_progress_is_a_function_of_the_events(events: list[dict[str, Any]]) -> None:
    assert drawn(render(events)) == drawn(render(list(events)))


def test_time_left_falls_to_nothing(events: list[dict[str, Any]]) -> None:
    plan = Plan("", sum(1 for r in records(events).values() if r.searched), 3)
    search = next(i for i, e in enumerate(events) if e.get("name") == "confirm")
    middle = rows(records(events[: search // 2]), plan)
    assert all(row.left is None or row.left > 0 for row in middle)
    assert any(row.left for row in middle)
    assert all(row.left == 0 for row in rows(records(events), plan))
    assert expected(plan, records(events[:search])) == plan.trials
    assert expected(plan, records(events)) == len(records(events))


def test_plan_is_read_from_the_run(run_dir: Path, tmp_path: Path) -> None:
    assert Plan.of(run_dir) == Plan(str(run_dir), 6, 5, None)
    assert Plan.of(tmp_path) == Plan(str(tmp_path))


def test_sparkline() -> None:
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▁▁"
