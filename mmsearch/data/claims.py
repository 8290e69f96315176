"""Who decodes what: processes that add to one store at the same time share the work out among themselves.

A claim is two files below `claims`: `<id>.keys`, the clips that a process is going to decode, and `<id>.json`, its
ticket, written again every few seconds. Tickets are drawn as in a bakery (Lamport, 1974), which needs no more of a
place than that what was written is then seen by whoever lists. The lowest ticket has a clip. A claim that was not
written again for a while, by the place's own clock, is dead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from mmsearch.data.places import Place, Seen

BEAT = 10.0
"""Seconds between two signs of life."""

EXPIRY = 6 * BEAT
"""Seconds without one after which a claim is dead."""

_CHOOSING = 0.05


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process with a claim.

    Attributes:
        name: of the claim.
        ticket: the lower one goes first; None while it draws.
        machine, pid: the process.
        keys: of the clips it is going to decode.
    """

    name: str
    ticket: int | None
    machine: str
    pid: int
    keys: frozenset[str]

    def __str__(self) -> str:
        return f"process {self.pid} on {self.machine.partition(' ')[0]}"


class Claim:
    """This process's claim on clips; used as a context.

    Args:
        place: the store's.
        keys: of the clips it wants to decode.

    Raises:
        OSError: the place cannot be written to.
    """

    def __init__(self, place: Place, keys: Iterable[str]) -> None:
        self._place, self._keys = place, frozenset(keys)
        self._name = uuid.uuid4().hex
        self._ticket = 0
        self._known: dict[str, frozenset[str]] = {}
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._live, name="mmsearch-claim", daemon=True)

    def __enter__(self) -> Claim:
        try:
            self._place.write(f"claims/{self._name}.keys", "\n".join(sorted(self._keys)).encode())
            self._write(None)
            self._ticket = 1 + max((other.ticket or 0 for other in self._others()), default=0)
            self._write(self._ticket)
        except BaseException:
            remove(self._place, self._name)
            raise
        self._beat.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._beat.join()
        remove(self._place, self._name)

    def _write(self, ticket: int | None) -> None:
        content = {"ticket": ticket, "machine": machine(), "pid": os.getpid()}
        self._place.write(f"claims/{self._name}.json", json.dumps(content).encode())

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):
                self._write(self._ticket)

    def free(self, keys: Iterable[str]) -> tuple[set[str], Holder | None]:
        """The clips among `keys` that no live process with a lower ticket has, and one of those that have the others.

        Raises:
            OSError: the place cannot be read.
        """
        rivals = self._rivals()
        while any(rival.ticket is None for rival in rivals):
            time.sleep(_CHOOSING)
            rivals = self._rivals()
        left, holder = set(keys), None
        for rival in rivals:
            if (rival.ticket or 0, rival.name) < (self._ticket, self._name) and not rival.keys.isdisjoint(left):
                left, holder = left - rival.keys, holder or rival
        return left, holder

    def _rivals(self) -> list[Holder]:
        """Those that want some of the same clips, the lowest ticket first."""
        rivals = [other for other in self._others() if not other.keys.isdisjoint(self._keys)]
        return sorted(rivals, key=lambda rival: (rival.ticket or 0, rival.name))

    def _others(self) -> list[Holder]:
        seen = self._place.files("claims")
        mine = seen.get(f"{self._name}.json")
        found = live(self._place, seen, mine.time if mine else 0, self._known)
        return [other for other in found if other.name != self._name]


def live(place: Place, seen: dict[str, Seen], now: int, known: dict[str, frozenset[str]]) -> list[Holder]:
    """The claims of live processes; those of dead ones are removed.

    Args:
        place: the store's.
        seen: the listing of its claims.
        now: the time by the place's clock, in nanoseconds.
        known: keys of claims read before, by name; added to.

    Raises:
        OSError: the place cannot be read.
    """
    found = []
    for file, (_, written) in seen.items():
        name, _, kind = file.partition(".")
        if kind != "json":
            continue
        try:
            content = json.loads(place.read(f"claims/{file}"))
            if name not in known:
                known[name] = frozenset(place.read(f"claims/{name}.keys").decode().split())
            holder = Holder(name, content["ticket"], content["machine"], content["pid"], known[name])
        except FileNotFoundError:
            continue
        if now - written > EXPIRY * 1e9 or _is_gone(holder):
            remove(place, name)
        else:
            found.append(holder)
    return found


def remove(place: Place, name: str) -> None:
    """Takes a claim back."""
    for kind in ("json", "keys"):
        with contextlib.suppress(OSError):
            place.delete(f"claims/{name}.{kind}")


def machine() -> str:
    """Where process numbers mean the same: the host's name and, on Linux, its boot and the process namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return " ".join(parts)


def _is_gone(holder: Holder) -> bool:
    if holder.machine != machine():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
