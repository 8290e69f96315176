"""The processes that train one trial together, each on its slice of every batch."""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmsearch.batch import Output


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
        small, extra = divmod(clips, self.size)
        ends = [small * (r + 1) + min(r + 1, extra) for r in range(self.size)]
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def sum(self, tensors: list[Tensor]) -> None:
        """Replaces every tensor by its sum over processes."""
        if self.size > 1 and tensors:
            together = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(together)
            start = 0
            for t in tensors:
                t.copy_(together[start : start + t.numel()].view_as(t))
                start += t.numel()

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replaces `p.grad` by its sum over processes; a process where there is none adds nothing."""
        if self.size == 1:
            return
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.sum([p.grad for p in parameters if p.grad is not None])

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
