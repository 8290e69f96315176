"""A run's figures in the metrics that Ray hands to Prometheus; nothing of the clips is in them."""

from __future__ import annotations

from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from mmsearch.search.journal import Event

_TRIAL = ("run", "method")


class Metrics:
    """Counts what the journal says, as a subscriber; Ray exports it on every node's metrics port.

    `mmsearch_trials` by state, `mmsearch_epochs`, `mmsearch_joint_epochs`, `mmsearch_workers_lost` by kind and
    `mmsearch_trials_running`, all by run and method, and `mmsearch_machines` by run; of the session, from its start.

    Args:
        run: its name.
        events: of earlier sessions, whose trials may go on in this one.
    """

    def __init__(self, run: str, events: Iterable[Event] = ()) -> None:
        self._run = run
        self._method: dict[str, str] = {}
        self._cost: dict[str, float] = {}
        for event in events:
            if event["event"] == "asked":
                self._method[event["trial_id"]] = event["method"]
            elif event["event"] == "epoch":
                self._cost[event["trial_id"]] = event["cost_joint_epochs"]
        self._running: dict[str, set[str]] = {}
        self._told = Counter("mmsearch_trials", "Trials that have ended.", (*_TRIAL, "state"))
        self._epochs = Counter("mmsearch_epochs", "Epochs trained.", _TRIAL)
        self._joint_epochs = Counter("mmsearch_joint_epochs", "Cost of the epochs trained.", _TRIAL)
        self._lost = Counter("mmsearch_workers_lost", "Workers lost.", (*_TRIAL, "kind"))
        self._active = Gauge("mmsearch_trials_running", "Trials that run now.", _TRIAL)
        self._machines = Gauge("mmsearch_machines", "Machines of the cluster.", ("run",))

    def __call__(self, event: Event) -> None:
        """Takes note of an event."""
        kind, trial_id = event["event"], event.get("trial_id", "")
        if kind == "cluster":
            self._machines.set(event["nodes"], {"run": self._run})
        if kind == "asked":
            self._method[trial_id] = event["method"]
        if trial_id not in self._method:
            return
        method = self._method[trial_id]
        tags = {"run": self._run, "method": method}
        if kind == "epoch":
            self._epochs.inc(1, tags)
            more = event["cost_joint_epochs"] - self._cost.get(trial_id, 0.0)
            self._cost[trial_id] = event["cost_joint_epochs"]
            if more > 0:
                self._joint_epochs.inc(more, tags)
        elif kind == "lost":
            self._lost.inc(1, tags | {"kind": event["kind"]})
        elif kind == "told":
            self._told.inc(1, tags | {"state": event["state"]})
            self._cost.pop(trial_id, None)
        running = self._running.setdefault(method, set())
        if kind == "started":
            running.add(trial_id)
        elif kind in ("lost", "told"):
            running.discard(trial_id)
        self._active.set(len(running), tags)
