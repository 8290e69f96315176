"""What chooses the next trial, through the command line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest

from mmsearch.cli import main
from mmsearch.search.journal import read_events
from mmsearch.search.mirror import file_storage
from mmsearch.search.trials import TrialRecord, records

SPACE = """\
epochs: 2
methods:
  joint:
fusions:
  concat:
optimizers:
  sgd: {lr: {low: 0.001, high: 0.5, log: true, prior: {at: 0.05, spread: 0.1}}, weight_decay: 0.0001}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of small vectors in three classes, and a search space."""
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = ["clip_id,label,sound,frames"]
    for i in range(90):
        for u, noise in (("sound", 0.8), ("frames", 2.0)):
            np.save(tmp_path / f"{u}{i}.npy", (np.eye(3)[i % 3] + noise * rng.normal(size=3)).astype("float32"))
        rows.append(f"c{i},class{i % 3},sound{i}.npy,frames{i}.npy")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    modalities = "".join(f"  {u}: {{kind: vector, column: {u}}}\n" for u in ("sound", "frames"))
    (tmp_path / "vectors.yaml").write_text(f"name: vectors\nmanifest: m.csv\nmodalities:\n{modalities}")
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


def command(home: Path, name: str, *arguments: str) -> list[str]:
    sweep = ["sweep", "--dataset", home / "vectors.yaml", "--space", home / "space.yaml", "--out", home / name]
    return [*map(str, sweep), "--trials", "10", "--seeds", "1", "--plain", *arguments]


def searched(run: Path) -> list[TrialRecord]:
    return [r for r in records(read_events(run)).values() if r.searched]


def test_samplers_points_warm_start_and_studies(home: Path, capsys: pytest.CaptureFixture) -> None:
    (home / "points.yaml").write_text("joint:\n  - sgd: {lr: 0.123}\n")
    url = f"sqlite:///{home / 'studies.db'}"
    first, second = home / "first", home / "second"
    assert main(command(home, "first", "--sampler", "qmc", "--points", str(home / "points.yaml"))) == 0
    found = [r for r in searched(first) if r.method == "joint"]
    assert [r.why for r in found[:2]] == ["paper setting", "point"] and found[1].params["sgd.lr"] == 0.123
    assert {r.why for r in found[2:]} == {"qmc"}

    assert main(command(home, "second", "--sampler", "cmaes", "--warm-start", str(first), "--optuna", url)) == 0
    assert "Traceback" not in capsys.readouterr().out
    found = [r for r in searched(second) if r.method == "joint"]
    assert Counter(r.why for r in searched(second))["cmaes"] > 0
    assert len(searched(second)) == 10, "what the other sweep knows counts as no trial"
    best = max((r for r in searched(first) if r.method == "joint" and r.state == "complete"), key=lambda r: r.score)
    assert sum(r.params == best.params for r in found) == 1
    for storage in (url, file_storage(second / "optuna.log")):
        trials = optuna.load_study(study_name="second/joint", storage=storage).trials
        assert [t.user_attrs["trial_id"] for t in trials] and len(trials) == len(found)


def test_a_recommendation_before_any_sweep_starts_one(
    home: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSEARCH_KNOWLEDGE", str(home / "knowledge"))
    (home / "space.yaml").write_text(SPACE.replace("  joint:\n", "  joint:\n  uniform:\n  mla:\n"))
    about = ["--dataset", str(home / "vectors.yaml"), "--space", str(home / "space.yaml")]
    asked = ["recommend", "--no-sweep", *about, "--device", "cpu", "--points", str(home / "points.yaml")]
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["descriptors"]["alone"]) == {"sound", "frames"}
    assert {e["label"] for e in told["order"]} >= {"joint"}

    (home / "points.yaml").write_text("mla:\n- sgd: {lr: 0.3}\nuniform: []\njoint: []\n")
    assert main(command(home, "run", "--points", str(home / "points.yaml"))) == 0
    order = list(dict.fromkeys(r.method for r in searched(home / "run") if r.stage == "search"))
    assert order[:3] == ["mla", "uniform", "joint"]
    (case,) = (home / "knowledge").glob("*.json")
    known = json.loads(case.read_text())["case"]
    assert known["name"] == "vectors" and known["origin"] == "sweep"

    capsys.readouterr()
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "vectors: before any sweep" in printed and "next: mmsearch sweep" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RUN: say which run, or `--dataset X --no-sweep` for a recommendation before any sweep"),
        (["--no-sweep"], "--dataset: a dataset YAML is needed, or `--dataset demo` for the embedded clips"),
        (["--dataset", "demo"], "--dataset: belongs to --no-sweep"),
        (["run", "--allow-absolute"], "--allow-absolute: belongs to --no-sweep"),
        (["run", "--no-sweep", "--dataset", "demo"], "RUN: run and --no-sweep exclude each other"),
        (["--no-sweep", "--dataset", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
    ],
)
def test_recommend_says_what_is_missing(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["recommend", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler", "cmeas"], "--sampler: no sampler 'cmeas'; did you mean 'cmaes'?"),
        (["--points", "POINTS"], "points.yaml:2: joint has no parameter 'sgd.rl'; did you mean 'sgd.lr'?"),
        (["--points", "nowhere.yaml"], "nowhere.yaml: cannot be read: No such file or directory"),
        (["--warm-start", "nowhere"], "nowhere: no run there (it has no journal.jsonl)"),
        (["--optuna", "mysql://a:b@host/db"], "leave the password to the environment"),
        (["--optuna", "studies.db"], "no address of a database such as sqlite:///studies.db"),
    ],
)
def test_mistakes_end_before_anything_starts(
    home: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    (home / "points.yaml").write_text("joint:\n  - sgd.rl: 0.1\n")
    given = [a.replace("POINTS", str(home / "points.yaml")) for a in arguments]
    assert main(command(home, "run", *given)) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert not (home / "run").exists()


def test_a_prior_out_of_range_is_named_with_its_line(home: Path, capsys: pytest.CaptureFixture) -> None:
    (home / "space.yaml").write_text(SPACE.replace("at: 0.05", "at: 5"))
    assert main(command(home, "run")) == 2
    assert "space.yaml:7: lr is 5; allowed: 0.001 to 0.5" in capsys.readouterr().err


def test_the_arguments_are_recorded(home: Path) -> None:
    (home / "points.yaml").write_text("joint: []\n")
    from mmsearch.arguments import Arguments

    given = Arguments(dataset="d", sampler="gp", points="p.yaml", warm_start="run", optuna="sqlite:///x.db")
    assert Arguments.from_dict(json.loads(json.dumps(given.to_dict()))) == given
