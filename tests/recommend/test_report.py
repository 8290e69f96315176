from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import SWEEP, FakeClips, Run, whole_run

from mmsearch.recommend import card, report

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return whole_run()


@pytest.fixture(scope="module")
def rec(events: list[dict[str, Any]]) -> dict[str, Any]:
    return card.build(events, FakeClips(), SWEEP)


@pytest.fixture(scope="module")
def text(rec: dict[str, Any], events: list[dict[str, Any]]) -> str:
    return report.html(rec, events)


def test_the_answer_comes_first(text: str, rec: dict[str, Any]) -> None:
    page = Page(text)
    assert len(page.all("h1")) == 1
    head, body = text.split('id="evidence"')
    assert rec["decision"]["headline"] in head
    assert rec["decision"]["sentences"][0]["text"] in head
    assert "<svg" not in head
    assert "<svg" in body


def test_it_needs_neither_network_nor_script(text: str) -> None:
    page = Page(text)
    assert not page.all("script") and not page.all("img")
    assert [a["href"] for a in page.all("link")] == ["data:,"], "an empty icon, so that no browser asks for one"
    assert not re.search(r"(src|href)=\"(?!#|data:,)", text.replace('xlink:href="#', 'href="#'))
    assert "url(" not in re.sub(r"url\(#", "", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_every_figure_is_named_captioned_and_a_table(text: str) -> None:
    page = Page(text)
    figures = page.all("figure")
    images = [a for a in page.all("svg")]
    assert len(figures) == len(images) == len(page.all("figcaption")) == 7
    assert all(a["role"] == "img" and a["aria-label"] for a in images)
    assert len(page.all("table")) == len(page.all("caption")) == len(page.all("thead"))
    titles = re.findall(r"<figure [^>]*>\s*<h3 [^>]*>([^<]+)</h3>", text)
    assert len(titles) == 7
    for title in titles:
        assert text.count(f">{title}</caption>") == 1, "its numbers are a table of the same name"


def test_ids_are_unique_and_references_resolve(text: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_colours_come_from_the_page(text: str) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "currentColor" in drawings and "var(--chosen)" in drawings
    assert not re.search(r"#[0-9a-f]{6}", drawings)


def test_all_trials_are_there(text: str, events: list[dict[str, Any]]) -> None:
    for e in events:
        if e["event"] == "asked":
            assert e["trial_id"] in text


def test_everything_from_outside_is_escaped() -> None:
    bad = "<script>alert(1)</script>"
    run = Run(trials=2, seeds=2).search()
    for e in run.events:
        if e["event"] == "told" and e["state"] == "pruned":
            e["reason"] = bad
    run.confirm().read_test()
    for e in run.events:
        if e["event"] == "asked" and e["method"] == "mla":
            e["method"] = e["document"]["method"]["name"] = bad
    clips = FakeClips(name=bad, classes=[bad])
    sweep = {"arguments": {"dataset": bad}}
    text = report.html(card.build(run.events, clips, sweep), run.events)
    assert "<script" not in text
    assert not Page(text).all("script")


def test_dollar_signs_are_no_formulas() -> None:
    run = Run(trials=1, seeds=2).search().confirm()
    for e in run.events:
        if e["event"] == "asked" and e["method"] == "mla":
            e["method"] = e["document"]["method"]["name"] = "a$b$_{c"
    assert "a$b$_{c" in report.html(card.build(run.events, FakeClips(), {}), run.events)


@pytest.mark.parametrize(
    "run",
    [
        {"truth": {"joint": 0.9}, "seeds": 1, "trials": 1},
        {"truth": {"joint": 0.9, "uniform": 0.9}, "seeds": 2, "trials": 1},
        {"truth": {"joint": 0.9, "sound": 0.95, "frames": 0.3}, "seeds": 3, "trials": 2},
    ],
)
def test_small_runs_have_a_report_too(run: dict[str, Any]) -> None:
    events = whole_run(**run)
    Page(report.html(card.build(events, FakeClips(), SWEEP), events))


def test_written_as_a_whole(tmp_path: Path, rec: dict[str, Any], events: list[dict[str, Any]]) -> None:
    assert report.write(tmp_path, rec, events) == tmp_path / "report.html"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_front_and_the_fairness_of_stopping_are_tables(text: str, rec: dict[str, Any]) -> None:
    page = Page(text)
    assert "Search trials that nothing betters in every objective" in page.text
    assert all(f["trial_id"] in page.text for f in rec["pareto"])
    assert "Was stopping fair?" in page.text and "likely to be higher" in page.text
    assert re.search(r"0\.\d\d \(−?\d\.\d\d to \d\.\d\d\)", page.text)


def test_a_run_too_short_to_say_anything_of_stopping_says_nothing() -> None:
    events = whole_run(trials=1)
    assert "Was stopping fair?" not in report.html(card.build(events, FakeClips(), SWEEP), events)
