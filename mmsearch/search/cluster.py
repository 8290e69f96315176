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
from typing import Any, TextIO

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mmsearch.data.places import Place, said
from mmsearch.errors import MMSearchError, nearest
from mmsearch.search.machines import Cluster

_REFRESH_S = 5.0
_ANSWER_S = 60.0

_KIND = "accelerator_type:"
_MARK = 0.001

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
        gpus: GPUs of a process; a share below 1 lets trials share one, each with that share of its memory.
        concurrent, gpu_kind, memory: see :class:`mmsearch.search.machines.Cluster`.
        by_method: GPUs of the trials of a method, where they are not `gpus`.
        processes: that train a trial together, each with these cores and GPUs.

    Raises:
        MMSearchError: more than :data:`SHAPES` different shapes.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    concurrent: int | None = None
    gpu_kind: str | None = None
    memory: float | None = None
    by_method: Mapping[str, float] = dataclasses.field(default_factory=dict)
    processes: int = 1
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
        """What a process gets, as Ray takes it: of a method's trials, or of every other trial."""
        gpus = self.gpus if method is None else self.by_method.get(method, self.gpus)
        return (
            {"CPU": self.cpus}
            | ({"GPU": gpus} if gpus else {})
            | ({"memory": self.memory} if self.memory else {})
            | ({f"{_KIND}{self.gpu_kind}": _MARK} if self.gpu_kind else {})
        )

    def options(self) -> dict[str, Any]:
        """Those of a Ray task that gets what a trial gets."""
        kind = {"accelerator_type": self.gpu_kind} if self.gpu_kind else {}
        memory = {"memory": self.memory} if self.memory else {}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **kind, **memory}

    def slots(self) -> int:
        """How many trials may run at once, at least one."""
        if self.concurrent is not None:
            return self.concurrent
        smallest = self.bundle() | ({"GPU": min(self.gpus, *self.by_method.values())} if self.by_method else {})
        return max(1, sum(_fit(node, smallest) for node in self._alive()) // self.processes)

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

    def held(self) -> dict[str, float]:
        """What the machines have that are there now: `nodes`, `cpus` and `gpus`."""
        nodes = self._alive()
        return {
            "nodes": len(nodes),
            "cpus": sum(n.get("CPU", 0.0) for n in nodes),
            "gpus": sum(n.get("GPU", 0.0) for n in nodes),
        }

    def _alive(self) -> list[dict[str, float]]:
        if time.monotonic() - self._counted >= _REFRESH_S:
            self._nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
            self._counted = time.monotonic()
        return self._nodes


def needs(bundle: Mapping[str, float]) -> str:
    """`1 CPU, 1 GPU of kind A100, 16 GiB memory`."""
    kind = next((f" of kind {k.removeprefix(_KIND)}" for k in bundle if k.startswith(_KIND)), "")
    texts = [f"{n:g} {k}{kind if k == 'GPU' else ''}" for k, n in bundle.items() if k in ("CPU", "GPU")]
    return ", ".join([*texts, *([f"{bundle['memory'] / 2**30:g} GiB memory"] if "memory" in bundle else [])])


def _fit(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    return int(min((node.get(key, 0.0) + 1e-6) // need for key, need in bundle.items() if need))


def connect(
    cluster: Cluster | None = None,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float | str | None = None,
) -> Resources:
    """Starts Ray on this machine, or connects to a running cluster, and checks that a trial fits.

    Args:
        cluster: the machines; by default those of `$RAY_ADDRESS`, or this one.
        cpus_per_trial: processor cores.
        gpus_per_trial: None or `auto` for one where the cluster has any now.

    Raises:
        MMSearchError: no cluster there, or no machine of it can hold a trial.
    """
    cluster = cluster or Cluster()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not ray.is_initialized():
        try:
            ray.init(
                address=cluster.address or "local",
                include_dashboard=False if cluster.address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise MMSearchError(f"Ray at {cluster.address or 'this machine'}: {str(error).splitlines()[0]}") from None
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    if gpus_per_trial is None or isinstance(gpus_per_trial, str):
        gpus_per_trial = 1.0 if any(n.get("GPU", 0) for n in nodes) else 0.0
    processes = max(1, int(gpus_per_trial))
    if gpus_per_trial > 1 and gpus_per_trial != processes:
        disconnect()
        raise MMSearchError(f"--gpus-per-trial: {gpus_per_trial:g} is neither a whole number nor a share of one GPU")
    resources = Resources(
        cpus_per_trial,
        min(1.0, gpus_per_trial),
        cluster.concurrent,
        gpu_kind=cluster.gpu_kind,
        memory=cluster.memory,
        processes=processes,
    )
    grows = cluster.address is not None and cluster.concurrent is not None
    if not grows and sum(_fit(node, resources.bundle()) for node in nodes) < processes:
        disconnect()
        raise MMSearchError(_too_much(resources.bundle(), nodes, processes))
    return resources


def _too_much(bundle: Mapping[str, float], nodes: Collection[Mapping[str, float]], processes: int) -> str:
    """Why the machines do not hold a trial."""
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    if processes > 1 and gpus < processes:
        return f"--gpus-per-trial: a trial asks for {processes} GPUs, the cluster has {gpus:g}"
    for key, flag in (("CPU", "--cpus-per-trial"), ("GPU", "--gpus-per-trial"), ("memory", "--memory-per-trial")):
        most = max(node.get(key, 0.0) for node in nodes)
        if bundle.get(key, 0.0) > most:
            unit = 2**30 if key == "memory" else 1
            name = "GiB memory" if key == "memory" else f"{key}s"
            return (
                f"{flag}: a trial asks for {bundle[key] / unit:g} {name}, the largest machine of the cluster has "
                f"{most / unit:.4g}; on a cluster that grows, --concurrent says how far"
            )
    kinds = {k.removeprefix(_KIND) for node in nodes for k in node if k.startswith(_KIND)}
    for key in bundle:
        if key.startswith(_KIND) and key.removeprefix(_KIND) not in kinds:
            return f"--gpu-kind: no machine of the cluster has that{nearest(key.removeprefix(_KIND), kinds)}"
    many = f"{processes} times " if processes > 1 else ""
    return f"the machines of the cluster have not all of what a trial asks for: {many}{needs(bundle)}"


def check_shared(
    argument: str, place: str | Path | Place, file: str | None = None, instead: str = "use a bucket (s3://, gs://)"
) -> None:
    """Checks that every machine that the cluster has now sees what this one sees, by looking for a file there.

    Args:
        argument: which names the place.
        place: a folder or a bucket.
        file: one that is there; None to write one, where that can be done.
        instead: what can be done where machines share no storage.

    Raises:
        MMSearchError: a machine does not see it.
    """
    here = ray.get_runtime_context().get_node_id()
    others = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != here}
    if not others:
        return
    place = place if isinstance(place, Place) else Place(place)
    mark = file or f"seen-{uuid.uuid4().hex}"
    try:
        if file is None:
            place.write(mark, b"")
        asked = {
            _sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                place.text, mark
            ): name
            for node, name in others.items()
        }
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
        blind = sorted((asked[answer], why) for answer in answered if (why := _told(answer)))
    except OSError:
        return
    finally:
        if file is None:
            with contextlib.suppress(OSError):
                place.delete(mark)
    names = ", ".join(name for name, _ in blind)
    if blind and place.folder is None:
        raise MMSearchError(f"{argument}: {names} of the cluster cannot read {place}: {blind[0][1]}")
    if blind:
        raise MMSearchError(
            f"{argument}: {place} is a folder of this machine alone; {names} of the cluster cannot see it; use storage "
            f"that every machine mounts, or {instead}"
        )


@ray.remote(num_cpus=0, max_retries=0)
def _sees(address: str, mark: str) -> str:
    """Why this machine does not see a file; empty where it does."""
    try:
        Place(address).read(mark)
    except (OSError, MMSearchError) as error:
        return said(error)
    return ""


def _told(answer: ray.ObjectRef) -> str:
    """The answer of a machine; one that has gone since sees nothing wrong."""
    try:
        return str(ray.get(answer))
    except ray.exceptions.RayError:
        return ""


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
