"""Bad input to a sweep: one clear message, exit code 2, nothing written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import rows

from mmsearch.cli import main

Write = Callable[..., Path]


def refused(argv: list[str], capsys: pytest.CaptureFixture, *parts: str) -> str:
    """Runs a command that must be refused; returns the message."""
    try:
        code = main(argv)
    except SystemExit as e:
        code = e.code
    message = capsys.readouterr().err
    assert code == 2
    assert message.startswith("error: ")
    assert "Traceback" not in message
    for part in parts:
        assert part in message, message
    return message


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["swep"], ["unknown command 'swep'", "did you mean 'sweep'"]),
        (["sweep", "--datset", "x.yaml"], ["unknown argument '--datset'", "did you mean '--dataset'"]),
        (["sweep"], ["--dataset: a dataset YAML is needed"]),
        (["sweep", "--dataset", "demo", "--trials", "0"], ["--trials", "less than 1"]),
        (["sweep", "--dataset", "demo", "--max-epochs", "0"], ["--max-epochs", "less than 1"]),
        (["sweep", "--dataset", "demo", "--seeds", "0"], ["--seeds", "less than 1"]),
        (["sweep", "--dataset", "demo", "--budget", "0"], ["--budget", "not above 0"]),
        (["sweep", "--dataset", "demo", "--budget", "lots"], ["--budget", "'lots' is not a number"]),
        (["sweep", "--dataset", "demo", "--time-budget", "0m"], ["--time-budget", "not above 0"]),
        (["sweep", "--dataset", "demo", "--fusions", ","], ["--fusions", "no name"]),
        (["sweep", "--dataset", "demo", "--seeds", "two"], ["--seeds", "'two' is not a whole number"]),
        (
            ["sweep", "--dataset", "demo", "--time-budget", "90 minutes"],
            ["--time-budget", "not a duration such as 90m"],
        ),
        (["sweep", "--dataset", "no/such.yaml"], ["no/such.yaml"]),
        (["resume", "no/such/run"], ["no/such/run", "no sweep there"]),
        (["sweep", "--resume"], ["--resume: say which run with --out"]),
    ],
)
def test_mistakes_on_the_command_line(argv: list[str], parts: list[str], capsys: pytest.CaptureFixture) -> None:
    refused(argv, capsys, *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--methods", "ogmm"], ["--methods: unknown method 'ogmm'", "did you mean 'ogm'"]),
        (["--fusions", "konkat"], ["--fusions: unknown fusion 'konkat'", "did you mean 'concat'"]),
        (["--space", "nowhere.yaml"], ["--space: no file", "nowhere.yaml"]),
        (["--allocation", "rase"], ["--allocation: unknown allocation 'rase'", "did you mean 'race'"]),
        (["--sampler", "tpee"], ["--sampler: no sampler 'tpee'", "did you mean 'tpe'"]),
    ],
)
def test_unknown_names(
    arguments: list[str], parts: list[str], dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    refused(["sweep", "--dataset", str(dataset()), "--out", str(tmp_path / "run"), *arguments], capsys, *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ({"yaml": "name: tiny\nmanifst: m.csv\n"}, ["tiny.yaml:2", "'manifst'", "did you mean 'manifest'"]),
        ({"yaml": "name: tiny\nmanifest: [m.csv\n"}, ["tiny.yaml:3", "expected"]),
        ({"yaml": "name: tiny\n"}, ["tiny.yaml", "manifest"]),
        ({"yaml": "name: tiny\nmanifest: n.csv\n"}, ["n.csv"]),
        (
            {"yaml": "name: tiny\nmanifest: m.csv\nmodalities:\n  sound: {kind: sund}\n"},
            ["tiny.yaml:4", "'sund'", "did you mean 'sound'"],
        ),
        (
            {"yaml": "name: tiny\nmanifest: m.csv\nmodalities:\n  sound: {kind: sound, rte: 8000}\n"},
            ["tiny.yaml:4", "'rte'", "did you mean 'rate'"],
        ),
        ({"header": "clip_id,path,lable,split"}, ["m.csv", "label", "did you mean 'lable'"]),
        ({"header": "clip,path,label,split"}, ["m.csv", "clip_id"]),
        ({"rows": rows({3: "c3,gone.mp4,b,train"})}, ["m.csv: row 5", "gone.mp4"]),
        ({"rows": rows({3: "c2,c3.mp4,b,train"})}, ["m.csv: row 5", "c2", "row 4"]),
        ({"rows": rows({3: "c3,c3.mp4,z,train"})}, ["m.csv: row 5", "'z'", "this clip only"]),
        ({"rows": rows({3: "c3,c3.mp4,,train"})}, ["m.csv: row 5", "label"]),
        ({"rows": rows({3: "c3,c3.mp4,b,tran"})}, ["m.csv: row 5", "'tran'", "did you mean 'train'"]),
        ({"rows": [f"c{i},c{i}.mp4,{'ab'[i % 2]},test" for i in range(12)]}, ["m.csv", "train"]),
    ],
)
def test_datasets(
    written: dict, parts: list[str], dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    message = refused(["sweep", "--dataset", str(dataset(**written)), "--out", str(tmp_path / "run")], capsys)
    assert [p for p in parts if p not in message] == [], message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        ("methods:\n  ogmm:\n", ["space.yaml:2", "unknown method 'ogmm'", "did you mean 'ogm'"]),
        ("methods:\n  ogm: {alfa: 1}\n", ["space.yaml:2", "unknown knob 'alfa'", "did you mean 'alpha'"]),
        ("epoch: 3\n", ["space.yaml:1", "'epoch'", "did you mean 'epochs'"]),
        ("encoders:\n  smell: frames\n", ["space.yaml:2", "'smell'", "neither a modality nor a kind"]),
        ("methods:\n  ogm: {alpha: {low: 2, high: 1}}\n", ["space.yaml:2", "low must be below high"]),
        ("epochs: [\n", ["space.yaml:2"]),
    ],
)
def test_search_spaces(
    space: str, parts: list[str], dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "space.yaml").write_text(space)
    arguments = ["sweep", "--dataset", str(dataset()), "--space", str(tmp_path / "space.yaml")]
    refused([*arguments, "--out", str(tmp_path / "run")], capsys, *parts)
    assert not (tmp_path / "run").exists()


def test_too_few_trials_for_the_methods(dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["sweep", "--dataset", str(dataset()), "--trials", "2", "--out", str(tmp_path / "run")]
    refused(arguments, capsys, "--trials: 2 are too few")


def test_a_folder_that_holds_another_sweep_is_left_as_it_is(
    dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "sweep.json").write_text("{}")
    refused(
        ["sweep", "--dataset", str(dataset()), "--out", str(run)], capsys, "already holds a sweep", "mmsearch resume"
    )
    assert [p.name for p in run.iterdir()] == ["sweep.json"]


def test_a_folder_with_something_else_in_it_is_left_as_it_is(
    dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("years of work")
    refused(["sweep", "--dataset", str(dataset()), "--out", str(run)], capsys, "not an empty folder")
    assert [p.name for p in run.iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_found_before_the_start(
    dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    refused(["sweep", "--dataset", str(dataset()), "--out", str(tmp_path / "run")], capsys, "full")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_to(
    dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):  # root writes everywhere
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    refused(["sweep", "--dataset", str(dataset()), "--out", str(closed / "run")], capsys, "cannot write to")
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus-per-trial", "64"], "--gpus-per-trial: a trial asks for 64 GPUs, this machine has "),
        (["--cpus-per-trial", "4096"], "--cpus-per-trial: a trial asks for 4096 CPUs, this machine has "),
    ],
)
def test_more_than_the_machine_has_is_found_before_anything_is_started(
    arguments: list[str],
    message: str,
    dataset: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    monkeypatch.setenv("MMSEARCH_CACHE", str(cache))
    refused(["sweep", "--dataset", str(dataset()), "--out", str(run), *arguments], capsys, message)
    assert not run.exists() and not cache.exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--fusions", "decision"], ["fusions: all of them combine what another one has trained", "concat"]),
        (["--methods", "greedy", "--fusions", "concat"], ["--methods: method greedy cannot go with fusion concat"]),
    ],
)
def test_restrictions_that_leave_nothing(
    arguments: list[str], parts: list[str], dataset: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    refused(["sweep", "--dataset", str(dataset()), "--out", str(tmp_path / "run"), *arguments], capsys, *parts)
    assert not (tmp_path / "run").exists()


def test_a_mistake_in_a_sweep_of_the_demo_is_found_before_its_clips_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    refused(["sweep", "--dataset", "demo", "--out", str(tmp_path / "run"), "--trials", "3"], capsys, "too few")
    assert list(tmp_path.iterdir()) == []
