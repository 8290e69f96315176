from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_run import DEMO, SWEEP, FakeClips, Run, whole_run

from mmsearch.errors import MMSearchError
from mmsearch.recommend import card, terminal
from mmsearch.recommend.conclude import conclude
from mmsearch.search.journal import Journal

BALANCED = {"joint": 0.963, "uniform": 0.955, "ogm": 0.95, "ume": 0.898, "sound": 0.334, "frames": 0.343}
USELESS = {"joint": 0.545, "uniform": 0.618, "ogm": 0.56, "ume": 0.618, "sound": 0.097, "frames": 0.79}


def built(**kwargs: Any) -> dict[str, Any]:
    return card.build(whole_run(**kwargs), FakeClips(), SWEEP)


def sentence(rec: dict[str, Any], about: str) -> str:
    return next((s["text"] for s in rec["decision"]["sentences"] if s["about"] == about), "")


def test_the_demo_gives_a_method_and_states_the_tie() -> None:
    rec = built()
    d = rec["decision"]
    assert (d["kind"], d["method"], d["fusion"], d["modality"]) == ("method", "uniform", "concat", None)
    assert d["headline"] == "Train with uniform, fusion concat"
    assert "unimodal_teacher (ume)" in d["tied_with"]
    assert "unimodal_teacher (ume)" in sentence(rec, "Tie")
    assert d["config"]["method"] == {"name": "uniform"}
    assert not {"seed", "fold", "teachers"} & d["config"].keys()
    assert "read once after the decision" in sentence(rec, "Test")
    json.dumps(rec, allow_nan=False)


def test_every_finalist_has_its_seeds_intervals_and_costs() -> None:
    rec = built()
    by_label = {f["label"]: f for f in rec["finalists"]}
    assert len(by_label) == len(DEMO)
    ume = by_label["unimodal_teacher (ume)"]
    assert ume["seeds"] == [1000, 1001, 1002, 1003, 1004]
    assert ume["cost_joint_epochs"] == 0.0
    assert ume["cost_shared_joint_epochs"] == pytest.approx(15 * (0.43 + 0.65))
    assert by_label["joint · concat"]["cost_shared_joint_epochs"] == 0.0
    for f in rec["finalists"]:
        low, high = f["select"]["ci95"]
        assert 0 <= low <= f["select"]["mean"] <= high <= 1
        assert len(f["test"]["values"]) == 5


def test_the_starved_modality_is_named() -> None:
    rec = built()
    frames = next(m for m in rec["modalities"] if m["modality"] == "frames")
    assert frames["alone"] > frames["chosen"] > frames["joint"]
    assert "The frames encoder alone reaches" in sentence(rec, "Modalities")


def test_balanced_modalities_give_the_baseline() -> None:
    rec = built(truth=BALANCED)
    assert rec["decision"]["kind"] == "baseline"
    assert rec["decision"]["headline"] == "No method beats plain joint training here"


def test_a_useless_modality_gives_the_other_alone() -> None:
    rec = built(truth=USELESS)
    assert rec["decision"]["kind"] == "unimodal"
    assert rec["decision"]["headline"] == "Use the frames alone"


def test_one_seed_says_so() -> None:
    rec = built(seeds=1, trials=2)
    assert rec["decision"]["kind"] == "no_clear_winner"
    assert "One seed says nothing of the noise" in sentence(rec, "Evidence")
    assert rec["finalists"][0]["select"]["ci95"] == [None, None]


def test_two_finalists_of_one_method_and_fusion_have_two_labels() -> None:
    events = whole_run(seeds=3)
    for e in list(events):
        if e["event"] == "asked" and e["method"] == "ogm" and e["stage"] == "confirm":
            e["document"]["method"]["alpha"] = 0.3 if e["document"]["seed"] == 1000 else 0.8
    labels = [f["label"] for f in card.build(events, FakeClips(), SWEEP)["finalists"]]
    assert len(set(labels)) == len(labels)
    assert "ogm · concat #2" in labels


def test_failed_confirmations_are_counted() -> None:
    events = whole_run()
    told = [e for e in events if e["event"] == "told" and "select" in e]
    asked = {e["trial_id"]: e for e in events if e["event"] == "asked"}
    lost = next(e for e in told if asked[e["trial_id"]]["method"] == "mla")
    lost |= {"state": "failed", "reason": "out of memory"}
    del lost["select"]
    rec = card.build(events, FakeClips(), SWEEP)
    assert sentence(rec, "Failures") == "mla · concat: 1 of 5 confirmation trainings failed and are not counted."


def test_a_dropped_finalist_is_named_with_its_seeds_and_counts_in_the_correction() -> None:
    events = whole_run()
    late = {
        e["trial_id"]
        for e in events
        if e["event"] == "asked" and (e["stage"], e["method"]) == ("confirm", "ogm") and e["document"]["seed"] > 1000
    }
    rec = card.build([e for e in events if e.get("trial_id") not in late], FakeClips(), SWEEP)
    dropped = [f for f in rec["finalists"] if f["dropped"]]
    assert [(f["method"], len(f["seeds"])) for f in dropped] == [("ogm", 1)]
    rivals = len(rec["finalists"]) - 1
    assert f"after correction for {rivals} comparisons" in sentence(rec, "Evidence")
    stream = io.StringIO()
    Console(file=stream, width=150).print(terminal.render(rec))
    assert f"{dropped[0]['label']} (1 seed)" in stream.getvalue()


def test_without_joint_there_is_nothing_to_say() -> None:
    with pytest.raises(MMSearchError, match="plain joint training"):
        card.build(Run(trials=1).search().events, FakeClips(), SWEEP)


def test_terminal_prints_the_verdict_and_all_finalists() -> None:
    rec = built()
    stream = io.StringIO()
    Console(file=stream, width=150).print(terminal.render(rec))
    text = stream.getvalue()
    assert rec["decision"]["headline"] in text
    assert all(f["label"] in text for f in rec["finalists"])


def test_terminal_says_what_the_encoders_learned() -> None:
    told = [("Under-training", "learned less"), ("Under-training", "learned more"), ("Missing", "gets little")]
    rec = {**built(), "diagnosis": {"sentences": [{"about": about, "text": text} for about, text in told]}}
    stream = io.StringIO()
    Console(file=stream, width=150).print(terminal.render(rec))
    text = stream.getvalue()
    assert "learned less learned more" in text and "gets little" not in text


def test_markup_in_names_is_printed_as_it_is() -> None:
    clips = FakeClips(name="[red]set[/red]")
    stream = io.StringIO()
    Console(file=stream, width=150).print(terminal.render(card.build(whole_run(trials=1), clips, SWEEP)))
    assert "[red]set[/red]" in stream.getvalue()


def test_the_front_weighs_what_the_sweep_was_asked_to_weigh() -> None:
    rec = built()
    assert {tuple(f["objectives"]) for f in rec["pareto"]} == {("accuracy", "cost")}
    accuracy = [f["objectives"]["accuracy"] for f in rec["pareto"]]
    assert accuracy == sorted(accuracy, reverse=True) and len(accuracy) > 1
    other = {**SWEEP, "arguments": {**SWEEP["arguments"], "objectives": ["worst_modality", "cost"]}}
    front = card.build(whole_run(), FakeClips(), other)["pareto"]
    assert {tuple(f["objectives"]) for f in front} == {("worst_modality", "cost")}
    assert "unimodal" not in {f["method"] for f in front}


def test_terminal_shows_the_front_in_short() -> None:
    rec = built()
    stream = io.StringIO()
    Console(file=stream, width=150).print(terminal.render(rec))
    text = stream.getvalue()
    assert "Search trials not bettered in accuracy and cost together" in text and "no evidence" in text
    assert all(f["trial_id"] in text for f in rec["pareto"][: terminal.FRONT_ROWS])


def test_written_and_read_again(tmp_path: Path) -> None:
    rec = built(trials=1)
    card.write(tmp_path, rec)
    assert card.read(tmp_path) == rec
    assert [p.name for p in tmp_path.iterdir()] == ["recommendation.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 99}'])
def test_a_damaged_recommendation_is_an_error_for_people(tmp_path: Path, content: str) -> None:
    (tmp_path / "recommendation.json").write_text(content)
    with pytest.raises(MMSearchError, match=r"recommendation\.json"):
        card.read(tmp_path)


class Reader:
    def __init__(self, journal: Journal, stop_after: int | None = None) -> None:
        self.journal = journal
        self.stop_after = stop_after
        self.asked: list[str] = []

    def __call__(self, trial_ids: list[str]) -> dict[str, dict[str, Any]]:
        kinds = [e["event"] for e in self.journal.events]
        assert "test_read" in kinds, "the reading is recorded before it happens"
        last = len(kinds) - 1 - kinds[::-1].index("test_read")
        assert last > max(i for i, e in enumerate(self.journal.events) if e.get("name") == "decide")
        self.asked += trial_ids
        return {i: {"accuracy": 0.9, "macro_f1": 0.89, "unimodal": {}} for i in trial_ids[: self.stop_after]}


def confirmed() -> Journal:
    journal = Journal(None)
    for event in Run(trials=1, seeds=3).search().confirm().events:
        journal.append(event)
    return journal


def test_conclude_decides_before_it_reads_test(tmp_path: Path) -> None:
    journal = confirmed()
    reader = Reader(journal)
    rec = conclude(tmp_path, journal, FakeClips(), SWEEP, reader)
    assert len(reader.asked) == 3 * len(DEMO)
    assert {p.name for p in tmp_path.iterdir()} == {"recommendation.json", "report.html"}
    assert rec["provenance"]["test_readings"] == 1
    assert rec["finalists"][0]["test"]["mean"] == pytest.approx(0.9)


def test_conclude_never_reads_test_twice(tmp_path: Path) -> None:
    journal = confirmed()
    conclude(tmp_path, journal, FakeClips(), SWEEP, Reader(journal, stop_after=5))
    again = Reader(journal)
    rec = conclude(tmp_path, journal, FakeClips(), SWEEP, again)
    assert len(again.asked) == 3 * len(DEMO) - 5
    assert rec["provenance"]["test_readings"] == 1


def extended(journal: Journal) -> Journal:
    """The same with another finalist that was confirmed after the reading."""
    journal.append({"event": "extended", "space": "space-2.yaml", "arguments": {}})
    for event in Run({"joint": 0.9, "mmpareto": 0.99}, trials=1, seeds=3).confirm().events:
        if event["event"] != "opened" and event.get("method", "") != "joint":
            journal.append(event)
    return journal


def test_new_finalists_of_an_extended_sweep_are_not_read_unasked(tmp_path: Path) -> None:
    journal = confirmed()
    conclude(tmp_path, journal, FakeClips(), SWEEP, Reader(journal))
    again = Reader(extended(journal))
    rec = conclude(tmp_path, journal, FakeClips(), SWEEP, again)
    assert again.asked == [] and rec["provenance"]["test_readings"] == 1
    tests = {f["method"]: f["test"] for f in rec["finalists"]}
    assert tests["mmpareto"] is None and tests["joint"] is not None
    assert rec["decision"]["method"] == "mmpareto"
    assert sentence(rec, "Test").startswith("Not read for mmpareto · concat, confirmed after the reading")


def test_a_second_reading_is_recorded_and_said(tmp_path: Path) -> None:
    journal = confirmed()
    conclude(tmp_path, journal, FakeClips(), SWEEP, Reader(journal))
    first = Reader(extended(journal), stop_after=1)
    conclude(tmp_path, journal, FakeClips(), SWEEP, first, again=True)
    resumed = Reader(journal)
    rec = conclude(tmp_path, journal, FakeClips(), SWEEP, resumed, again=True)
    assert len(first.asked) == 3 and len(resumed.asked) == 2, "only the new finalist, and what a kill left of it"
    assert rec["provenance"]["test_readings"] == 2
    assert "read 2 times" in sentence(rec, "Test") and "no longer untouched" in sentence(rec, "Test")
    assert "Test, read 2 times" in (tmp_path / "report.html").read_text()
