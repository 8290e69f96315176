from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from explained_run import explained
from synthetic_run import FakeClips, Run

from mmsearch.cli import main
from mmsearch.recommend import card, tables
from mmsearch.recommend.markdown import markdown
from mmsearch.recommend.page import page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("home") / "run"
    rec, events = explained(folder, seeds=3, trials=3)
    return folder, rec, events


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_the_numbers_unrounded(run: tuple[Path, dict[str, Any], list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, rec, events = run
    paths = tables.write(tmp_path / "a/b", rec, events, folder)
    assert {p.name for p in paths} == {"finalists.csv", "comparisons.csv", "trials.csv", "curves.csv", "clips.csv"}
    select = [r for r in read(tmp_path / "a/b/finalists.csv") if r["part"] == "select"]
    for row, f in zip(select, rec["finalists"], strict=True):
        assert row["finalist"] == f["label"] and float(row["mean"]) == f["select"]["mean"]
        assert [float(row[f"seed {s}"]) for s in f["seeds"]] == f["select"]["values"]
    gains = read(tmp_path / "a/b/comparisons.csv")
    assert [float(r["p_holm"]) for r in gains] == [c["p_holm"] for c in rec["comparisons"]]
    asked = [e for e in events if e["event"] == "asked"]
    trials = read(tmp_path / "a/b/trials.csv")
    assert [r["trial_id"] for r in trials] == [e["trial_id"] for e in asked]
    assert [float(r["optimizer.lr"]) for r in trials] == [e["document"]["optimizer"]["lr"] for e in asked]


def test_curves_are_the_journals_epochs(run: tuple[Path, dict[str, Any], list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, rec, events = run
    tables.write(tmp_path, rec, events, folder)
    found = {(r["trial_id"], int(r["epoch"]), r["quantity"]): float(r["value"]) for r in read(tmp_path / "curves.csv")}
    epochs = [e for e in events if e["event"] == "epoch"]
    assert all(found[e["trial_id"], e["epoch"], "score"] == e["score"] for e in epochs)
    assert all(found[e["trial_id"], e["epoch"], k] == v for e in epochs for k, v in e["metrics"].items())


def test_a_name_from_outside_is_no_formula(tmp_path: Path) -> None:
    run = Run(trials=1, seeds=2).search().confirm()
    for e in run.events:
        if e["event"] == "asked" and e["method"] == "mla":
            e["method"] = e["document"]["method"]["name"] = "=HYPERLINK(1)"
    rec = card.build(run.events, FakeClips(), {})
    tables.write(tmp_path, rec, run.events)
    for name in ("finalists", "trials", "curves"):
        text = (tmp_path / f"{name}.csv").read_text()
        assert ",'=HYPERLINK(1)" in text and ",=HYPERLINK(1)" not in text
    losses = [r["mean"] for r in read(tmp_path / "comparisons.csv") if r["mean"].startswith("-")]
    assert losses, "numbers below zero stay numbers"


def test_without_the_runs_folder_there_are_no_clips(
    run: tuple[Path, dict[str, Any], list[dict[str, Any]]], tmp_path: Path
) -> None:
    _, rec, events = run
    assert "clips.csv" not in {p.name for p in tables.write(tmp_path, rec, events)}


def test_markdown_has_the_answer_and_every_figure_as_a_table(
    run: tuple[Path, dict[str, Any], list[dict[str, Any]]],
) -> None:
    folder, rec, events = run
    content = page(rec, events, folder)
    text = markdown(content)
    assert text.startswith(f"# {rec['decision']['headline']}\n")
    for section in content.sections:
        assert f"\n## {section.title}\n" in text
    shown = [b for s in content.sections for b in s.blocks if hasattr(b, "rows") and b.name != "trials"]
    assert len(shown) > 15
    for b in shown:
        assert f"### {b.title.replace('_', chr(92) + '_')}" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert sum((set(line) <= set("|-: ") and "---" in line) or "--:" in line for line in lines) >= len(shown)


def test_markdown_escapes_what_comes_from_outside() -> None:
    bad = "<img src=x>|`*[a](b)"
    events = Run(trials=1, seeds=2).search().confirm().events
    rec = card.build(events, FakeClips(name=bad), {})
    text = markdown(page(rec, events))
    assert bad not in text and r"\<img src=x\>\|\`\*\[a\](b)" in text


def test_the_command_writes_what_is_asked_for(
    run: tuple[Path, dict[str, Any], list[dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run[0]
    assert main(["report", str(folder), "--markdown", str(tmp_path / "r.md"), "--csv", str(tmp_path / "csv")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(tmp_path / "r.md") and len(printed) == 6
    assert all(Path(p).is_file() for p in printed)
    assert not (folder / "report.html").exists(), "HTML was not asked for"
    assert main(["report", str(folder), "--csv", str(tmp_path / "r.md")]) == 2
    assert "cannot be made" in capsys.readouterr().err
    assert main(["report", str(folder), "--port", "80"]) == 2
    assert "--port: belongs to --watch" in capsys.readouterr().err
    assert main(["report", str(folder), "--watch", "--csv", "x"]) == 2
    assert "--csv" in capsys.readouterr().err
