"""The processes that train one trial together, each on its slice of every batch."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmsearch.batch import Output, even_slices


@dataclasses.dataclass(frozen=True)
class World:
    """This process among those of a trial; of one alone every call does nothing.

    Attributes:
        rank, size: as in `torch.distributed`, whose default group it uses.
    """

    rank: int = 0
    size: int = 1

    @staticmethod
    def current() -> World:
        """The default group, where one has been set up; else one process alone."""
        if dist.is_available() and dist.is_initialized():
            return World(dist.get_rank(), dist.get_world_size())
        return World()

    @property
    def shard(self) -> tuple[int, int]:
        """As :meth:`mmsearch.data.clips.ClipData.batches` takes it."""
        return self.rank, self.size

    def bounds(self, clips: int) -> list[slice]:
        """The slice of a batch of every process, sizes as equal as can be and the larger ones first."""
        return even_slices(clips, self.size)

    def micro_batches(self, clips: int, most: int | None) -> int:
        """Into how many micro-batches of `most` clips every process cuts its slice of a batch."""
        sizes = [b.stop - b.start for b in self.bounds(clips)]
        return 1 if most is None else max(1, min(math.ceil(sizes[0] / most), sizes[-1]))

    def local(self, clips: int) -> slice:
        """What this process sees of a batch: its slice, or where there are too few clips the first as a stand-in."""
        mine = self.bounds(clips)[self.rank]
        return mine if mine.stop > mine.start else slice(0, 1)

    def sum(self, tensors: list[Tensor]) -> None:
        """Replaces every tensor by its sum over processes."""
        if self.size > 1 and tensors:
            together = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(together)
            start = 0
            for t in tensors:
                t.copy_(together[start : start + t.numel()].view_as(t))
                start += t.numel()

    @contextlib.contextmanager
    def summed_gradients(self, parameters: list[nn.Parameter]) -> Iterator[None]:
        """What is added to `p.grad` inside is summed over processes at the end.

        A process that adds nothing to a parameter counts as zero; where none does, `p.grad` stays as it was.
        """
        if self.size == 1 or not parameters:
            yield
            return
        before = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        yield
        there = [torch.full((), float(p.grad is not None), device=p.device) for p in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self.sum([*gradients, *there])
        for p, g, n, b in zip(parameters, gradients, torch.stack(there).tolist(), before, strict=True):
            p.grad = b if n == 0 else g if b is None else b + g

    def average_buffers(self, module: nn.Module) -> None:
        """Replaces every floating-point buffer (the statistics of batch norm) by its mean over processes."""
        if self.size > 1:
            buffers = [b for b in module.buffers() if b.is_floating_point()]
            sums = [b.double() for b in buffers]
            self.sum(sums)
            for b, total in zip(buffers, sums, strict=True):
                b.copy_(total / self.size)

    def gather(self, out: Output, clips: int) -> Output:
        """The outputs of all processes as one, in the order of the batch of `clips` clips."""
        if self.size == 1:
            return out
        sizes = [b.stop - b.start for b in self.bounds(clips)]
        return out.each(lambda x: self._gather(x, sizes))

    def _gather(self, x: Tensor, sizes: list[int]) -> Tensor:
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([p[:n] for p, n in zip(parts, sizes, strict=True)])
