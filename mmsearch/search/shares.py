"""Shares of a GPU: how much a trial of each method needs, measured on two steps, and the cap that holds it to that."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import ray
import torch

from mmsearch.data.clips import ClipData
from mmsearch.files import write_text
from mmsearch.search.cluster import SHAPES, Resources
from mmsearch.search.job import clips, out_of_memory
from mmsearch.search.run_folder import RunFolder
from mmsearch.search.space import Space
from mmsearch.training import train

FILE = "shares.json"

STEPS = 2
"""Steps of a probe: the optimiser's state is there from the second on."""

MARGIN = 1.25
"""A trial needs so many times what a probe has measured: other settings of a method are larger than the paper's."""

CONTEXT = 512 * 2**20
"""Bytes that CUDA takes for a process beside what the allocator hands out."""

SHARES = (0.125, 0.25, 0.5, 1.0)
"""The shares of a GPU that a trial may get."""


class Allocator(Protocol):
    """What is needed of `torch.cuda`."""

    def empty_cache(self) -> None:
        """Gives back what is not in use."""
        ...

    def reset_peak_memory_stats(self) -> None:
        """Forgets the peak."""
        ...

    def max_memory_reserved(self) -> int:
        """Bytes at the peak."""
        ...

    def mem_get_info(self) -> tuple[int, int]:
        """Bytes free and bytes in all."""
        ...

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        """Sets the share of all bytes that this process may take."""
        ...


def cap(share: float, allocator: Allocator = torch.cuda) -> None:
    """Holds this process to its share of the GPU's memory: what asks for more fails, not its neighbour."""
    if 0 < share < 1:
        _, total = allocator.mem_get_info()
        allocator.set_per_process_memory_fraction(max(share - CONTEXT / total, share / 2))


def peak(
    document: Mapping[str, Any],
    data: ClipData,
    teachers: Mapping[str, Path],
    device: str = "cuda",
    allocator: Allocator = torch.cuda,
) -> int:
    """Bytes that two steps of training and a forward pass of evaluation take at most."""
    allocator.empty_cache()
    allocator.reset_peak_memory_stats()
    run = train(document, data, teachers=teachers, device=device)
    with contextlib.closing(run.steps(run.method.stages()[0], 0, 1)) as steps:
        for batch in itertools.islice(steps, STEPS):
            run.method.step(run.context, batch)
            run.predictor.predict(batch)
    return allocator.max_memory_reserved()


def probe(
    space: Space, data: ClipData, device: str = "cuda", allocator: Allocator = torch.cuda
) -> tuple[dict[str, int | None], int]:
    """Measures the first paper setting of every method, with untrained teachers where it needs any.

    Returns:
        Per method its :func:`peak` in bytes, None where even that does not fit; and the bytes of the whole GPU.
    """
    found: dict[str, int | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in space.methods:
            document = space.paper_documents(method)[0]
            try:
                teachers = {u: Path(folder) / trial for u, trial in document["teachers"].items()}
                for u, path in teachers.items():
                    if not path.exists():
                        held = document["held"]
                        train(space.teacher(u, held=held), data, device=device).save_weights(path)
                found[method] = peak(document, data, teachers, device, allocator)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                found[method] = None
    return found, allocator.mem_get_info()[1]


def shares_of(peaks: Mapping[str, int | None], total: int) -> dict[str, float]:
    """The smallest of :data:`SHARES` that holds each method, in at most :data:`SHAPES` different ones.

    Args:
        peaks: bytes by method, as :func:`probe` gives them.
        total: bytes of the GPU.
    """
    needs = {m: 1.0 if p is None else (MARGIN * p + CONTEXT) / total for m, p in peaks.items()}
    shares = {m: next((s for s in SHARES if s >= need), 1.0) for m, need in needs.items()}
    allowed = sorted(set(shares.values()))[-SHAPES:]
    return {m: max(s, allowed[0]) for m, s in shares.items()}


def shared(run: RunFolder, space: Space, resources: Resources) -> Resources:
    """The resources with each method's share of a GPU; measured once a run and kept in its folder."""
    if not resources.gpus:
        return resources
    path = run.path / FILE
    if not path.is_file():
        task = ray.remote(_probe).options(**resources.options() | {"num_gpus": 1.0})
        peaks, total = ray.get(task.remote(space, run.address))
        write_text(path, json.dumps({"peak_bytes": peaks, "gpu_bytes": total, "shares": shares_of(peaks, total)}))
    shares = json.loads(path.read_text())["shares"]
    return dataclasses.replace(resources, gpus=max(shares.values()), by_method=shares)


def _probe(space: Space, address: str) -> tuple[dict[str, int | None], int]:
    folder = RunFolder(address, "worker")
    folder.fetch("data.json")
    return probe(space, clips(str(folder.path / "data.json")))
