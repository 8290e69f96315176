"""A finished sweep, simulated into a folder, gets more: what it knows stays, only what is new is asked."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmsearch.arguments import Arguments, recorded, recorded_sweep, space_in
from mmsearch.cli import main, parser
from mmsearch.cli.extend import extend
from mmsearch.cli.progress import Plan, Progress
from mmsearch.conduct import note_extensions
from mmsearch.errors import MMSearchError
from mmsearch.recommend.conclude import conclude
from mmsearch.search.finalists import finalists
from mmsearch.search.journal import Journal, read_events
from mmsearch.search.simulate import Synthetic, drive
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.study import Study
from mmsearch.search.trials import Records, records
from mmsearch.sweep import space_of

sys.path.insert(0, str(Path(__file__).parents[1] / "recommend"))
from synthetic_run import FakeClips

SPACE = """\
epochs: 9
methods:
  joint:
  ogm: {alpha: {low: 0.2, high: 0.5}}
fusions:
  concat:
"""
CLIPS = FakeClips()


def go_on(run: Path) -> dict[str, Any]:
    """What a sweep does after the clips are decoded, with simulated training."""
    arguments = recorded(run)
    with Journal(run) as journal:
        note_extensions(run, journal)
        space = space_of(space_in(run), CLIPS.modalities, CLIPS.digest, arguments)
        study = Study(space, journal)
        source = Chain(
            {
                "teachers": TeacherSource(study),
                "search": SearchSource(study, trials=arguments.trials),
                "confirm": ConfirmSource(study, finalists, seeds=arguments.seeds),
            },
            lambda phase: journal.append({"event": "phase", "name": phase}),
        )
        drive(study, source, Synthetic("spread", 1, space))
        recommendation = conclude(
            run,
            journal,
            CLIPS,
            recorded_sweep(run),
            lambda ids: {i: {"accuracy": 0.7, "macro_f1": 0.7, "unimodal": {}} for i in ids},
            again=arguments.read_test_again,
        )
        journal.append({"event": "phase", "name": "done"})
    return recommendation


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "space.yaml").write_text(SPACE)
    arguments = Arguments("digits.yaml", trials=18, seeds=2)
    (folder / "sweep.json").write_text(json.dumps({"arguments": arguments.to_dict(), "created": "2025-06-15"}))
    go_on(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished sweep."""
    monkeypatch.setattr("mmsearch.data.clips.ClipData.open", lambda path: CLIPS)
    return shutil.copytree(finished, tmp_path / "run")


def extended(run: Path, *flags: str) -> Arguments:
    return extend(run, parser().parse_args(["extend", str(run), *flags]))


def known(run: Path) -> Records:
    return records(read_events(run))


def asked(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in events if e["event"] == "asked"]


def test_a_new_method_joins_and_all_that_is_known_stays(run: Path) -> None:
    before = read_events(run)
    arguments = extended(run, "--methods", "opm")
    searched = sum(r.searched for r in known(run).values())
    assert arguments.trials == searched + 4 and arguments == recorded(run), "the floor of one method"
    assert (run / "space.yaml").read_text() == SPACE
    assert list(yaml.safe_load((run / "space-2.yaml").read_text())["methods"]) == ["joint", "ogm", "opm"]
    go_on(run)
    events = read_events(run)
    assert events[: len(before)] == before
    (event,) = [e for e in events if e["event"] == "extended"]
    assert event["space"] == "space-2.yaml" and event["arguments"] == arguments.to_dict()
    new = asked(events[len(before) :])
    assert [e["method"] for e in new if e["stage"] == "search"] == ["opm"] * 4
    assert {e["method"] for e in new if e["stage"] == "confirm"} <= {"opm", "ogm", "joint", "unimodal_teacher"}
    assert len({e["trial_id"] for e in asked(events)}) == len(asked(events)), "nothing is asked twice"


def test_a_wider_range_takes_the_old_trials_with_it(run: Path, tmp_path: Path) -> None:
    wider = tmp_path / "wider.yaml"
    wider.write_text(SPACE.replace("{low: 0.2, high: 0.5}", "{low: 0.05, high: 3.0}"))
    before = len(read_events(run))
    extended(run, "--space", str(wider), "--trials", "9")
    assert (run / "space-2.yaml").read_text() == wider.read_text()
    go_on(run)
    new = [e for e in asked(read_events(run)[before:]) if e["stage"] == "search"]
    alphas = [e["document"]["method"]["alpha"] for e in new if e["method"] == "ogm"]
    assert len(new) == 9 and any(not 0.2 <= a <= 0.5 for a in alphas)


def test_a_new_fusion_is_for_the_methods_that_go_with_it(run: Path) -> None:
    before = sum(r.searched for r in known(run).values())
    assert extended(run, "--fusions", "sum").trials == before + 2 * 4, "joint and ogm; the others bring their own"


def test_more_seeds_ask_only_for_confirmations(run: Path) -> None:
    before = len(read_events(run))
    extended(run, "--seeds", "4")
    go_on(run)
    new = asked(read_events(run)[before:])
    assert {e["document"]["seed"] for e in new} == {1002, 1003}
    assert {e["stage"] for e in new} <= {"confirm", "teacher"}


def test_extending_twice_builds_on_the_first_extension(run: Path) -> None:
    extended(run, "--methods", "opm", "--trials", "1")
    go_on(run)
    arguments = extended(run, "--fusions", "sum", "--trials", "3")
    assert space_in(run).name == "space-3.yaml"
    content = yaml.safe_load(space_in(run).read_text())
    assert list(content["methods"]) == ["joint", "ogm", "opm"] and list(content["fusions"]) == ["concat", "sum"]
    go_on(run)
    assert "sum" in {r.fusion for r in known(run).values()}
    assert sum(r.searched for r in known(run).values()) == arguments.trials


def test_test_is_read_again_only_where_it_is_asked_for(run: Path) -> None:
    extended(run, "--seeds", "3")
    silent = go_on(run)
    unread = [r for r in known(run).values() if r.select and not r.test]
    assert unread and silent["provenance"]["test_readings"] == 1
    extended(run, "--read-test-again")
    said = go_on(run)
    assert said["provenance"]["test_readings"] == 2
    assert all(r.test for r in known(run).values() if r.select)
    with pytest.raises(MMSearchError, match="changes nothing"):
        extended(run, "--read-test-again")


def test_an_extension_that_a_kill_kept_from_the_journal_is_noted_once(run: Path) -> None:
    extended(run, "--trials", "2")
    assert not [e for e in read_events(run) if e["event"] == "extended"]
    go_on(run)
    go_on(run)
    assert len([e for e in read_events(run) if e["event"] == "extended"]) == 1


def test_progress_says_what_an_extension_does(run: Path) -> None:
    before = len(read_events(run))
    extended(run, "--seeds", "3", "--read-test-again", "--trials", "1")
    go_on(run)
    stream = io.StringIO()
    events = read_events(run)
    with Progress(stream, True, Plan(), events[:before]) as progress:
        for event in events[before:]:
            progress(event)
    text = stream.getvalue()
    assert "extended to 19 trials of the search; space: space-2.yaml" in text
    assert "test part read, again, for" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "extend: this changes nothing"),
        (["--methods", "joint,ogm"], "extend: this changes nothing"),
        (["--methods", "opn"], "--methods: unknown method 'opn'; did you mean 'opm'?"),
        (["--fusions", "gatd"], "--fusions: unknown fusion 'gatd'; did you mean 'gated'?"),
        (["--fusions", "stacking"], "post-hoc fusions would differ"),
        (["--seeds", "1"], "--seeds: the run has 2"),
        (["--methods", "opm,uniform", "--trials", "1"], "--trials: 1 more are too few for one of each new method"),
        (["--space", "OTHER"], "epochs would differ from those of every trial of the run"),
        (["--space", "BROKEN"], "broken.yaml:4: unknown knob 'alfa'; did you mean 'alpha'?"),
    ],
)
def test_what_cannot_be_leaves_no_trace(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    (tmp_path / "other.yaml").write_text(SPACE.replace("epochs: 9", "epochs: 12"))
    (tmp_path / "broken.yaml").write_text(SPACE.replace("alpha", "alfa"))
    files = {"OTHER": tmp_path / "other.yaml", "BROKEN": tmp_path / "broken.yaml"}
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    assert main(["extend", str(run), *(str(files.get(f, f)) for f in flags)]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_an_unfinished_sweep_is_to_be_resumed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(run) as journal:
        journal.append({"event": "phase", "name": "search"})
    assert main(["extend", str(run), "--methods", "opm"]) == 2
    assert f"finish it first: mmsearch resume {run}" in capsys.readouterr().err
