"""A trial larger than one GPU: its actor is rank 0 and starts its peers in its own placement group.

Every process trains on its slice of every batch, see :mod:`mmsearch.training.world`; rank 0 alone reports and writes.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
import torch.distributed as dist
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from mmsearch.search.job import OpenRun, Run, out_of_memory, training
from mmsearch.search.run_folder import RunFolder
from mmsearch.training import EpochResult

_ANSWER_S = 60.0


class Peer:
    """A process of a trial that is not its first."""

    def open(self, rank: int, size: int, meeting: str, address: str, open_run: OpenRun, arguments: list[Any]) -> None:
        """Joins the others and makes its run.

        Args:
            rank, size: as in `torch.distributed`.
            meeting: where rank 0 waits, `host:port`.
            address: of the sweep's run.
            open_run: makes the training run.
            arguments: of `open_run`; names below the run stand for paths.
        """
        self._folder = RunFolder(address, "worker")
        document, data, teachers, device, micro_batch = arguments
        self._folder.fetch(data)
        for name in teachers.values():
            self._folder.fetch(str(Path(name).parent), only=lambda n: n.endswith("/weights"))
        paths = {u: self._folder.path / name for u, name in teachers.items()}
        _join(rank, size, meeting, device)
        self._run = open_run(document, self._folder.path / data, paths, device, micro_batch)

    def restore(self, name: str) -> None:
        """Goes on from a checkpoint of the run."""
        self._folder.fetch(str(Path(name).parent))
        self._run.restore(self._folder.path / name)

    def next(self) -> None:
        """Trains an epoch; where that fails, the others hear of it at once."""
        try:
            next(self._run)
        except BaseException:
            _part()
            raise


class Together:
    """The run of several processes, as rank 0 drives it.

    Args:
        size: processes.
        address: of the sweep's run.
        open_run: makes the training run of a process.
        arguments: of `open_run`.
    """

    def __init__(self, size: int, address: str, open_run: OpenRun, arguments: list[Any]) -> None:
        self._folder = RunFolder(address, "worker")
        self._peers: list[Any] = []
        document, data, teachers, device, micro_batch = arguments
        named = [document, self._name(data), {u: self._name(p) for u, p in teachers.items()}, device, micro_batch]
        group = get_current_placement_group()
        assert group is not None, "a trial's actor has one"
        meeting = _free_address()
        try:
            for rank in range(1, size):
                strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
                bundle = group.bundle_specs[rank]
                options = {"num_cpus": bundle.get("CPU", 0), "num_gpus": bundle.get("GPU", 0)}
                self._peers.append(ray.remote(Peer).options(scheduling_strategy=strategy, **options).remote())
            opened = [
                p.open.remote(rank, size, meeting, address, open_run, named) for rank, p in enumerate(self._peers, 1)
            ]
            _join(0, size, meeting, device)
            self._run: Run = open_run(*arguments)
            self._all(opened)
        except BaseException:
            self.close()
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._run, name, value)

    def __next__(self) -> EpochResult:
        going = [p.next.remote() for p in self._peers]
        try:
            result = next(self._run)
        except Exception as error:
            _part()
            if not out_of_memory(error):
                self._blame(going)
            raise
        self._all(going)
        return result

    def restore(self, path: Path) -> None:
        """All of them go on from a saved state."""
        going = [p.restore.remote(self._name(path)) for p in self._peers]
        self._run.restore(path)
        self._all(going)

    def close(self) -> None:
        """Ends the others."""
        _part()
        for peer in self._peers:
            ray.kill(peer)
        self._peers = []

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder.path).as_posix()

    def _blame(self, going: list[Any]) -> None:
        """Raises what went wrong in another process, where that explains a broken connection."""
        for answer in going:
            try:
                self._all([answer], _ANSWER_S)
            except Exception as error:
                if out_of_memory(error):
                    raise

    @staticmethod
    def _all(going: list[Any], seconds: float | None = None) -> None:
        """Waits for the others; without one of them this process is of no use, and is lost with it."""
        try:
            ray.get(going, timeout=seconds)
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
            os._exit(1)


def together(size: int, address: str, open_run: OpenRun = training) -> Callable[..., Any]:
    """What makes the run of a trial of several processes, as :class:`mmsearch.search.job.Job` takes it."""

    def open_together(
        document: Mapping[str, Any], data: Path, teachers: Mapping[str, Path], device: str, micro_batch: int | None
    ) -> Together:
        return Together(size, address, open_run, [document, data, teachers, device, micro_batch])

    return open_together


def _free_address() -> str:
    host = ray.util.get_node_ip_address()
    with socket.socket() as free:
        free.bind((host, 0))
        return f"{host}:{free.getsockname()[1]}"


def _join(rank: int, size: int, meeting: str, device: str) -> None:
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://{meeting}", rank=rank, world_size=size)


def _part() -> None:
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
