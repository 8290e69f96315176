from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from mmsearch.errors import MMSearchError
from mmsearch.search.journal import Journal
from mmsearch.search.sources import SearchSource
from mmsearch.search.study import Study
from mmsearch.search.warm import KNOWN, POINTS, Start, keep, read_known, read_points

SPACE = """
epochs: {epochs}
methods:
  joint:
  ogm:
    tensors: matrices
fusions:
  concat:
  gated:
optimizers:
  sgd:
    lr: {{low: 0.001, high: 1, log: true}}
    weight_decay: 0.0001
"""


@pytest.fixture
def space(driver, tmp_path: Path):
    return driver.make_space(tmp_path, text=SPACE)


def points_file(folder: Path, text: str) -> Path:
    path = folder / "points.yaml"
    path.write_text(text)
    return path


def test_points_are_flat_or_nested_and_complete(space, tmp_path: Path) -> None:
    path = points_file(
        tmp_path,
        "ogm:\n  - alpha: 0.5\n    fusion: gated\n    sgd: {lr: 0.2}\n  - ogm.alpha: 0.7\n    sgd.lr: 0.3\njoint: []\n",
    )
    nested, flat = read_points(path, space)["ogm"]
    assert nested == {**nested, "ogm.alpha": 0.5, "fusion": "gated", "optimizer": "sgd", "sgd.lr": 0.2}
    assert flat == {**flat, "ogm.alpha": 0.7, "fusion": "concat", "sgd.lr": 0.3}
    assert nested.keys() >= space.paper_points("ogm")[0].keys(), "what is left out is at the paper's setting"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alhpa: 0.5", "3: ogm has no parameter 'alhpa'; did you mean 'ogm.alpha'?"),
        ("{sgd: {lr: 3}}", "3: lr is 3; allowed: "),
        ("sgd.lr: 0.0005", "3: lr is 0.0005; allowed: 0.001 to 1"),
        ("fusion: gatde", "3: fusion is 'gatde'; did you mean 'gated'?"),
        ("{fusion: concat, gated.gate: modality}", "3: gated.gate "),
        ("{fusion: concat, %s: 1}", "3: %s does not exist beside"),
        ("sgd.weight_decay: 0.1", "3: ogm has no parameter 'sgd.weight_decay'"),
        ("0.5", "3: write a setting as `parameter: value` lines"),
    ],
)
def test_a_mistaken_point_is_named_with_its_line(space, tmp_path: Path, line: str, message: str) -> None:
    other = next(n for n in space.knobs("ogm") if n.startswith("gated."))
    path = points_file(tmp_path, "ogm:\n  - alpha: 0.5\n  - " + line.replace("%s", other) + "\n")
    with pytest.raises(MMSearchError) as error:
        read_points(path, space)
    assert f"points.yaml:{message.replace('%s', other)}" in str(error.value)


def test_a_point_of_an_unknown_method_is_named(space, tmp_path: Path) -> None:
    with pytest.raises(MMSearchError, match=r"points.yaml:1: the space has no method 'ogn'; did you mean 'ogm'\?"):
        read_points(points_file(tmp_path, "ogn:\n  - alpha: 0.5\n"), space)
    with pytest.raises(MMSearchError, match=r"points.yaml:1: write the settings of ogm as a list"):
        read_points(points_file(tmp_path, "ogm:\n  alpha: 0.5\n"), space)


def test_a_point_outside_the_range_that_only_a_document_may_have_is_refused(driver, tmp_path: Path) -> None:
    space = driver.make_space(tmp_path, text=SPACE.replace("  ogm:", "  agm:\n  ogm:"))
    with pytest.raises(MMSearchError, match=r"points.yaml:2: alpha is 0.0; the space searches 0.05 to 5 \(log\)"):
        read_points(points_file(tmp_path, "agm:\n  - alpha: 0\n"), space)


def test_points_are_asked_after_the_first_paper_setting(space, simulate) -> None:
    params = space.setting("ogm", {"ogm.alpha": 0.5}, str)[1]
    study = Study(space, Journal(None), start=Start(points={"ogm": [params]}))
    asks = [a for a in simulate(study, SearchSource(study, trials=12)) if a.method == "ogm"]
    assert [a.why for a in asks[:3]] == ["paper setting", "point", "paper setting"]
    assert asks[1].document["method"]["alpha"] == 0.5 and asks[0].document["method"]["alpha"] != 0.5


@pytest.fixture
def other(driver, tmp_path: Path, simulate) -> Path:
    """A finished search on other clips, with a method that the space has not."""
    run = tmp_path / "other"
    space = driver.make_space(run, text=SPACE.replace("methods:", "methods:\n  uniform:"))
    space.data = "d0"
    with Journal(run) as journal:
        study = Study(space, journal)
        simulate(study, SearchSource(study, trials=24))
    return run


def test_a_warm_start_is_known_to_the_sampler_and_counts_as_no_trial(space, other: Path, simulate) -> None:
    known = read_known(other, space)
    assert set(known) <= {"joint", "ogm", "unimodal", "unimodal_teacher"} and "uniform" not in known
    study = Study(space, Journal(None), start=Start(known=known))
    before = study.view("ogm").trials
    assert [t.user_attrs["trial_id"] for t in before] == [t.trial_id for t in known["ogm"]]
    assert {t.state for t in before} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.records == {}
    asks = [a for a in simulate(study, SearchSource(study, trials=16)) if a.method == "ogm"]
    best = max((t for t in known["ogm"] if t.state == "complete"), key=lambda t: t.score)
    assert sum(r.searched for r in study.records.values()) == 16
    again = [a for a in asks if a.params == best.params]
    assert len(again) == 1 and again[0].why in ("warm start", "paper setting") and again[0].document["data"] == "d1"
    assert len(study.view("ogm").trials) == len(known["ogm"]) + len(study.searched("ogm"))


def test_known_scores_move_by_what_shared_settings_differ_by(space, other: Path) -> None:
    known = read_known(other, space)
    study = Study(space, Journal(None), start=Start(known=known))
    best = max((t for t in known["ogm"] if t.state == "complete"), key=lambda t: t.score)
    ask = next(a for a in study.paper("ogm") if a.params == best.params)
    study.issue(ask)
    study.report(ask.trial_id, {"epoch": 9, "epochs": 9, "score": best.score - 0.25, "metrics": {}})
    study.tell(ask.trial_id, "complete")
    moved = {t.user_attrs["trial_id"]: t for t in study.view("ogm").trials}
    for trial in known["ogm"]:
        assert moved[trial.trial_id].value == pytest.approx(trial.score - 0.25)
        assert moved[trial.trial_id].intermediate_values[1] == pytest.approx(trial.curve[0][1] - 0.25)


def test_a_run_keeps_what_it_started_from(space, other: Path, driver, tmp_path: Path) -> None:
    path = points_file(tmp_path, "ogm:\n  - alpha: 0.5\n")
    out = tmp_path / "run"
    out.mkdir()
    assert Start.kept(space, out) == Start()
    keep(out, path, other)
    kept = Start.kept(space, out)
    assert kept == Start.load(space, path, other) and kept.points and kept.known
    assert {p.name for p in out.iterdir()} == {POINTS, KNOWN}
    assert all(json.loads(line)["state"] != "failed" for line in (out / KNOWN).read_text().splitlines())
    narrow = driver.make_space(tmp_path / "narrow", text=SPACE.replace("  ogm:\n    tensors: matrices\n", ""))
    left = Start.kept(narrow, out)
    assert left.points == {} and "ogm" not in left.known and left.known, "an extended run may have other ranges"


def test_a_warm_start_of_which_nothing_fits_is_refused(space, other: Path, driver, tmp_path: Path) -> None:
    narrow = driver.make_space(tmp_path / "narrow", text=SPACE.replace("low: 0.001, high: 1", "low: 0.9, high: 1"))
    keep(tmp_path, None, other)
    known = tmp_path / KNOWN
    known.write_text("".join(line for line in known.read_text().splitlines(True) if '"ogm"' in line))
    with pytest.raises(MMSearchError, match=r"none of its \d+ finished trials fits the methods and ranges"):
        read_known(known, narrow)
    with pytest.raises(MMSearchError, match="no run there"):
        read_known(tmp_path / "nowhere", space)
