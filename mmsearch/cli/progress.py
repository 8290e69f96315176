"""The live progress of a run: a pure function of its events, as a table or as plain lines."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mmsearch.recommend.words import UNKNOWN, count, duration, joint_epochs, percent
from mmsearch.search.journal import seconds_spent
from mmsearch.search.trials import Records, TrialRecord, apply

HEARTBEAT = 60.0
"""Seconds after which plain progress says how far it is although no trial has ended."""

_DECIDED = ("decide", "diagnose", "refit", "done")
"""Phases of which nobody says how many trials are left."""

_PHASES = {
    "decode": "decoding",
    "teachers": "single modalities",
    "search": "search",
    "confirm": "confirmation on fresh seeds",
    "decide": "decision",
    "diagnose": "diagnosis of the recommended model",
    "refit": "training of the recommended model on all development clips",
    "done": "done",
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run intends to do.

    Attributes:
        run_dir: where it writes.
        trials: of the search in all, None where only time limits it.
        seeds: of the confirmation.
        time_budget: seconds for the search.
    """

    run_dir: str = ""
    trials: int | None = None
    seeds: int | None = None
    time_budget: float | None = None

    @classmethod
    def of(cls, run_dir: Path, said: str = "") -> Plan:
        """From the arguments in `RUN/sweep.json`; what is not there is unknown.

        Args:
            run_dir: the run's folder.
            said: where that is, as told to people; empty for the folder itself.
        """
        try:
            sweep = json.loads((Path(run_dir) / "sweep.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            sweep = {}
        arguments = sweep.get("arguments", sweep)
        return cls(said or str(run_dir), *(arguments.get(name) for name in ("trials", "seeds", "time_budget")))


@dataclasses.dataclass
class Row:
    """A method's line in the table.

    Attributes:
        done: trials told: complete, stopped or failed.
        best: highest score on val of a complete trial of the search.
        left: seconds left in this phase, None where unknown.
    """

    method: str
    done: int = 0
    running: int = 0
    stopped: int = 0
    failed: int = 0
    best: float | None = None
    cost_joint_epochs: float = 0.0
    left: float | None = None


class Progress:
    """Shows a run while it runs; an observer of the journal and a context manager.

    Args:
        stream: where to write.
        plain: one line a noteworthy event, without control characters (logs, CI); else a live table.
        plan: what the run intends.
        events: what happened in earlier sessions; shown in the table, not repeated as lines.
    """

    def __init__(self, stream: IO[str], plain: bool, plan: Plan, events: Iterable[Mapping[str, Any]] = ()) -> None:
        self.plan = plan
        self._stream = stream
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        self._records: Records = {}
        self._phase = ""
        self._spoke = 0.0
        self._live: Live | None = None
        for event in events:
            self._take(dict(event))
        if not plain:
            self._live = Live(
                console=Console(file=stream),
                get_renderable=self.table,
                refresh_per_second=2,
                redirect_stdout=stream is sys.stdout,
            )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Takes one more event."""
        with self._lock:
            self._take(dict(event))
            line = None if self._live else self._line(dict(event))
        if line:
            self._spoke = event["time"]
            text = f"[{duration(seconds_spent(self._events))}] {line}"
            self._stream.write("".join(c if c.isprintable() else " " for c in text) + "\n")
            self._stream.flush()

    def table(self) -> RenderableType:
        """The table at this moment."""
        with self._lock:
            return _table(self._events, self._records, self._phase, self.plan, time.time())

    def _take(self, event: dict[str, Any]) -> None:
        self._events.append({"event": event["event"], "time": event["time"]})
        apply(self._records, event)
        if event["event"] == "phase":
            self._phase = event["name"]

    def _line(self, event: Mapping[str, Any]) -> str | None:
        kind = event["event"]
        record = self._records.get(event.get("trial_id", ""))
        if kind == "phase":
            first = sum(e["event"] == "phase" for e in self._events) == 1
            where = f"; output in {self.plan.run_dir}" if first and self.plan.run_dir else ""
            return f"phase: {_PHASES.get(event['name'], event['name'])}{where}"
        if kind == "told" and record:
            return self._told(record)
        if kind == "lost" and record:
            return f"{_name(record)}: its worker was lost ({event.get('reason') or 'no reason given'}); it will go on"
        if kind == "halved" and record:
            return (
                f"{_name(record)}: a batch did not fit in memory; it goes on with {event['micro_batch']} clips at once"
            )
        if kind == "started" and record and event.get("attempt", 1) > 1:
            return f"{_name(record)}: goes on from epoch {event['epoch']}, attempt {event['attempt']}"
        if kind == "waiting":
            return str(event["reason"])
        if kind == "decoded":
            aside = f", {count(len(event['quarantined']), 'clip')} set aside" if event["quarantined"] else ""
            return f"{count(event['stored'], 'clip')} ready, {event['decoded']} of them decoded now{aside}"
        if kind == "test_read":
            often = "once" if sum(e["event"] == "test_read" for e in self._events) == 1 else "again"
            return f"test part read, {often}, for {count(len(event['finalists']), 'trained finalist')}"
        if kind == "extended":
            return f"extended to {count(event['arguments']['trials'], 'trial')} of the search; space: {event['space']}"
        if kind == "tracker_failed":
            return f"{event['tracker']} was left out: {event['reason']}"
        if kind == "epoch" and event["time"] - (self._spoke or self._events[0]["time"]) >= HEARTBEAT:
            return self._where()
        return None

    def _told(self, record: TrialRecord) -> str:
        spent = f"{joint_epochs(record.cost_joint_epochs)} joint epochs, {duration(record.seconds)}"
        score = percent(record.score) if record.score is not None else "no score"
        if record.state == "complete":
            text = f"{score} ({spent})" if record.stage != "refit" else f"{score} of the clips it trained on ({spent})"
        elif record.state == "pruned":
            text = f"stopped at epoch {record.epoch} of {record.epochs} with {score} ({spent})"
        else:
            reason = (record.reason or "no reason given").strip().splitlines()[-1]
            text = f"FAILED: {reason} (`mmsearch show {self.plan.run_dir or 'RUN'} {record.trial_id}`)"
        return f"{_name(record)}: {text}; {self._where()}"

    def _where(self) -> str:
        done = sum(r.finished for r in self._records.values())
        running = sum(r.state == "running" for r in self._records.values())
        return f"{done}{_of(self._phase, self.plan, self._records)} trials done, {running} running"


def _name(record: TrialRecord) -> str:
    modality = record.document["method"].get("modality")
    what = f"{modality} alone" if modality else f"{record.method} · {record.fusion}"
    seed = "" if record.searched else f", seed {record.document['seed']}"
    return f"{record.trial_id} {what}{seed}"


def _of(phase: str, plan: Plan, records: Records) -> str:
    planned = expected(plan, records) if phase not in ("", *_DECIDED) else None
    return f" of {planned}" if planned else ""


def expected(plan: Plan, records: Records) -> int | None:
    """Trials in all, as far as can be known: those of the search, and once asked the confirmation's."""
    searched = sum(r.searched for r in records.values())
    confirming = _confirming(records)
    if not confirming:
        return None if plan.trials is None else max(plan.trials, searched)
    if len(confirming) == 1:
        return None  # the first seed is still being asked: nobody knows how many trials a seed takes
    return searched + max(len(trials) for trials in confirming.values()) * max(plan.seeds or 0, len(confirming))


def _confirming(records: Records) -> dict[int, list[TrialRecord]]:
    seeds: dict[int, list[TrialRecord]] = {}
    for r in records.values():
        if not r.searched and r.stage != "refit":
            seeds.setdefault(r.document["seed"], []).append(r)
    return seeds


def rows(records: Records, plan: Plan) -> list[Row]:
    """One row a method, in the order in which they were first asked."""
    found: dict[str, Row] = {}
    seconds: dict[str, list[float]] = {}
    for r in records.values():
        row = found.setdefault(r.method, Row(r.method))
        row.done += r.finished
        row.running += r.state == "running"
        row.stopped += r.state == "pruned"
        row.failed += r.state == "failed"
        row.cost_joint_epochs += r.cost_joint_epochs or 0.0
        if r.state == "complete":
            seconds.setdefault(r.method, []).append(r.seconds)
            if r.searched and r.score is not None:
                row.best = max(r.score, row.best if row.best is not None else r.score)
    workers = max(1, sum(row.running for row in found.values()))
    for method, waiting in _waiting(records, plan).items():
        if waiting == 0:
            found[method].left = 0.0
        elif method in seconds:
            found[method].left = waiting * sum(seconds[method]) / len(seconds[method]) / workers
    return list(found.values())


def _waiting(records: Records, plan: Plan) -> dict[str, float]:
    """Trials not told yet, by method, those running counted by the epochs they still need."""
    methods = list(dict.fromkeys(r.method for r in records.values()))
    left = {m: 0.0 for m in methods}
    for r in records.values():
        if not r.finished:
            left[r.method] += 1 - r.epoch / max(1, r.epochs)
    confirming = _confirming(records)
    if len(confirming) == 1:
        return {}
    if confirming:
        fullest = max(confirming.values(), key=len)
        for trials in confirming.values():
            for m in methods:
                missing = sum(r.method == m for r in fullest) - sum(r.method == m for r in trials)
                left[m] += max(0, missing)
        for m in methods:
            left[m] += max(0, (plan.seeds or 0) - len(confirming)) * sum(r.method == m for r in fullest)
        return left
    if plan.trials is None:
        return {}
    unasked = max(0, plan.trials - len(records))
    return {m: n + unasked / len(methods) for m, n in left.items()}


def render(
    events: Iterable[Mapping[str, Any]], plan: Plan | None = None, *, now: float | None = None
) -> RenderableType:
    """The progress of a run as a rich renderable.

    Args:
        events: the journal's.
        plan: what the run intends.
        now: the time, for a run that is running; without it the last event's.
    """
    past: list[dict[str, Any]] = [dict(e) for e in events]
    records: Records = {}
    phase = ""
    for event in past:
        apply(records, event)
        phase = event["name"] if event["event"] == "phase" else phase
    return _table(past, records, phase, plan or Plan(), now)


def elapsed(events: list[dict[str, Any]], phase: str, now: float | None) -> float:
    """Seconds of all sessions, up to now where the run goes on."""
    spent = seconds_spent(events)
    return spent + max(0.0, now - events[-1]["time"]) if now is not None and events and phase != "done" else spent


def _table(events: list[dict[str, Any]], records: Records, phase: str, plan: Plan, now: float | None) -> RenderableType:
    found = rows(records, plan)
    done = sum(row.done for row in found)
    total = _of(phase, plan, records)
    left = [row.left for row in found]
    head = Text.assemble(
        ("mmsearch", "bold"),
        "  ",
        (_PHASES.get(phase, phase or "starting"), "bold green" if phase == "done" else "bold cyan"),
        f"  {done}{total} trials  {duration(elapsed(events, phase, now))} elapsed",
    )
    known = [seconds for seconds in left if seconds is not None]
    if known and len(known) == len(left) and phase not in _DECIDED:
        head.append(f"  about {duration(sum(known))} left in this phase")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name in ("done", "running", "stopped", "failed", "best val", "joint epochs", "left"):
        table.add_column(name, justify="right")
    best = max((row.best for row in found if row.best is not None), default=None)
    for row in found:
        table.add_row(
            Text(row.method),
            str(row.done),
            Text(str(row.running or UNKNOWN), style="cyan" if row.running else "dim"),
            Text(str(row.stopped or UNKNOWN), style="" if row.stopped else "dim"),
            Text(str(row.failed or UNKNOWN), style="red" if row.failed else "dim"),
            Text(percent(row.best), style="bold" if row.best is not None and row.best == best else ""),
            joint_epochs(row.cost_joint_epochs),
            UNKNOWN if row.left is None or phase in _DECIDED else duration(row.left),
        )
    notes = [Text("best val: the search's own score, high by selection; the result is what fresh seeds confirm", "dim")]
    if plan.run_dir:
        notes.append(Text(f"output in {plan.run_dir}", "dim"))
    return Group(head, table, *notes)


class JsonLines:
    """Every event of a run as a line of JSON, with the run; an observer of the journal and a context manager.

    A trial's document is left out: the `asked` event in the journal has it.

    Args:
        stream: where to write.
        run: its address.
    """

    def __init__(self, stream: IO[str], run: str) -> None:
        self._stream, self._run = stream, run

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Writes one more event."""
        line = {"run": self._run, **{k: v for k, v in event.items() if k != "document"}}
        print(json.dumps(line, separators=(",", ":")), file=self._stream, flush=True)
