"""A journal in a bucket: an object an event, put together in segments; who has lost the run cannot damage it.

Below `journal/` lie `SSSS-NNNNNNNN.json`, event N as session S wrote it, and `SSSS-NNNNNNNN-MMMMMMMM.jsonl`, its events
N to M. A session begins at the number after the last event that it found; what an earlier one wrote from there on,
because it hung and woke up again, counts for nothing.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from mmsearch.data.claims import Claim, Holder
from mmsearch.data.places import Place, each, said
from mmsearch.errors import MMSearchError, StorageError

FOLDER = "journal"

TOGETHER = 500
"""Events after which their objects become one."""

TRIES = 4
"""Of a request, with 1, 2 and 4 seconds between."""

_NAME = re.compile(r"(\d{4})-(\d{8})(?:-(\d{8}))?\.jsonl?")
_DRIVER = "driver"
_LOOK = 1.0


class _Object(NamedTuple):
    session: int
    first: int
    last: int
    name: str


def patiently(work: Callable[[], object], what: str) -> None:
    """Does something that a network can keep from success, a few times.

    Raises:
        StorageError: it fails every time; the text begins with `what`.
    """
    for attempt in range(TRIES):
        try:
            work()
            return
        except OSError as error:
            if attempt == TRIES - 1:
                raise StorageError(f"{what}: {said(error)}") from error
            time.sleep(2**attempt)


def read(place: Place) -> bytes:
    """The journal of a run in a bucket, a line an event.

    Raises:
        MMSearchError: an event is missing.
        StorageError: the bucket cannot be read.
    """
    try:
        return b"".join(_lines(place)[0])
    except OSError as error:
        raise StorageError(f"{place}: {said(error)}") from error


class Segments:
    """The journal of a run in a bucket, open for appending by this process alone.

    Args:
        place: of the run.

    Attributes:
        lines: the events that were there.

    Raises:
        MMSearchError: another process has the run open, or an event is missing.
        StorageError: the bucket cannot be reached.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._claim = contextlib.ExitStack()
        try:
            self._take()
            self.lines, last = _lines(place)
        except OSError as error:
            self.close()
            raise StorageError(f"{place}: {said(error)}") from error
        except BaseException:
            self.close()
            raise
        self._session = last + 1
        self._number = self._first = len(self.lines)
        self._loose: list[bytes] = []

    def append(self, line: bytes) -> None:
        """Writes an event.

        Raises:
            StorageError: the bucket cannot be written to, or another process has taken the run over.
        """
        self._write(f"{self._number:08d}.json", line)
        self._number += 1
        self._loose.append(line)
        if len(self._loose) >= TOGETHER:
            self._put_together()

    def close(self) -> None:
        """Lets another process open the run."""
        self._claim.close()

    def _write(self, name: str, content: bytes) -> None:
        name = f"{FOLDER}/{self._session:04d}-{name}"
        patiently(lambda: self._place.write(name, content), f"{self._place}: {name}")

    def _put_together(self) -> None:
        newest = max(o.session for o in _objects(self._place))
        if newest > self._session:
            raise StorageError(f"{self._place}: another process has taken this run over")
        numbers = range(self._first, self._number)
        self._write(f"{numbers[0]:08d}-{numbers[-1]:08d}.jsonl", b"".join(self._loose))
        with contextlib.suppress(OSError):
            each(lambda n: self._place.delete(f"{FOLDER}/{self._session:04d}-{n:08d}.json"), numbers)
        self._first, self._loose = self._number, []

    def _take(self) -> None:
        """Waits until the run is free; a driver that is alive is known by its claim's being written again."""
        claim = self._claim.enter_context(Claim(self._place, {_DRIVER}))
        signs: set[tuple[str, int]] = set()
        while True:
            free, holder = claim.free({_DRIVER})
            if free:
                return
            if holder is not None:
                sign = self._place.seen(f"claims/{holder.name}.json")
                signs |= {(holder.name, sign.time)} if sign else set()
                if len({at for name, at in signs if name == holder.name}) > 1:
                    raise MMSearchError(_taken(self._place, holder))
            time.sleep(_LOOK)


def _taken(place: Place, holder: Holder) -> str:
    return f"{place}: another process is running this run ({holder}); stop it or wait for its end"


def _objects(place: Place) -> list[_Object]:
    found = ((name, _NAME.fullmatch(name)) for name in place.files(FOLDER))
    return sorted(
        _Object(int(match[1]), int(match[2]), int(match[3] or match[2]), name) for name, match in found if match
    )


def _lines(place: Place) -> tuple[list[bytes], int]:
    """The events and the last session, while another process may be putting objects together."""
    for left in reversed(range(TRIES)):
        objects = _objects(place)
        try:
            chosen = _chosen(objects)
            texts = each(lambda part: place.read(f"{FOLDER}/{part[0]}"), chosen)
            break
        except (FileNotFoundError, LookupError):
            if not left:
                raise MMSearchError(f"{place}: {FOLDER}: an event is missing; the journal has been damaged") from None
            time.sleep(_LOOK)
    lines: list[bytes] = []
    for (_, first), text in zip(chosen, texts, strict=True):
        del lines[first:]
        lines += text.splitlines(keepends=True)
    return lines, max((o.session for o in objects), default=0)


def _chosen(objects: list[_Object]) -> list[tuple[str, int]]:
    """The objects to be read, each with the number of its first event, from which on it replaces what is before it.

    Raises:
        LookupError: an event is in none of them.
    """
    chosen: list[tuple[str, int]] = []
    length, session = 0, 0
    for o in sorted(objects, key=lambda o: (o.session, o.first, -o.last)):
        if o.session != session:
            session, length = o.session, min(length, o.first)
        if o.first > length:
            raise LookupError(o.name)
        if o.last >= length:
            chosen.append((o.name, o.first))
            length = o.last + 1
    return chosen
