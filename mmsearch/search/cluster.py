"""The Ray cluster of a sweep: connected, checked and silent."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import ray
from ray._private.state import state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mmsearch.errors import MMSearchError

_REFRESH_S = 5.0
_ANSWER_S = 60.0

SHAPES = 3
"""Resource shapes of a sweep at most: a worker is used again only by trials of its own shape, and starts slowly."""

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
}


@dataclasses.dataclass
class Resources:
    """What a trial gets.

    Attributes:
        cpus: processor cores; also the threads of its training.
        gpus: GPUs; a share below 1 lets trials share one, each with that share of its memory.
        concurrent: trials at once; None for as many as the cluster has room for now.
        by_method: GPUs of the trials of a method, where they are not `gpus`.

    Raises:
        MMSearchError: more than :data:`SHAPES` different shapes.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    concurrent: int | None = None
    by_method: Mapping[str, float] = dataclasses.field(default_factory=dict)
    _nodes: list[dict[str, float]] = dataclasses.field(default_factory=list, init=False)
    _counted: float = dataclasses.field(default=-_REFRESH_S, init=False)

    def __post_init__(self) -> None:
        shapes = sorted({self.gpus, *self.by_method.values()})
        if len(shapes) > SHAPES:
            named = ", ".join(f"{g:g}" for g in shapes)
            raise MMSearchError(f"--gpus-per-trial: {named} are {len(shapes)} shapes; a sweep has at most {SHAPES}")

    @property
    def device(self) -> str:
        """Where trials train."""
        return "cuda" if self.gpus else "cpu"

    def bundle(self, method: str | None = None) -> dict[str, float]:
        """As Ray takes it: that of a method's trials, or what every other trial gets."""
        gpus = self.gpus if method is None else self.by_method.get(method, self.gpus)
        return {"CPU": self.cpus} | ({"GPU": gpus} if gpus else {})

    def slots(self) -> int:
        """How many trials may run at once, at least one."""
        if self.concurrent is not None:
            return self.concurrent
        smallest = self.bundle() | ({"GPU": min(self.gpus, *self.by_method.values())} if self.by_method else {})
        return max(1, sum(_fit(node, smallest) for node in self._alive()))

    def room(self, running: Collection[str]) -> bool:
        """Whether one more trial may be begun beside those of these methods.

        With several shapes one that is too large for what is left may wait for others to end.
        """
        if len(running) >= self.slots():
            return False
        if not self.by_method or self.concurrent is not None or not running:
            return True
        used = sum(self.bundle(m).get("GPU", 0.0) for m in running)
        return used + min(self.gpus, *self.by_method.values()) <= sum(n.get("GPU", 0.0) for n in self._alive())

    def _alive(self) -> list[dict[str, float]]:
        if time.monotonic() - self._counted >= _REFRESH_S:
            self._nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
            self._counted = time.monotonic()
        return self._nodes


def _fit(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    return int(min((node.get(key, 0.0) + 1e-6) // need for key, need in bundle.items() if need))


def connect(
    address: str | None = None, cpus_per_trial: float = 1.0, gpus_per_trial: float | str | None = None
) -> Resources:
    """Starts Ray on this machine, or connects to a running cluster, and checks that a trial fits.

    Args:
        address: of a running cluster; None for this machine alone.
        cpus_per_trial: processor cores.
        gpus_per_trial: None or `auto` for one where the cluster has any.

    Raises:
        MMSearchError: no cluster there, or no machine of it can hold a trial.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not ray.is_initialized():
        try:
            ray.init(
                address=address or "local",
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise MMSearchError(f"Ray at {address or 'this machine'}: {str(error).splitlines()[0]}") from None
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    most = state.get_max_resources_from_cluster_config() or {}
    if gpus_per_trial is None or isinstance(gpus_per_trial, str):
        gpus_per_trial = 1.0 if any(n.get("GPU", 0) for n in nodes) or most.get("GPU") else 0.0
    resources = Resources(cpus_per_trial, gpus_per_trial)
    for key, asked in resources.bundle().items():
        have = max([float(most.get(key, 0)), *(n.get(key, 0.0) for n in nodes)])
        if asked > have:
            disconnect()
            raise MMSearchError(
                f"--{key.lower()}s-per-trial: a trial asks for {asked:g} {key}s, "
                f"the largest machine of the cluster has {have:g}"
            )
    return resources


def check_shared(out: Path) -> None:
    """Checks that every machine that the cluster has now sees a run's folder, by looking for a file there.

    Raises:
        MMSearchError: one of them does not.
    """
    here = ray.get_runtime_context().get_node_id()
    others = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here}
    if not others:
        return
    mark = out / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    try:
        asked = {
            _is_there.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(mark): name
            for node, name in others.items()
        }
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
        blind = sorted(asked[answer] for answer in answered if not _told(answer))
    finally:
        mark.unlink(missing_ok=True)
    if blind:
        raise MMSearchError(
            f"--out: {out} is a folder of this machine alone; {', '.join(blind)} of the cluster cannot see it, and its "
            "trials would be lost there; give a folder on storage that every machine mounts"
        )


@ray.remote(num_cpus=0, max_retries=0)
def _is_there(path: Path) -> bool:
    return path.is_file()


def _told(answer: ray.ObjectRef) -> bool:
    """The answer of a machine; one that has gone since sees nothing wrong."""
    try:
        return bool(ray.get(answer))
    except ray.exceptions.RayError:
        return True


def disconnect() -> None:
    """Ends the connection, and the cluster where :func:`connect` started it."""
    ray.shutdown()


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[TextIO]:
    """Sends everything that this process and its children print to a file.

    Yields:
        The standard output as it was, for those who have something to say to a person.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    stream = os.fdopen(os.dup(saved[0]), "w", buffering=1, encoding="utf-8")
    try:
        yield stream
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, fd in zip((1, 2), saved, strict=True):
            os.dup2(fd, number)
            os.close(fd)
        stream.close()
