"""From stored clips to the inputs of one batch, and the random numbers of a clip's visit in an epoch."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from mmsearch.batch import Modality, View
from mmsearch.data.tokens import tokenise


class Source(Protocol):
    """One modality of a list of clips.

    Attributes:
        present: bool `[N]`.
    """

    present: np.ndarray

    def read(self, i: int) -> np.ndarray:
        """The array of clip `i`, which must be present."""
        ...

    def take(self, i: int, picks: np.ndarray) -> np.ndarray:
        """Some entries of its first axis."""
        ...


@dataclasses.dataclass(frozen=True)
class Visits:
    """Clips as an epoch shows them.

    Attributes:
        row: int64 `[B]`.
        visit: int64 `[B]`; of a row that an epoch shows once the row, of one it shows again another number each time.
        seed, epoch: from which, with the visit, everything random comes.
    """

    row: np.ndarray
    visit: np.ndarray
    seed: int
    epoch: int

    @classmethod
    def of(cls, rows: np.ndarray, clips: int, seed: int, epoch: int) -> Visits:
        """All rows of an epoch of a dataset of so many clips."""
        order = np.argsort(rows, kind="stable")
        first = np.searchsorted(rows[order], rows[order])
        times = np.empty(len(rows), np.int64)
        times[order] = np.arange(len(rows)) - first
        return cls(rows, rows + clips * times, seed, epoch)

    def __getitem__(self, some: slice | np.ndarray) -> Visits:
        return dataclasses.replace(self, row=self.row[some], visit=self.visit[some])

    def __len__(self) -> int:
        return len(self.row)

    def bits(self, *draw: int | np.ndarray) -> np.ndarray:
        """64 random bits for every visit and draw; `[B]`, or `[B, K]` where a draw is `[K]`."""
        visit = self.visit if all(np.ndim(d) == 0 for d in draw) else self.visit[:, None]
        return hashed(self.seed, self.epoch, visit, *draw)

    def uniform(self, *draw: int | np.ndarray) -> np.ndarray:
        """The same as numbers in [0, 1), float64."""
        return (self.bits(*draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hashed(*values: int | np.ndarray) -> np.ndarray:
    """64 random bits, the same for the same values: splitmix64 (Steele, Lea and Flood 2014), chained."""
    state = np.zeros(1, np.uint64)
    for value in values:
        with np.errstate(over="ignore"):
            state = state + np.asarray(value).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


SHUFFLE, _CROP, _AUGMENT, WINDOW = 1 << 32, 1 << 33, 1 << 34, 1 << 35
"""What a draw is for; the frames of a clip have the numbers from 0."""


def gather(source: Source, modality: Modality, view: View, clips: Visits) -> Tensor:
    """The input of a batch as :class:`mmsearch.batch.Batch` describes it; zeros where a clip lacks the modality."""
    there = np.asarray(source.present[clips.row], bool)
    if modality.kind in ("sound", "series"):
        return _steps(source, modality, view, clips, there)
    if modality.kind == "text":
        texts = [source.read(row).tobytes() if has else b"" for row, has in zip(clips.row, there, strict=True)]
        return torch.from_numpy(tokenise(texts, view.tokenizer, view.length or modality.shape[0]))
    if modality.kind == "vector":
        vectors = _room(there, modality.shape, np.float32)
        for i in np.flatnonzero(there):
            vectors[i] = source.read(clips.row[i])
        return torch.from_numpy(vectors)
    return _pictures(source, modality, view, clips, there)


def augmentation(name: str, view: View, clips: Visits) -> Tensor:
    """`view.draws` random numbers in [0, 1) a clip, float32 `[B, K]`, other ones for every modality."""
    bits = clips.bits(_AUGMENT, zlib.crc32(name.encode()), np.arange(view.draws))
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))


def _room(there: np.ndarray, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """Room for a batch: zeros for the clips that are not there, the rest to be filled."""
    room = np.empty((len(there), *shape), dtype)
    room[~there] = 0
    return room


def _steps(source: Source, modality: Modality, view: View, clips: Visits, there: np.ndarray) -> Tensor:
    """A crop of every sound or series, and zeros behind it; int16 sound is scaled to [-1, 1)."""
    sound, shape = modality.kind == "sound", list(modality.shape)
    if sound and view.seconds is not None:
        shape[0] = max(1, round(view.seconds * modality.rate))
    elif not sound and view.length is not None:
        shape[0] = view.length
    shift = clips.uniform(_CROP) if view.random else None
    steps = _room(there, shape, np.float32)
    for i in np.flatnonzero(there):
        array = source.read(clips.row[i])
        cut = _crop(array, shape[0], None if shift is None else shift[i])
        scale = 2.0**-15 if sound and array.dtype == np.int16 else 1.0
        np.multiply(cut, np.float32(scale), out=steps[i, : len(cut)])
        steps[i, len(cut) :] = 0
    return torch.from_numpy(steps)


def _crop(array: np.ndarray, length: int, shift: float | None) -> np.ndarray:
    """At most `length` steps: those in the middle, or from where `shift` in [0, 1) says."""
    left = max(0, len(array) - length)
    start = left // 2 if shift is None else int((left + 1) * shift)
    return array[start : start + length]


def _pictures(source: Source, modality: Modality, view: View, clips: Visits, there: np.ndarray) -> Tensor:
    """One frame of each of equal segments: `[B, F, channels, H, W]`, channels last in memory."""
    total = modality.shape[0]
    count = view.frames or total
    shift = clips.uniform(np.arange(count)) if view.random else np.full((len(clips), count), 0.5)
    picked = np.minimum(((np.arange(count) + shift) * (total / count)).astype(np.int64), total - 1)
    pictures = _room(there, (count, *modality.shape[1:]), np.uint8)
    for i in np.flatnonzero(there):
        pictures[i] = source.read(clips.row[i]) if count == total else source.take(clips.row[i], picked[i])
    return torch.from_numpy(pictures).permute(0, 1, 4, 2, 3)
