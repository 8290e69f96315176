"""The decoder `torchcodec`: as :mod:`mmsearch.data._pyav`, by TorchCodec with the system's FFmpeg (an extra).

Where the tracks are and when the file begins is read with PyAV, and pictures are scaled and sound is mixed and
resampled by it: the two decoders differ in who decodes, and in nothing else. A file that is cut short is not noticed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from mmsearch.data import _pyav
from mmsearch.data.decode import DecodeError
from mmsearch.errors import MMSearchError

_CHUNK = 8
"""Pictures of full size held at a time."""

_NEARLY = 1e-6
"""Seconds by which a moment is put off, so that a picture that begins then is on the screen."""

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


def sound(path: Path, rate: int, limit: int, start: float | None, end: float | None) -> np.ndarray | None:
    """As :func:`mmsearch.data._pyav.sound`.

    Raises:
        MMSearchError: TorchCodec finds no FFmpeg.
    """
    with _pyav.opened(path, "sound") as container:
        if not container.streams.audio:
            return None
        begin = _pyav.origin(container) + (start or 0.0)
    with _said(), path.open("rb") as file:
        decoders = _decoders()
        decoder = decoders.AudioDecoder(file)
        samples = decoder.get_samples_played_in_range(max(begin, _first(decoder)), begin + limit / rate)
    data = samples.data.numpy()
    if not data.size:
        raise DecodeError("the sound track is empty" if not start else f"there is no sound after {start:g} s")
    if not np.isfinite(data).all():
        raise DecodeError("the sound has values that are not finite (NaN or infinity)")
    frame = av.AudioFrame.from_ndarray(data, "fltp", _LAYOUTS.get(len(data), f"{len(data)} channels"))
    frame.sample_rate = samples.sample_rate
    mono = _pyav.Mono(rate)
    mono.add(frame)
    mono.finish()
    silence = np.zeros(max(0, round((samples.pts_seconds - begin) * rate)), np.int16)
    return np.concatenate([silence, mono.wave()])[:limit]


def shown(
    path: Path, count: int, start: float | None, end: float | None, pairs: bool = False
) -> Iterator[tuple[av.VideoFrame, av.VideoFrame | None]]:
    """As :func:`mmsearch.data._pyav.shown`.

    Raises:
        MMSearchError: TorchCodec finds no FFmpeg.
    """
    with _pyav.opened(path, "pictures") as container:
        stream = _pyav.picture_track(container)
        if stream is None:
            return
        origin, index = _pyav.origin(container), stream.index
        if _pyav.is_still(container, stream):
            yield from _pyav.shown(path, count, None, None, pairs)
            return
    with _said(), path.open("rb") as file:
        decoder = _decoders().VideoDecoder(file, stream_index=index, dimension_order="NHWC")
        last = decoder.metadata.end_stream_seconds
        first = max(_first(decoder), origin + (start or 0.0))
        last = min(last, last if end is None else origin + end)
        if not last > first:
            raise DecodeError("no frames" if not start else f"no frames after {start:g} s")
        if pairs:
            before_last = decoder.get_frame_at(len(decoder) - 1).pts_seconds
            if len(decoder) < 2 or not before_last > first:
                raise DecodeError("a single frame: no other follows it")
            last = min(last, before_last)
        moments = [first + (2 * i + 1) * (last - first) / (2 * count) + _NEARLY for i in range(count)]
        for i in range(0, count, _CHUNK):
            batch = decoder.get_frames_played_at(moments[i : i + _CHUNK])
            pictures = _frames(batch)
            following: list[av.VideoFrame | None] = [None] * len(pictures)
            if pairs:
                ends = (batch.pts_seconds + batch.duration_seconds + _NEARLY).tolist()
                following = list(_frames(decoder.get_frames_played_at(ends)))
            yield from zip(pictures, following, strict=True)


def _first(decoder: Any) -> float:
    return decoder.metadata.begin_stream_seconds or 0.0


def _frames(batch: Any) -> list[av.VideoFrame]:
    return [av.VideoFrame.from_ndarray(picture, "rgb24") for picture in batch.data.numpy()]


def _decoders() -> Any:
    try:
        import torchcodec.decoders
    except ImportError:
        raise MMSearchError("torchcodec is not installed here: pip install 'mmsearch[torchcodec]'") from None
    return torchcodec.decoders


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """TorchCodec's errors as those of a decoder."""
    try:
        yield
    except (RuntimeError, IndexError, ValueError) as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        if "libtorchcodec" in first:
            raise MMSearchError(
                "torchcodec finds no FFmpeg it can use: install it (apt-get install ffmpeg), or take `decoder: pyav`"
            ) from None
        raise DecodeError(first) from None
