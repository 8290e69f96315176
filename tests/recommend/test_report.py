from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from explained_run import explained
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
    assert len(figures) == len(images) == len(page.all("figcaption")) >= 7
    assert all(a["role"] == "img" and a["aria-label"] for a in images)
    assert len(page.all("table")) == len(page.all("caption")) == len(page.all("thead"))
    titles = re.findall(r"<figure [^>]*>\s*<h3 [^>]*>([^<]+)</h3>", text)
    assert len(titles) == len(figures)
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


@pytest.fixture(scope="module")
def explained_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("home") / "run"
    rec, events = explained(folder, seeds=3, trials=12)
    return report.html(rec, events, folder)


def test_what_explains_the_result_is_there(explained_text: str) -> None:
    page = Page(explained_text)
    ids = {a["id"] for a in page.all("figure")}
    assert ids >= {
        "finalists", "differences", "modalities", "learning", "encoders", "shares", "robustness", "missing",
        "calibration", "confusion", "cost", "best", "curves", "signals-0",
    }  # fmt: skip
    assert "The frames encoder learned 14 points less than it can alone" in page.text
    assert "speaker" in page.text and "Clips that uniform · concat fixes" in page.text
    assert "What ogm did, by epoch" in page.text
    found = re.findall(r'\bid="([^"]+)"', explained_text)
    assert len(found) == len(set(found))


def test_the_knob_that_decides_is_drawn(explained_text: str) -> None:
    figure = explained_text.split('id="importance"')[1].split("</figure>")[0]
    assert "all methods" in figure and "sgd.lr" in figure
    shares = re.findall(r'<th scope="row">all methods</th><td class="">([\w.]+)</td><td class="n">([\d.]+)%', figure)
    assert shares[0][0] == "sgd.lr" and float(shares[0][1]) > 50


def test_knobs_of_which_nothing_can_be_said_are_named(explained_text: str) -> None:
    assert re.search(r"Too few complete trials to tell, 10 are needed: .*ogm \(3\)", explained_text)


def test_headings_are_in_order_and_landmarks_there(explained_text: str) -> None:
    page = Page(explained_text)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert [len(page.all(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    assert page.all("a")[0]["class"] == "skip"
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in page.all("div") if a.get("class") == "scroll")


def test_colours_have_contrast_in_both_schemes() -> None:
    css = (Path(report.__file__).parent / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    for block in (light, light + dark):
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for ground in ("paper", "card"):
            for text in ("ink", "muted", "chosen", "baseline", "bad"):
                assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
            for line in ("chosen", "baseline", "muted", *(f"series-{i}" for i in range(6))):
                assert contrast(colour[line], colour[ground]) >= 3, (line, ground)
        assert contrast(colour["chosen"], colour["tint"]) >= 4.5
        assert contrast(colour["warn"], colour["warn-tint"]) >= 4.5


def contrast(a: str, b: str) -> float:
    """WCAG 2's ratio of two colours."""
    bright, dim = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize(
    "truth, step",
    [
        ({"joint": 0.90, "uniform": 0.915, "sound": 0.8, "frames": 0.7}, "To be surer, confirm on"),
        ({"joint": 0.9, "sound": 0.97, "frames": 0.3}, "Before you drop frames"),
    ],
)
def test_it_says_what_to_do_next(truth: dict[str, float], step: str, tmp_path: Path) -> None:
    events = whole_run(truth=truth, seeds=2 if "uniform" in truth else 4, trials=1)
    recommendation = card.build(events, FakeClips(), SWEEP)
    head = report.html(recommendation, events, tmp_path).split("<main")[0]
    assert "What to do next" in head and step in head


def test_a_model_that_was_handed_over_is_named(
    tmp_path: Path, rec: dict[str, Any], events: list[dict[str, Any]]
) -> None:
    assert "mmsearch show" in report.html(rec, events, tmp_path)
    (tmp_path / "best").mkdir()
    assert f"mmsearch predict {tmp_path}/best CLIPS" in report.html(rec, events, tmp_path)


def test_a_diagnosis_that_failed_is_one_line(events: list[dict[str, Any]], rec: dict[str, Any]) -> None:
    failed = {"part": "select", "models": {}, "ume_umt": None, "clips": {"fixed": [], "broken": []}}
    said = [{"about": "Diagnosis", "text": "It failed and is not shown: no memory"}]
    text = report.html({**rec, "diagnosis": {**failed, "sentences": said}}, events)
    assert "It failed and is not shown: no memory" in Page(text).text


def test_many_classes_have_a_table_of_the_most_confused_pairs_alone(tmp_path: Path) -> None:
    rec, events = explained(tmp_path / "run", seeds=2, trials=1)
    rec["provenance"]["dataset"]["classes"] = [f"class {i}" for i in range(40)]
    text = report.html(rec, events, tmp_path / "run")
    place = text.split('<section class="card" id="confusion"')[1].split("</section>")[0]
    assert "<svg" not in place and "20 pairs of classes" in place
    assert re.search(r"class \d</th><td class=\"\">class \d</td>", place)
