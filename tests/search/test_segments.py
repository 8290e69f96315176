"""A journal in a bucket: whole after a kill, of one process at a time, and safe from one that lost it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch.data import claims
from mmsearch.data.places import Place
from mmsearch.errors import MMSearchError, StorageError
from mmsearch.search import segments
from mmsearch.search.journal import Journal
from mmsearch.search.segments import Segments, read


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life every moment, and segments of three events."""
    monkeypatch.setattr(claims, "BEAT", 0.05)
    monkeypatch.setattr(segments, "_LOOK", 0.05)
    monkeypatch.setattr(segments, "TOGETHER", 3)


def lines(*numbers: int) -> list[bytes]:
    return [b'{"n":%d}\n' % n for n in numbers]


def written(place: Place, *numbers: int) -> Segments:
    journal = Segments(place)
    for line in lines(*numbers):
        journal.append(line)
    return journal


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "journal").iterdir())


def test_events_are_read_in_order_over_sessions_and_segments(tmp_path: Path) -> None:
    place = Place(tmp_path)
    written(place, 0, 1, 2, 3).close()
    assert names(tmp_path) == ["0001-00000000-00000002.jsonl", "0001-00000003.json"]
    again = written(place, 4, 5, 6, 7)
    assert again.lines == lines(0, 1, 2, 3)
    again.close()
    assert read(place) == b"".join(lines(*range(8)))
    assert not list((tmp_path / "claims").iterdir())


def test_objects_that_a_kill_has_left_beside_their_segment_count_once(tmp_path: Path) -> None:
    place = Place(tmp_path)
    written(place, 0, 1, 2).close()
    for n in (1, 2):
        (tmp_path / "journal" / f"0001-{n:08d}.json").write_bytes(lines(n)[0])
    assert read(place) == b"".join(lines(0, 1, 2))


def test_a_process_that_has_lost_the_run_changes_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    lost = written(place, 0)
    lost._claim.close()
    with contextlib.closing(written(place, 1)) as later:
        lost.append(lines(91)[0])
        later.append(lines(2)[0])
        with pytest.raises(StorageError, match="another process has taken this run over"):
            lost.append(lines(92)[0])
        assert read(place) == b"".join(lines(0, 1, 2))
    assert written(place).lines == lines(0, 1, 2)


def test_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    first = written(Place(tmp_path), 0)
    with pytest.raises(MMSearchError, match="another process is running this run"):
        Segments(Place(tmp_path))
    first.close()
    written(Place(tmp_path)).close()


def test_the_run_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from mmsearch.data.places import Place; from mmsearch.search.segments import Segments\n"
        'Segments(Place(sys.argv[1])).append(b"{}\\n"); os._exit(1)'
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    assert list((tmp_path / "claims").iterdir())
    journal = Segments(Place(tmp_path))
    assert journal.lines == [b"{}\n"]
    journal.close()


def test_a_missing_event_is_said(tmp_path: Path) -> None:
    written(Place(tmp_path), 0, 1).close()
    (tmp_path / "journal" / "0001-00000000.json").unlink()
    with pytest.raises(MMSearchError, match="an event is missing"):
        read(Place(tmp_path))


def test_the_journal_of_a_run_in_a_bucket_goes_on_from_there_on_another_machine(tmp_path: Path, bucket: str) -> None:
    place = Place(bucket.replace("/clips?", "/runs/mine?"))
    with Journal(tmp_path / "one", place) as journal:
        journal.append({"event": "asked", "trial_id": "a"})
    with Journal(tmp_path / "two", place) as journal:
        journal.append({"event": "told", "trial_id": "a"})
        events = journal.events
    assert [e["event"] for e in events] == ["opened", "asked", "opened", "told"]
    assert [json.loads(line) for line in read(place).splitlines()] == events


def test_what_a_bucket_does_not_take_has_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(segments.time, "sleep", lambda seconds: None)
    with Journal(tmp_path / "here", Place(tmp_path / "there")) as journal:
        journal.subscribe(seen.append)
        monkeypatch.setattr(Place, "write", lambda *_: (_ for _ in ()).throw(OSError("no route")))
        with pytest.raises(StorageError, match="no route"):
            journal.append({"event": "told"})
        monkeypatch.undo()
    assert not seen
    assert [e["event"] for e in Journal(tmp_path / "here", Place(tmp_path / "there")).events] == ["opened", "opened"]
