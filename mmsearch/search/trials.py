"""Trials as a pure view of the journal's events."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmsearch.files import write_text
from mmsearch.search.journal import Event

FILE = "trials.jsonl"


@dataclasses.dataclass
class TrialRecord:
    """What the journal says of a trial.

    Attributes:
        trial_id: the identity of its document.
        stage: `search`, `teacher`, `confirm` or `refit`.
        method, fusion: names; the fusion is `own` where the method brings it.
        document: resolved.
        params: flat parameters of the search space.
        why: `paper setting`, `point`, `warm start`, `transfer`, the sampler's name, `teacher`, `confirmation` or
            `refit`.
        state: `asked`, `running`, `complete`, `pruned` or `failed`.
        score: of the last epoch, None before the first and where it was not a number.
        epoch: epochs done.
        curve: (epoch, score) of every epoch.
        metrics: of the last epoch.
        cost_joint_epochs, seconds: so far.
        reason: why it failed or was pruned.
        attempts: how often it was begun or gone on with.
        retries: how often its worker was lost.
        losses: of each of them the kind and the epoch by then.
        micro_batch: clips a forward pass, where the whole batch did not fit in memory.
        select, test: figures on the select and the test part, where they were read.
    """

    trial_id: str
    stage: str
    method: str
    fusion: str
    document: dict[str, Any]
    params: dict[str, Any]
    why: str
    state: str = "asked"
    score: float | None = None
    epoch: int = 0
    curve: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    cost_joint_epochs: float = 0.0
    seconds: float = 0.0
    reason: str | None = None
    attempts: int = 0
    retries: int = 0
    losses: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    micro_batch: int | None = None
    select: dict[str, Any] | None = None
    test: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        """Whether it was told: complete, pruned or failed."""
        return self.state in ("complete", "pruned", "failed")

    @property
    def epochs(self) -> int:
        """Planned epochs."""
        return self.document["epochs"]

    @property
    def val(self) -> float | None:
        """The score where it is one on val; that of a refit is of clips it trained on."""
        return None if self.stage == "refit" else self.score

    @property
    def searched(self) -> bool:
        """Whether it belongs to the search: not a confirmation on other splits, nor a teacher that is none of it."""
        return self.document["fold"] == 0 and (self.stage != "teacher" or bool(self.params))

    def stuck(self, kind: str) -> int:
        """How often its worker was lost in this way since the trial last got further."""
        return self.losses.count((kind, self.epoch))

    def to_line(self) -> dict[str, Any]:
        """As a line of `trials.jsonl`."""
        keys = ("trial_id", "state", "stage", "method", "fusion", "score", "cost_joint_epochs", "seconds", "reason")
        line = {key: getattr(self, key) for key in keys}
        return line | {
            "config": self.document,
            "seed": self.document["seed"],
            "epochs": self.epoch,
            "retries": self.retries,
            "micro_batch": self.micro_batch,
        }


Records = dict[str, TrialRecord]
"""By trial_id, in the order in which they were asked."""


def apply(records: Records, event: Event) -> None:
    """Brings the records up to date with one more event."""
    kind = event["event"]
    if kind == "asked":
        keys = ("trial_id", "stage", "method", "fusion", "document", "params", "why")
        records[event["trial_id"]] = TrialRecord(**{key: event[key] for key in keys})
        return
    record = records.get(event.get("trial_id", ""))
    if record is None:
        return
    if kind == "started":
        record.state = "running"
        record.attempts += 1
    elif kind == "epoch":
        _update(record, event, ("epoch", "score", "metrics", "cost_joint_epochs", "seconds"))
        if event["score"] is not None:
            record.curve.append((event["epoch"], event["score"]))
    elif kind == "lost":
        record.retries += 1
        record.losses.append((event.get("kind", "worker"), record.epoch))
    elif kind == "halved":
        record.micro_batch = event["micro_batch"]
    elif kind == "told":
        _update(record, event, ("state", "score", "reason", "select"))
    elif kind == "test":
        record.test = {k: v for k, v in event.items() if k not in ("event", "time", "trial_id")}


def _update(record: TrialRecord, event: Event, keys: Iterable[str]) -> None:
    for key in keys:
        if key in event:
            setattr(record, key, event[key])


def records(events: Iterable[Mapping[str, Any]]) -> Records:
    """The trials of a run, by trial_id, in the order in which they were asked."""
    found: Records = {}
    for event in events:
        apply(found, dict(event))
    return found


class TrialTable:
    """`RUN/trials.jsonl`: a line a finished trial, kept up to date as a subscriber of the journal.

    Args:
        run_dir: the run's folder.
        live: records that are brought up to date before this subscriber is called.
    """

    def __init__(self, run_dir: Path, live: Records) -> None:
        self._path = Path(run_dir) / FILE
        self._records = live
        write_text(self._path, "".join(self._line(r) for r in live.values() if r.finished))

    def __call__(self, event: Event) -> None:
        """Takes note of an event."""
        if event["event"] == "told":
            with self._path.open("a") as file:
                file.write(self._line(self._records[event["trial_id"]]))

    @staticmethod
    def _line(record: TrialRecord) -> str:
        return json.dumps(record.to_line()) + "\n"
