"""Which machines a session of a sweep runs on; known before Ray is."""

from __future__ import annotations

import dataclasses
import os


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The machines on which a session of a sweep runs; each may have others.

    Attributes:
        address: of a running Ray cluster, by default `$RAY_ADDRESS`; None for this machine alone.
        concurrent: trials at once; None for as many as there is room for now. On a cluster that grows with what waits
            it says how far: so many trials wait for machines, and none is refused because no machine is there yet.
        gpu_kind: that trials get, by Ray's name such as `A100`; None for any.
        memory: bytes that a trial asks for; None for none in particular.
    """

    address: str | None = dataclasses.field(default_factory=lambda: os.environ.get("RAY_ADDRESS") or None)
    concurrent: int | None = None
    gpu_kind: str | None = None
    memory: float | None = None
