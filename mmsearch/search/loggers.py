"""Experiment trackers beside the journal, through Ray's own callbacks."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mmsearch.errors import MMSearchError, nearest
from mmsearch.search.journal import Event, Journal

if TYPE_CHECKING:
    from ray.tune.logger import LoggerCallback

TRACKERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""What `--log` knows, and the package that each needs."""

_LOG = logging.getLogger(__name__)


def check(names: Iterable[str]) -> None:
    """Raises for a tracker that is unknown or not installed; imports nothing.

    Raises:
        MMSearchError: with the nearest name, or how to install it.
    """
    for name in names:
        if name not in TRACKERS:
            raise MMSearchError(f"--log: unknown tracker {name!r}{nearest(name, TRACKERS)}")
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise MMSearchError(f"--log: {name} is not installed; pip install 'mmsearch[{name}]'")


class Trackers:
    """Tells experiment trackers what the journal says of every trial; a context manager and a subscriber.

    Of a trial they get its document, its method and fusion, of every epoch the score, the metrics, the cost and the
    seconds, and at the end its accuracy on select. Paths of clips, names of classes and the reason of a failure are
    not among them. A tracker that fails is left out from then on: the sweep goes on, and the journal says so.

    Args:
        names: of :data:`TRACKERS`.
        run_dir: the run's folder; what is kept locally goes to a folder or file in it that is named after the tracker.

    Raises:
        MMSearchError: a tracker cannot be set up, such as one without a login.
    """

    def __init__(self, names: Iterable[str], run_dir: Path) -> None:
        self.failed: dict[str, str] = {}
        self._run_dir = Path(run_dir).resolve()
        self._about: dict[str, Any] = {}
        self._asked: dict[str, Event] = {}
        self._shown: dict[tuple[str, str], Any] = {}  # a _Shown each, which Ray's callbacks take for its Trial
        self._journal: Journal | None = None
        self._callbacks = {name: _OPEN[name](self._run_dir) for name in names}
        for name, callback in self._callbacks.items():
            try:
                callback.setup()
            except Exception as error:
                raise MMSearchError(f"--log: {name} cannot be used: {_first_line(error)}") from error

    def attach(self, journal: Journal, about: Mapping[str, Any] | None = None) -> Trackers:
        """Follows a journal from now on.

        Args:
            journal: of the run.
            about: of the clips; sent with every document.
        """
        self._journal, self._about = journal, dict(about or {})
        if self._callbacks:
            events = journal.events
            told = {e["trial_id"] for e in events if e["event"] == "told"}
            self._asked = {e["trial_id"]: e for e in events if e["event"] == "asked" and e["trial_id"] not in told}
            journal.subscribe(self)
        return self

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name, callback in list(self._callbacks.items()):
            for (tracker, _), trial in list(self._shown.items()):
                if tracker == name and name not in self.failed:
                    self._guarded(name, callback.log_trial_end, trial, failed=True)
            self._guarded(name, callback.on_experiment_end, [])
        for name, reason in self.failed.items():
            if self._journal is not None:
                self._journal.append({"event": "tracker_failed", "tracker": name, "reason": reason})

    def __call__(self, event: Event) -> None:
        """Passes an event on."""
        trial_id = event.get("trial_id", "")
        if event["event"] == "asked":
            self._asked[trial_id] = event
        asked = self._asked.get(trial_id)
        if asked is not None:
            for name, callback in list(self._callbacks.items()):
                self._guarded(name, self._pass, name, callback, asked, event)
        if event["event"] == "told":
            self._asked.pop(trial_id, None)

    def _pass(self, name: str, callback: LoggerCallback, asked: Event, event: Event) -> None:
        kind, key = event["event"], (name, event["trial_id"])
        if kind in ("started", "epoch") and key not in self._shown:
            self._shown[key] = _Shown(asked, self._about, self._run_dir / name)
            if name == "wandb":  # its process changes to the folder
                self._shown[key].init_local_path()
            callback.log_trial_start(self._shown[key])
        if key not in self._shown:
            return
        if kind == "epoch":
            figures = {k: event[k] for k in ("score", "cost_joint_epochs", "seconds") if event.get(k) is not None}
            self._result(callback, key, event["epoch"], {**event.get("metrics", {}), **figures})
        elif kind == "told":
            if event.get("select"):
                self._result(callback, key, event["epoch"], {"select/accuracy": event["select"]["accuracy"]})
            callback.log_trial_end(self._shown.pop(key), failed=event["state"] == "failed")

    def _result(self, callback: LoggerCallback, key: tuple[str, str], epoch: int, figures: Mapping[str, float]) -> None:
        numbers = {k: float(v) for k, v in figures.items() if v is not None}
        callback.log_trial_result(epoch, self._shown[key], {"training_iteration": epoch, **numbers})

    def _guarded(self, name: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        try:
            call(*arguments, **options)
        except Exception as error:
            _LOG.exception("the tracker %s failed and is left out", name)
            self.failed[name] = _first_line(error)
            self._callbacks.pop(name, None)


class _Shown:
    """A trial as Ray's callbacks read it."""

    checkpoint = None

    def __init__(self, asked: Event, about: Mapping[str, Any], folder: Path) -> None:
        self.trial_id = asked["trial_id"]
        self._name = f"{asked['method']}-{asked['fusion']}-{self.trial_id}"
        self.local_path = str(folder / self._name)
        self.experiment_dir_name = folder.parent.name
        document = {k: v for k, v in asked["document"].items() if k not in ("data", "post_hoc")}
        self.config = _flat({"stage": asked["stage"], **document, **about})
        self.evaluated_params = self.config

    def init_local_path(self) -> None:
        """Makes the folder."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)

    def __str__(self) -> str:
        return self._name


def _flat(document: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted names -> what a tracker can show; what is None is left out, a list becomes text."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{key}.")
        elif value is not None:
            flat[f"{above}{key}"] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _tensorboard(run_dir: Path) -> LoggerCallback:
    from ray.tune.logger import TBXLoggerCallback

    return TBXLoggerCallback()


def _mlflow(run_dir: Path) -> LoggerCallback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run_dir / 'mlflow.db'}",
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"mmsearch {run_dir.name}",
    )


def _wandb(run_dir: Path) -> LoggerCallback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    project = os.environ.get("WANDB_PROJECT") or "mmsearch"
    return WandbLoggerCallback(project=project, group=run_dir.name, resume="allow")


_OPEN: dict[str, Callable[[Path], LoggerCallback]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
