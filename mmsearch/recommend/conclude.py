"""The end of a sweep, in the one legal order: decide on select, record it, read test once, write, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmsearch.recommend import card, report
from mmsearch.search.journal import Journal

ReadTest = Callable[[list[str]], Mapping[str, Mapping[str, Any]]]
"""Evaluates trials on test: per trial id `accuracy`, `macro_f1` and `unimodal`."""


def conclude(
    run_dir: Path,
    journal: Journal,
    data: card.Data,
    sweep: Mapping[str, Any],
    read_test: ReadTest,
    *,
    again: bool = False,
) -> dict[str, Any]:
    """Decides among the finalists, reads the test part once for all of them together, writes the recommendation.

    The decision is in the journal before the test part is touched, and the reading is in the journal before the
    first number is. A run that was killed in between goes on where it stopped: what was read is not read again.
    Nor are the new finalists of a sweep that was extended after a reading, unless somebody asks for it.

    Args:
        run_dir: the run's folder.
        journal: of a finished confirmation.
        data: of the run.
        sweep: the content of `sweep.json`.
        read_test: evaluates the final weights of confirmation trials on the test part.
        again: whether finalists that an earlier reading did not know are read; the journal then has two readings.

    Returns:
        The recommendation, as written to `recommendation.json`; `report.html` lies beside it.

    Raises:
        MMSearchError: no finished confirmation of plain joint training.
    """
    events = journal.events
    finalists, decision = card.decided(events, data, sweep)
    ids = sorted(t for f in finalists for t in f.trial_ids.values())
    readings = [sorted(e["finalists"]) for e in events if e["event"] == "test_read"]
    if ids not in readings:
        journal.append(
            {
                "event": "phase",
                "name": "decide",
                "kind": decision.kind,
                "chosen": list(decision.chosen.trial_ids.values()),
            }
        )
        if again or not readings:
            journal.append({"event": "test_read", "finalists": ids})
            readings.append(ids)
    read = {e["trial_id"] for e in events if e["event"] == "test"}
    due = {i for reading in readings for i in reading}
    left = [i for i in ids if i in due and i not in read]
    for trial_id, figures in (read_test(left) if left else {}).items():
        journal.append({"event": "test", "trial_id": trial_id, **figures})
    events = journal.events
    recommendation = card.build(events, data, sweep)
    card.write(run_dir, recommendation)
    report.write(run_dir, recommendation, events)
    return recommendation
