from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_run import COST, DEMO, FakeClips, Run, document, write_run

from mmsearch.cli import main
from mmsearch.errors import MMSearchError
from mmsearch.recommend import card
from mmsearch.recommend.compare import Spent, Sweep, cliques, compare, critical_difference, friedman


def sweep(name: str, **gains: float) -> Sweep:
    spent = {m: Spent(20.0, [(10.0, 0.5 + g), (20.0, 0.6 + g)]) for m, g in gains.items()}
    return Sweep(name, name, gains, spent)


def finished(folder: Path, name: str, seed: int, **truth: float) -> Path:
    """A made-up run of a dataset of that name; a method of truth 0 is not run."""
    run = Run({k: v for k, v in (DEMO | truth).items() if v}, seeds=3, trials=3, seed=seed)
    events = run.search().confirm().read_test().events
    write_run(folder, events)
    card.write(folder, card.build(events, FakeClips(name=name, digest=name), {}))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    home = tmp_path_factory.mktemp("runs")
    changed = {"letters": {"uniform": 0.90, "mla": 0.97}, "colours": {"ogm": 0.0}}
    names = ("digits", "letters", "colours")
    return [str(finished(home / name, name, i, **changed.get(name, {}))) for i, name in enumerate(names)]


def test_critical_difference_is_that_of_the_paper() -> None:
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_friedman_agrees_with_scipy_ties_included() -> None:
    scores = np.round(np.random.default_rng(0).random((9, 5)), 1)
    chi2 = stats.friedmanchisquare(*scores.T).statistic
    expected = stats.f.sf(8 * chi2 / (9 * 4 - chi2), 4, 32)
    assert friedman(stats.rankdata(-scores, axis=1)) == pytest.approx(expected)


def test_friedman_says_nothing_of_two_methods_or_of_ties_alone() -> None:
    assert friedman(np.array([[1.0, 2.0], [2.0, 1.0]])) is None
    assert friedman(np.full((4, 3), 2.0)) is None
    assert friedman(np.tile([1.0, 2.0, 3.0], (4, 1))) == 0.0


def test_cliques_are_the_largest_groups() -> None:
    assert cliques([1.0, 1.5, 2.4, 4.0, 4.2], 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert cliques([1.0, 2.0, 3.0], 2.0) == [(0, 2)]
    assert cliques([1.0, 3.0], 1.0) == []


def test_ranks_are_averaged_and_ties_share_theirs() -> None:
    found = compare([sweep("a", joint=0.0, ogm=0.02, mla=0.02), sweep("b", joint=0.0, ogm=-0.01, mla=0.03)])
    assert [(p.method, p.rank) for p in found.places] == [("mla", 1.25), ("ogm", 2.25), ("joint", 2.5)]
    assert found.places[0].gain == pytest.approx(0.025)


def test_a_method_that_one_run_lacks_is_named_and_not_ranked() -> None:
    found = compare([sweep("a", joint=0.0, ogm=0.1, pmr=0.2), sweep("b", joint=0.0, ogm=0.1)])
    assert {p.method for p in found.places} == {"joint", "ogm"} and found.missing == {"pmr": ["b"]}


def test_within_a_small_budget_what_is_finished_counts() -> None:
    slow = Spent(30.0, [(30.0, 0.99)])
    runs = [dataclasses.replace(s, spent=s.spent | {"mla": slow}) for s in (sweep(n, joint=0.0, mla=0.1) for n in "ab")]
    early, late = compare(runs, budget=10.0), compare(runs, budget=30.0)
    assert {p.method: p.reached for p in early.places} == {"mla": [None, None], "joint": [0.5, 0.5]}
    assert {p.method: p.equal_rank for p in early.places} == {"mla": 2.0, "joint": 1.0}
    assert {p.method: p.equal_rank for p in late.places} == {"mla": 1.0, "joint": 2.0}


def test_teachers_are_charged_once_to_a_method_that_uses_them() -> None:
    run = Run({k: DEMO[k] for k in ("joint", "sound", "frames")}, seeds=2, trials=2).search()
    teachers = {e["document"]["method"]["modality"]: e["trial_id"] for e in run.events if e.get("stage") == "teacher"}
    for lr in (0.01, 0.02):
        run.trial(document("umt", lr=lr, teachers=teachers), 0.9, "umt", why="tpe")
    events = run.confirm().events
    spent = Sweep.of(card.build(events, FakeClips(), {}), events).spent["unimodal_teacher (umt)"]
    shared, own = 15 * (COST["sound"] + COST["frames"]), 15 * COST["umt"]
    assert [cost for cost, _ in spent.finished] == pytest.approx([shared + own, shared + 2 * own])
    assert spent.joint_epochs == pytest.approx(shared + 2 * own)


@pytest.mark.parametrize(
    ("sweeps", "says"),
    [
        ([sweep("a", joint=0.0, ogm=0.1)], "two datasets or more"),
        ([sweep("a", joint=0.0, ogm=0.1)] * 2, "same clips and labels"),
        ([sweep("a", joint=0.0, ogm=0.1), sweep("b", joint=0.0, mla=0.1)], "only joint in common"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(sweeps: list[Sweep], says: str) -> None:
    with pytest.raises(MMSearchError, match=says):
        compare(sweeps)


def test_command_prints_ranks_and_what_they_allow_to_claim(
    runs: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["compare", *runs]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "digits letters colours" in out and "sound alone" in out and "unimodal_teacher (ume)" in out
    assert "ogm is left out: no finalist on colours." in out
    assert "Nemenyi" in out and "Not told apart: " in out


def test_json_is_the_whole_comparison(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *runs, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["datasets"] == ["digits", "letters", "colours"] and told["missing"] == {"ogm": ["colours"]}
    recorded = json.loads((Path(runs[0]) / "recommendation.json").read_text())
    reference = recorded["decision"]["reference"]
    gain = {c["a"]: c["mean"] for c in recorded["comparisons"] if c["b"] == reference}
    joint = next(p for p in told["places"] if p["method"] == "joint")
    ensemble = next(p for p in told["places"] if p["method"] == "unimodal_teacher (ume)")
    assert joint["gains"] == [0.0, 0.0, 0.0] and ensemble["gains"][0] == gain["unimodal_teacher (ume)"]


def test_two_datasets_say_that_they_are_too_few(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *runs[:2]]) == 0
    assert "more datasets are needed for any claim" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("name", "begins"), [("cd.svg", b"<?xml"), ("cd.png", b"\x89PNG"), ("cd.pdf", b"%PDF")])
def test_diagram_is_drawn(runs: list[str], tmp_path: Path, name: str, begins: bytes) -> None:
    assert main(["compare", *runs, "--plot", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("flags", "says"), [(["--plot", "cd.gif"], "cd.gif: a picture ends in"), (["--budget", "0"], "--budget: 0")]
)
def test_bad_flags_end_with_code_2(
    runs: list[str], flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *runs, *flags]) == 2
    assert says in capsys.readouterr().err
