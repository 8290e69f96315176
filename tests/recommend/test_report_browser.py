"""The report in a real browser: nothing loaded, nothing logged, everything seen, at every width, by everybody."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from browser import Browser
from explained_run import CLIPS, clips, explained
from synthetic_run import SWEEP, FakeClips, Run, whole_run, write_run

from mmsearch.recommend import card, report, watch
from mmsearch.recommend.watch import Server

pytestmark = pytest.mark.skipif(
    browser.found() is None, reason="no Chromium on the PATH (Debian: apt install chromium)"
)

AXE = browser.axe()
OPEN_ALL = "document.querySelectorAll('details').forEach((d) => { d.open = true })"
CHECK = """axe.run(document, {resultTypes: ["violations"]}).then((found) => found.violations.map(
    (v) => [v.id, v.impact, v.nodes.map((n) => n.html.slice(0, 200)).slice(0, 3)]))"""
FIGURES = """[...document.querySelectorAll("figure")].map((f) => {
    const box = f.querySelector("svg").getBoundingClientRect();
    return [f.id, box.width, box.height];
})"""


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with Browser() as page:
        yield page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("home") / "run"
    return folder, *explained(folder, seeds=3, trials=12)


@pytest.fixture(scope="module")
def address(run: tuple[Path, dict[str, Any], list[dict[str, Any]]]) -> str:
    return report.write(*run).as_uri()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1600])
def test_it_loads_nothing_logs_nothing_and_fits(page: Browser, address: str, width: int, dark: bool) -> None:
    page.open(address, width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    shown = page.evaluate(FIGURES)
    assert len(shown) >= 14
    assert all(w > 250 and h > 40 for _, w, h in shown), shown
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "an open table makes it scroll sideways"
    assert page.console == [] and page.requests == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed (pip install 'mmsearch[test]')")
def test_axe_finds_nothing(page: Browser, address: str, width: int, dark: bool) -> None:
    page.open(address, width=width, dark=dark)
    page.evaluate(OPEN_ALL)
    page.evaluate(f"{AXE};0")
    assert page.evaluate(CHECK) == []


@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed (pip install 'mmsearch[test]')")
@pytest.mark.parametrize(
    "truth",
    [{"joint": 0.9}, {"joint": 0.9, "uniform": 0.91}, {"joint": 0.9, "sound": 0.96, "frames": 0.3}],
    ids=["baseline", "close", "unimodal"],
)
def test_axe_finds_nothing_under_other_verdicts(page: Browser, tmp_path: Path, truth: dict[str, float]) -> None:
    events = whole_run(truth=truth, seeds=3, trials=1)
    page.open(report.write(tmp_path, card.build(events, FakeClips(), SWEEP), events).as_uri())
    page.evaluate(f"{AXE};0")
    assert page.evaluate(CHECK) == []


def test_clips_to_look_at_and_listen_to_load_nothing_either(
    page: Browser, run: tuple[Path, dict[str, Any], list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rec, events = run
    (tmp_path / "media.html").write_text(report.html(rec, events, folder, clips(CLIPS)))
    page.open((tmp_path / "media.html").as_uri(), width=360)
    page.wait_for("[...document.images].every((i) => i.complete && i.naturalWidth === 384)")
    page.evaluate("document.querySelector('audio').load()")
    page.wait_for("document.querySelector('audio').duration === 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.console == [] and page.requests == []
    if AXE is not None:
        page.evaluate(f"{AXE};0")
        assert page.evaluate(CHECK) == []


def test_the_answer_is_in_the_first_screen(page: Browser, address: str) -> None:
    page.open(address, width=1280, height=800)
    for what in ("h1", ".lead", ".facts", ".steps"):
        assert page.evaluate(f"document.querySelector('{what}').getBoundingClientRect().bottom") <= 800, what


def test_dark_mode_reaches_the_figures(page: Browser, address: str) -> None:
    colour = "getComputedStyle(document.querySelector('#finalists svg path[style*=\"--chosen\"]')).stroke"
    page.open(address)
    light = page.evaluate(colour)
    page.open(address, dark=True)
    assert page.evaluate(colour) != light


def test_everything_can_be_reached_by_keyboard(page: Browser, address: str) -> None:
    page.open(address)
    reached = []
    for _ in range(12):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert reached[0] == "skip" and "A" in reached and "SUMMARY" in reached
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "what has the focus is seen"


def test_tables_of_figures_are_printed(page: Browser, address: str) -> None:
    page.open(address)
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        height = "document.querySelector('#finalists table').getBoundingClientRect().height"
        assert page.evaluate(height) > 50
        assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def test_the_live_page_follows_the_run(page: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REST", 0.0)
    monkeypatch.setattr(watch, "SHARE", math.inf)
    events = Run(trials=2, seeds=2).search().events
    folder = write_run(tmp_path / "run", events[: len(events) // 2])
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            page.open(server.address)
            page.evaluate("document.querySelector('#best details').open = true")
            before = page.evaluate("document.querySelector('h1').textContent")
            if AXE is not None:
                page.evaluate(f"{AXE};0")
                assert page.evaluate(CHECK) == []
            whole = whole_run(trials=2, seeds=2)
            write_run(folder, whole[:-10])
            page.wait_for(f"document.querySelector('h1').textContent !== {before!r}")
            assert page.evaluate("document.querySelector('#best details').open"), "what was opened stays open"
            write_run(folder, whole)
            recommendation = card.build(whole, FakeClips(), SWEEP)
            card.write(folder, recommendation)
            page.wait_for("document.getElementById('watch-state').textContent === 'The run is done.'")
            assert page.evaluate("document.querySelector('h1').textContent") == recommendation["decision"]["headline"]
            assert page.console == []
            assert {r.partition("?")[0] for r in page.requests} <= {server.address}
        finally:
            server.shutdown()
            thread.join()
