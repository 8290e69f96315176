"""The one trainable: a trial document under Ray Tune."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import ray
import torch
from ray import tune

from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.methods import METHODS
from mmsearch.search.job import Job, Run, clips, training
from mmsearch.search.peers import together
from mmsearch.search.run_folder import RunFolder
from mmsearch.search.shares import cap
from mmsearch.training import Predictor, trial_id


class Trial(tune.Trainable):
    """Trains one document, an epoch a step.

    Under a sweep the configuration names the run's folder (`run`, `trial_id`, `stage`, `document`); the trial then
    keeps its own checkpoints there and reports events for the journal instead of raising. Under anyone else's
    `Tuner` (see :func:`trainable`) the configuration is a partial document with `data`, the path of a `data.json`,
    and Ray keeps the checkpoints.

    Attributes:
        method, fusion: fixed by :func:`trainable`, else None.
        open_run: makes the training run; tests put a stand-in here.
    """

    method: ClassVar[str | None] = None
    fusion: ClassVar[str | None] = None
    open_run = staticmethod(training)

    _job: Job | None = None
    _run: Run | None = None

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> tune.PlacementGroupFactory | None:
        """The `resources` of the configuration, where it has any."""
        resources = config.get("resources")
        return tune.PlacementGroupFactory([dict(resources)] * config.get("processes", 1)) if resources else None

    def setup(self, config: dict[str, Any]) -> None:
        """Called by Ray once an actor."""
        resources = config.get("resources") or {}
        torch.set_num_threads(max(1, int(resources.get("CPU", 1))))
        if torch.cuda.is_available():
            cap(resources.get("GPU", 0.0))
        if self._job is not None:
            self._job.leave()
        self._job = self._run = None
        if "run" in config:
            processes = config.get("processes", 1)
            self._job = Job(
                RunFolder(config["run"], "worker"),
                config["trial_id"],
                config["stage"],
                config["document"],
                device=config["device"],
                micro_batch=config["micro_batch"],
                checkpoint_seconds=config["checkpoint_seconds"],
                open_run=together(processes, config["run"], self.open_run) if processes > 1 else self.open_run,
            )
        else:
            self._run = self._open(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Called by Ray where an actor is used again: nothing of the trial before is left."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        if self._job is not None:
            return {"events": self._job.step(), "node": ray.get_runtime_context().get_node_id()}
        assert self._run is not None
        result = next(self._run)
        return {
            "epoch": result.epoch,
            "score": result.score,
            "cost_joint_epochs": result.cost_joint_epochs,
            "seconds": result.seconds,
            **result.metrics,
            "done": result.final,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the state of the training without pickle."""
        if self._run is not None:
            self._run.save(Path(checkpoint_dir) / "training")

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Goes on from :meth:`save_checkpoint`."""
        if self._run is not None:
            self._run.restore(Path(checkpoint) / "training")

    def cleanup(self) -> None:
        """Called by Ray when the actor ends."""
        if self._job is not None:
            self._job.close()

    def _open(self, config: Mapping[str, Any]) -> Run:
        if "data" not in config:
            raise MMSearchError("trainable: the configuration needs `data`, the path of a data.json")
        document = {k: v for k, v in config.items() if k not in ("data", "resources", "teachers")}
        document["method"] = {**document.get("method", {}), "name": self.method or document["method"]["name"]}
        if self.fusion is not None:
            document["fusion"] = {**document.get("fusion", {}), "name": self.fusion}
        teachers = {u: Path(path) for u, path in config.get("teachers", {}).items()}
        document["teachers"] = {u: trial_id(Predictor.load(path).document) for u, path in teachers.items()}
        path = Path(config["data"])
        return self.open_run({**document, "data": clips(str(path)).digest}, path, teachers, "auto", None)


def trainable(method: str, fusion: str | None = None) -> type[Trial]:
    """A trainable of one method and one fusion, registered with Ray, for anyone's own `Tuner`.

    Its configuration is a partial document: `data` (the path of a `data.json`), knobs of the method under
    `"method"`, of the fusion under `"fusion"`, `"optimizer"`, `"epochs"`, `"seed"`, …, and `teachers` (modality ->
    directory of a saved `unimodal` model) where the method needs them. It reports `score`, `epoch` and every metric.

    Args:
        method: its name.
        fusion: its name; None for a method that brings its own.

    Raises:
        MMSearchError: unknown name.
    """
    METHODS.get(method)
    if fusion is not None:
        FUSIONS.get(fusion)
    name = "_".join(["mmsearch", method, *([fusion] if fusion else [])])
    made = type(name, (Trial,), {"method": method, "fusion": fusion})
    tune.register_trainable(name, made)
    return made
