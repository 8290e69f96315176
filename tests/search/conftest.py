"""A sweep without Ray and without training: epochs are counted, scores are a function of the document."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mmsearch.search.journal import Journal
from mmsearch.search.sources import FINISHED, WAIT, Source
from mmsearch.search.study import Ask, Study


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("search_driver", Path(__file__).with_name("driver.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["search_driver"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def driver() -> ModuleType:
    """tests/search/driver.py."""
    return _load()


@pytest.fixture
def make_study(driver: ModuleType, tmp_path: Path) -> Callable[..., Study]:
    """A study on a fresh journal, or on one with these events."""

    def make(events: list[dict] | None = None, **space: object) -> Study:
        journal = Journal(None)
        journal.events[:0] = events or []
        return Study(driver.make_space(tmp_path, **space), journal)

    return make


class Killed(Exception):
    """Where a simulated process ends."""


@pytest.fixture
def simulate(driver: ModuleType) -> Callable[..., list[Ask]]:
    """Drives a source, `slots` trials at a time, an epoch of each in turn; returns what was asked."""

    def run(
        study: Study,
        source: Source,
        *,
        slots: int = 1,
        kill_after: float = math.inf,
        fail: Callable[[dict], bool] = lambda _: False,
        score: Callable[[dict, int], float] | None = None,
    ) -> list[Ask]:
        curve = score or (lambda d, e: driver.quality(d) * (1 - math.exp(-3 * e / d["epochs"])))
        left = kill_after

        def count(_: dict) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed

        study.journal.subscribe(count)
        asks: list[Ask] = []
        running = [r.trial_id for r in study.unfinished()]
        while True:
            while len(running) < slots:
                answer = source.next()
                if answer is FINISHED:
                    break
                if answer is WAIT:
                    assert running, "waits although nothing runs"
                    break
                study.issue(answer)
                asks.append(answer)
                running.append(answer.trial_id)
            if not running:
                return asks
            for trial_id in list(running):
                record = study.records[trial_id]
                if record.state == "asked":
                    study.started(trial_id, 0)
                document = record.document
                trains = driver.document_trains(document)
                epoch = record.epoch + 1 if trains else document["epochs"]
                over = epoch <= document["epochs"] and study.report(
                    trial_id,
                    {"epoch": epoch, "epochs": document["epochs"], "score": curve(document, epoch), "metrics": {}},
                )
                if not over and fail(document):
                    study.tell(trial_id, "failed", reason="planted")
                elif not over and epoch >= document["epochs"]:
                    study.tell(trial_id, "complete")
                if study.records[trial_id].finished:
                    source.told(study.records[trial_id])
                    running.remove(trial_id)

    run.Killed = Killed  # type: ignore[attr-defined]
    return run
