"""Batches prepared by a thread while the GPU works on those before."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from queue import SimpleQueue

import torch

from mmsearch.batch import Batch

DEPTH = 2
"""Batches that stand ready, at most."""


def prefetch(
    batches: Generator[Batch, None, None], device: torch.device | None = None, depth: int = DEPTH
) -> Generator[Batch, None, None]:
    """The same batches in the same order, read ahead by a thread.

    The thread lives from the first batch asked for to the last; closing the generator ends it at once, after the
    batch it is at. An error comes where its batch would have come.

    Args:
        batches: closed at the end.
        device: a CUDA device for which batches are put into pinned memory; None: they stay as they are.
        depth: batches that stand ready, at most.
    """
    ready: SimpleQueue[Batch | BaseException | None] = SimpleQueue()
    room = threading.Semaphore(depth)
    stopped = threading.Event()

    def work() -> None:
        try:
            with contextlib.nullcontext() if device is None else torch.cuda.device(device):
                while room.acquire() and not stopped.is_set():
                    batch = next(batches, None)
                    ready.put(batch if batch is None or device is None else batch.pin_memory())
                    if batch is None:
                        return
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, name="mmsearch-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            room.release()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        room.release()
        thread.join()
        batches.close()
