"""The Ray cluster of a sweep: connected, checked and silent."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import ray
from ray._private.state import state

from mmsearch.errors import MMSearchError

_REFRESH_S = 5.0

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
    """What one trial gets.

    Attributes:
        cpus: processor cores; also the threads of its training.
        gpus: GPUs; a share below 1 lets trials share one.
        concurrent: trials at once; None for as many as the cluster has room for now.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    concurrent: int | None = None
    _slots: int = dataclasses.field(default=0, init=False)
    _counted: float = dataclasses.field(default=-_REFRESH_S, init=False)

    @property
    def device(self) -> str:
        """Where the trial trains."""
        return "cuda" if self.gpus else "cpu"

    def bundle(self) -> dict[str, float]:
        """As Ray takes it."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    def slots(self) -> int:
        """How many trials may run at once, at least one."""
        if self.concurrent is not None:
            return self.concurrent
        if time.monotonic() - self._counted >= _REFRESH_S:
            nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
            self._slots = max(1, sum(self._fit(node) for node in nodes))
            self._counted = time.monotonic()
        return self._slots

    def _fit(self, node: dict[str, float]) -> int:
        return int(min(node.get(key, 0.0) // need for key, need in self.bundle().items() if need))


def connect(address: str | None = None, cpus_per_trial: float = 1.0, gpus_per_trial: float | None = None) -> Resources:
    """Starts Ray on this machine, or connects to a running cluster, and checks that a trial fits.

    Args:
        address: of a running cluster; None for this machine alone.
        cpus_per_trial: processor cores.
        gpus_per_trial: None for one where the cluster has any.

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
    if gpus_per_trial is None:
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
