"""Reading ahead: the same batches, errors where they belong, no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest
import torch

from mmsearch.batch import Batch
from mmsearch.data.prefetch import prefetch


def numbered(n: int, asked: list[int] | None = None, fails: bool = False) -> Generator[Batch, None, None]:
    for i in range(n):
        if asked is not None:
            asked.append(i)
        yield Batch({}, torch.tensor([i]), torch.tensor([i]), {})
    if fails:
        raise OSError("the disk is gone")


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "mmsearch-prefetch"]


@pytest.mark.parametrize("n", [0, 1, 2, 7])
@pytest.mark.parametrize("depth", [1, 2, 9])
def test_the_same_batches_in_order(n: int, depth: int) -> None:
    assert [int(b.label) for b in prefetch(numbered(n), depth=depth)] == list(range(n))
    assert not threads()


def test_at_most_so_many_stand_ready() -> None:
    asked: list[int] = []
    batches = prefetch(numbered(50, asked), depth=2)
    next(batches)
    for _ in range(100):
        threading.Event().wait(0.005)
        if len(asked) == 3:
            break
    threading.Event().wait(0.05)
    assert asked == [0, 1, 2]
    batches.close()
    assert not threads()


def test_an_error_comes_after_the_batches_before_it() -> None:
    batches = prefetch(numbered(3, fails=True))
    assert [int(next(batches).label) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)
    assert not threads()


def test_leaving_early_ends_the_thread_and_the_reading() -> None:
    source = numbered(10**9)
    batches = prefetch(source)
    next(batches)
    assert threads()
    batches.close()
    assert not threads()
    with pytest.raises(StopIteration):
        next(source)


def test_dropped_without_a_word_it_ends_too() -> None:
    for _ in prefetch(numbered(10**9)):
        break
    assert not threads()
    prefetch(numbered(3))
    assert not threads(), "nothing starts before the first batch is asked for"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_for_a_gpu_are_pinned() -> None:
    found = list(prefetch(numbered(3), torch.device("cuda")))
    assert all(b.label.is_pinned() for b in found)
