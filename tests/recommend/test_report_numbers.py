"""The numbers on the page, computed again from the raw lines of the journal by nothing of mmsearch."""

from __future__ import annotations

import json
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from explained_run import explained

from mmsearch.recommend import report


class Tables(HTMLParser):
    """Every table of a page as rows of texts, by its caption."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self._cell: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows: list[list[str]] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "caption"):
            self._cell = ""

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            self._caption = self._cell or ""
        elif tag in ("td", "th"):
            self._rows[-1].append((self._cell or "").strip())
        elif tag == "table":
            self.found[self._caption] = self._rows[1:]
        if tag in ("td", "th", "caption"):
            self._cell = None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home") / "run"
    report.write(folder, *explained(folder, seeds=4, trials=6))
    return folder


@pytest.fixture(scope="module")
def tables(run: Path) -> dict[str, list[list[str]]]:
    return Tables((run / "report.html").read_text()).found


@pytest.fixture(scope="module")
def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def asked(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {e["trial_id"]: e for e in lines if e["event"] == "asked"}


def told(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {e["trial_id"]: e for e in lines if e["event"] == "told"}


def last(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {e["trial_id"]: e for e in lines if e["event"] == "epoch"}


def by_configuration(lines: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """By label accuracy on select of each confirmation seed."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for trial_id, e in told(lines).items():
        if "select" in e:
            document = asked(lines)[trial_id]["document"]
            method, fusion = document["method"], document["fusion"]["name"]
            label = f"{method['modality']} alone" if "modality" in method else method["name"]
            label += f" ({method['teacher']})" if "teacher" in method else ""
            label += "" if fusion == "own" else f" · {fusion}"
            found[label][document["seed"]] = e["select"]["accuracy"]
    return found


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def number(text: str) -> float:
    """The first number of a cell: `95.8% (93.9 to 97.8)` is 95.8."""
    return float(text.split()[0].rstrip("%").replace("−", "-"))


def test_finalists(tables: dict[str, list[list[str]]], lines: list[dict[str, Any]]) -> None:
    found = by_configuration(lines)
    rows = tables["Finalists, retrained on fresh seeds"]
    assert {row[0] for row in rows} == set(found)
    for label, select, _, seeds, *_ in rows:
        assert number(select) == pytest.approx(100 * mean(list(found[label].values())), abs=0.051)
        assert int(seeds) == len(found[label])
    assert [number(r[1]) for r in rows] == sorted((number(r[1]) for r in rows), reverse=True)


def test_gains_are_paired_by_seed(tables: dict[str, list[list[str]]], lines: list[dict[str, Any]]) -> None:
    found = by_configuration(lines)
    joint = found["joint · concat"]
    rows = tables["Gain over plain joint training"]
    assert {row[0] for row in rows} == set(found) - {"joint · concat"}
    for label, gain, *_ in rows:
        expected = mean([accuracy - joint[seed] for seed, accuracy in found[label].items()])
        assert number(gain) == pytest.approx(100 * expected, abs=0.051)


def test_best_so_far_and_what_was_spent(tables: dict[str, list[list[str]]], lines: list[dict[str, Any]]) -> None:
    best: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, float] = defaultdict(float)
    for trial_id, e in asked(lines).items():
        if e["document"]["fold"] == 0 and (e["stage"] != "teacher" or e["params"]):
            spent[e["method"]] += last(lines)[trial_id]["cost_joint_epochs"]
            if told(lines)[trial_id]["state"] == "complete":
                best[e["method"]].append(told(lines)[trial_id]["score"])
    rows = {row[0]: row[1:] for row in tables["Best so far against cost"]}
    assert set(rows) == set(best)
    for method, (complete, score, cost) in rows.items():
        assert int(complete) == len(best[method])
        assert number(score) == pytest.approx(100 * max(best[method]), abs=0.051)
        assert number(cost) == pytest.approx(spent[method], abs=0.51)


def test_every_trial_is_a_row(tables: dict[str, list[list[str]]], lines: list[dict[str, Any]]) -> None:
    words = {"complete": "complete", "pruned": "stopped", "failed": "failed"}
    rows = tables[f"All {len(asked(lines))} trials"]
    for row, (trial_id, e) in zip(rows, asked(lines).items(), strict=True):
        end = told(lines)[trial_id]
        assert row[:5] == [trial_id, e["stage"], e["method"], e["fusion"], words[end["state"]]]
        assert row[5] == "–" or number(row[5]) == pytest.approx(100 * last(lines)[trial_id]["score"], abs=0.051)
        assert row[6] == f"{last(lines)[trial_id]['epoch']} of {e['document']['epochs']}"


def test_learning_is_the_mean_over_seeds(tables: dict[str, list[list[str]]], lines: list[dict[str, Any]]) -> None:
    rows = {(row[0], row[1]): row[2:] for row in tables["What each modality learns, by epoch"]}
    joint = [i for i, e in asked(lines).items() if e["method"] == "joint" and e["stage"] == "confirm"]
    for name, key in (("all modalities", "val/accuracy"), ("frames", "val/accuracy/frames")):
        for at, epoch in ((0, 1), (-1, 15)):
            values = [
                e["metrics"][key]
                for e in lines
                if e["event"] == "epoch" and e["trial_id"] in joint and e["epoch"] == epoch
            ]
            assert len(values) == 4
            assert number(rows[name, "joint training"][at]) == pytest.approx(100 * mean(values), abs=0.051)


def test_confusions_and_clips(run: Path, tables: dict[str, list[list[str]]], lines: list[dict[str, Any]]) -> None:
    answers: dict[str, dict[int, dict[int, tuple[int, int]]]] = {"joint": {}, "uniform": {}}
    for trial_id, e in asked(lines).items():
        if e["stage"] == "confirm" and e["method"] in answers:
            kept = json.loads((run / "trials" / trial_id / "select.json").read_text())
            clips = zip(kept["index"], kept["label"], kept["predicted"], strict=True)
            answers[e["method"]][e["document"]["seed"]] = {i: (y, p) for i, y, p in clips}
    counts: dict[str, dict[tuple[int, int], int]] = {who: defaultdict(int) for who in answers}
    for who, seeds in answers.items():
        for pair in (pair for clips in seeds.values() for pair in clips.values()):
            counts[who][pair] += 1
    rows = tables["What is taken for what"]
    assert {(int(r[0]), int(r[1])) for r in rows} == set(counts["joint"]) | set(counts["uniform"])
    for true, answered, *shares in rows:
        for share, count in zip(shares, counts.values(), strict=True):
            of = sum(n for (y, _), n in count.items() if y == int(true))
            assert number(share) == pytest.approx(100 * count[int(true), int(answered)] / of, abs=0.051)
    balance: dict[int, int] = defaultdict(int)
    for seed, clips in answers["joint"].items():
        for i, (y, p) in clips.items():
            balance[i] += (answers["uniform"][seed][i][1] == y) - (p == y)
    for what, sign in (("fixes", 1), ("breaks", -1)):
        changed = [i for i, b in balance.items() if b * sign > 0]
        title = f"Clips that uniform · concat {what}: {len(changed)}"
        assert (title in tables) == bool(changed)
        names = {row[0] for row in tables.get(title, [])}
        assert names <= {f"speaker{i % 7}/clip{i:03d}.mp4" for i in changed} and len(names) == min(30, len(changed))
