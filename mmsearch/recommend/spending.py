"""What a run took of the cluster: device-hours by method, lost to preemption, and idle; from the journal alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

HOUR = 3600.0


@dataclasses.dataclass
class Used:
    """Device-hours of the trials of a method.

    Attributes:
        hours: from a trial's start to its end, what was lost included; teachers count as `unimodal`.
        lost: of these what was trained again since a worker was lost or the run was stopped.
        losses: workers lost.
    """

    trials: int = 0
    hours: float = 0.0
    lost: float = 0.0
    losses: int = 0


@dataclasses.dataclass
class Spending:
    """What a run took.

    Attributes:
        device: `GPU`, or `core` where trials have no GPU.
        methods: by name.
        held: device-hours that the cluster had while the run was open.
    """

    device: str
    methods: dict[str, Used]
    held: float

    @property
    def used(self) -> float:
        """Device-hours of all trials."""
        return sum(m.hours for m in self.methods.values())

    @property
    def lost(self) -> float:
        """Of these, lost."""
        return sum(m.lost for m in self.methods.values())

    @property
    def idle(self) -> float | None:
        """The share of what the cluster had that no trial used; None before anything was held."""
        return max(0.0, 1 - self.used / self.held) if self.held else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**dataclasses.asdict(self), "used": self.used, "lost": self.lost, "idle": self.idle}


@dataclasses.dataclass
class _Attempt:
    method: str
    devices: float
    times: dict[int, float]
    end: float = 0.0


def spending(events: Sequence[Mapping[str, Any]]) -> Spending | None:
    """What a run took; None for one that has not noted what its trials get.

    An attempt of a trial lasts from its `started` to its `told` or `lost`, or to the last event of a session that ended
    first. Lost is what came after the epoch from which the next attempt went on. The cluster is as its last `cluster`
    event says, until the next one or the end of the session.

    Args:
        events: the journal's.
    """
    shapes = [e for e in events if e["event"] == "resources"]
    if not shapes:
        return None
    gpu = any(e["gpus"] for e in shapes)
    spent = Spending("GPU" if gpu else "core", {}, 0.0)
    method_of = {e["trial_id"]: e["method"] for e in events if e["event"] == "asked"}
    open_: dict[str, _Attempt] = {}
    ended: dict[str, _Attempt] = {}
    shape: Mapping[str, Any] = shapes[0]
    last, size = 0.0, 0.0

    def close(trial_id: str, at: float) -> None:
        attempt = open_.pop(trial_id)
        attempt.end = at
        ended[trial_id] = attempt
        spent.methods[attempt.method].hours += attempt.devices * (at - min(attempt.times.values())) / HOUR

    for event in events:
        kind, now, trial_id = event["event"], event["time"], event.get("trial_id", "")
        if kind == "opened":
            for left in list(open_):
                close(left, last)
            size = 0.0
        spent.held += size * (now - last) / HOUR
        last = now
        if kind == "resources":
            shape = event
        elif kind == "cluster":
            size = event["gpus"] if gpu else event["cpus"]
        elif kind == "started":
            method = method_of[trial_id]
            used = spent.methods.setdefault(method, Used())
            before = ended.pop(trial_id, None)
            used.trials += before is None
            if before is not None:
                went_on = before.times.get(event["epoch"], min(before.times.values()))
                used.lost += before.devices * (before.end - went_on) / HOUR
            devices = shape["by_method"].get(method, shape["gpus"]) if gpu else shape["cpus"]
            open_[trial_id] = _Attempt(method, devices, {event["epoch"]: now})
        elif kind == "epoch" and trial_id in open_:
            open_[trial_id].times.setdefault(event["epoch"], now)
        elif kind in ("told", "lost"):
            if trial_id in open_:
                close(trial_id, now)
            if kind == "lost":
                spent.methods.setdefault(method_of[trial_id], Used()).losses += 1
            else:
                ended.pop(trial_id, None)
    for left in list(open_):
        close(left, last)
    return spent
