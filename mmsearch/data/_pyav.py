"""The decoder `pyav`: sound and pictures of a media file, with the FFmpeg that PyAV brings along."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from mmsearch.data.decode import DecodeError

KEPT_BYTES = 64 << 20
"""Packets of one picture track kept in memory; the pictures of a larger one are sought in the file."""

SEEK_AHEAD = 10.0
"""Seconds to the next wanted picture of a large file from which on it is sought, not decoded up to."""

PREROLL = 0.25
"""Seconds of sound decoded before a segment begins: lossy codecs need what came before."""

TOLERATED = 0.1
"""Share of a track's packets that may be missing or damaged."""

_LOSSLESS_FLOAT = ("pcm_f", "wavpack")


def sound(path: Path, rate: int, limit: int, start: float | None, end: float | None) -> np.ndarray | None:
    """The first sound track, mono, from the beginning of the file or of the segment.

    Silence stands before a track that begins later than the others. Channels are mixed by FFmpeg's downmix, which
    is scaled so that nothing clips.

    Args:
        path: the file.
        rate: samples a second of the result.
        limit: samples at most; no more than these are decoded.
        start, end: the segment in seconds.

    Returns:
        int16 `[T]`, or None where the file has no sound track.

    Raises:
        DecodeError: no sound is there, a value is not finite, or the file is cut short.
    """
    with opened(path, "sound") as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        zero, begin = origin(container), start or 0.0
        if start:
            _seek(container, stream, max(0.0, begin - PREROLL) + zero)
        lossless = _codec(stream, "sound").name.startswith(_LOSSLESS_FLOAT)
        mono = Mono(rate)
        damage = Damage("sound packets")
        skip: int | None = None
        for packet in container.demux(stream):
            for frame in damage.decode(stream, packet):
                if lossless and not np.isfinite(frame.to_ndarray()).all():
                    raise DecodeError("the sound has values that are not finite (NaN or infinity)")
                if skip is None:
                    late = 0.0 if frame.time is None else frame.time - zero - begin
                    skip = round(-late * rate)
                    if -skip >= limit:
                        raise DecodeError(f"the sound begins {late:.3g} s late: nothing of it is in the clip")
                mono.add(frame)
            if skip is not None and mono.samples - skip >= limit:
                break
        else:
            if start is None and end is None:
                _check_complete(damage.packets, stream.frames, "sound packets")
            mono.finish()
    skip = skip or 0
    if mono.samples <= skip:
        raise DecodeError("the sound track is empty" if not start else f"there is no sound after {start:g} s")
    return np.concatenate([np.zeros(max(0, -skip), np.int16), mono.wave()])[max(0, skip) :][:limit]


class Damage:
    """Decoding that puts up with a few packets that are damaged.

    Attributes:
        packets: how many were decoded.
    """

    def __init__(self, what: str) -> None:
        self.packets = 0
        self._what = what
        self._damaged = 0

    def decode(self, stream: Any, packet: av.Packet | None) -> list[Any]:
        """What comes out of a packet (None: what the decoder holds back).

        Raises:
            DecodeError: more than a tenth of the packets are damaged.
        """
        self.packets += packet is not None and packet.size > 0
        try:
            return stream.decode(packet)
        except av.error.InvalidDataError:
            self._damaged += 1
        if self._damaged > max(1, TOLERATED * self.packets):
            raise DecodeError(f"the file is damaged: {self._damaged} of {self.packets} {self._what}")
        return []


class Mono:
    """Frames of sound as mono int16 of one rate, whatever they are; their kind may change on the way.

    Attributes:
        samples: how many came out so far.
    """

    def __init__(self, rate: int) -> None:
        self.samples = 0
        self._rate = rate
        self._kind: tuple[object, ...] = ()
        self._resampler: av.AudioResampler | None = None
        self._pieces: list[np.ndarray] = []
        self._floats: list[np.ndarray] = []

    def add(self, frame: av.AudioFrame) -> None:
        """The next frame."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self.finish()
            as_wanted = kind == ("fltp", "mono", self._rate)
            self._kind, self._resampler = kind, None if as_wanted else av.AudioResampler("s16", "mono", self._rate)
        if self._resampler:
            self._keep(frame)
        else:
            self._floats.append(np.frombuffer(memoryview(frame.planes[0]), np.float32, frame.samples).copy())
            self.samples += frame.samples

    def finish(self) -> None:
        """No frame comes any more: gives what the resampler holds back."""
        if self._resampler:
            self._keep(None)
        if self._floats:
            wave = np.concatenate(self._floats) * np.float32(32768)
            self._pieces.append(np.rint(wave).clip(-32768, 32767).astype(np.int16))
            self._floats.clear()

    def wave(self) -> np.ndarray:
        """What came out so far, int16 `[T]`."""
        if self._floats:
            self.finish()
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)

    def _keep(self, frame: av.AudioFrame | None) -> None:
        assert self._resampler
        for piece in self._resampler.resample(frame):
            self._pieces.append(piece.to_ndarray()[0])
            self.samples += piece.samples


def shown(
    path: Path, count: int, start: float | None, end: float | None, pairs: bool = False
) -> Iterator[tuple[av.VideoFrame, av.VideoFrame | None]]:
    """What is on the screen in the middle of each of `count` equal parts of the first picture track's time.

    Only what is needed is decoded: from the key picture before each. A single picture is on the screen all the
    time, whatever the segment.

    Args:
        path: the file.
        count: how many moments.
        start, end: the segment in seconds.
        pairs: with the picture that comes next; the time is then that up to the last picture.

    Yields:
        A picture for each moment and the one that comes next (None without `pairs`); nothing where the file has no
        picture track (a cover is none).

    Raises:
        DecodeError: no picture is there, no other follows it, or the file is cut short.
    """
    with opened(path, "pictures") as container:
        stream = picture_track(container)
        if stream is None:
            return
        _codec(stream, "picture").thread_count = 1
        if is_still(container, stream):
            start = end = None
        track = _Track(container, stream, start, end)
        pictures, now = _Ahead(iter(())), None
        moments = track.moments(count, pairs)
        if track.exact and not pairs and stream.codec_context.name == "h264":
            track.wanted = frozenset(moments)
        for moment in moments:
            jumped = track.jump(moment, now[0] if now else None)
            if jumped is not None:
                pictures, now = jumped, None
            while now is None or not (track.exact and now[0] >= moment):
                following = pictures.peek()
                if following is None or (now and following[0] > moment):
                    break
                now = pictures.take()
            if now is None:
                raise DecodeError("no frame could be decoded")
            following = pictures.peek() if pairs else None
            if pairs and following is None:
                raise DecodeError("a single frame: no other follows it")
            yield now[1], following and following[1]


class _Ahead:
    """Decoded pictures with their times, one of them looked at ahead where needed."""

    def __init__(self, pictures: Iterator[tuple[float, av.VideoFrame]]) -> None:
        self._pictures = pictures
        self._ahead: list[tuple[float, av.VideoFrame] | None] = []

    def peek(self) -> tuple[float, av.VideoFrame] | None:
        if not self._ahead:
            self._ahead.append(next(self._pictures, None))
        return self._ahead[0]

    def take(self) -> tuple[float, av.VideoFrame] | None:
        picture = self.peek()
        self._ahead.clear()
        return picture


class _Track:
    """The packets of a picture track within a segment, in memory or, where they are many, sought in the file.

    Times are in the track's own ticks; where its packets have none, a picture's time is its number.

    Attributes:
        exact: the moments are times of pictures, so that none needs to be looked at behind them.
        wanted: times of the only pictures that matter; others that no picture refers to are then passed over.
    """

    def __init__(
        self, container: av.container.InputContainer, stream: av.VideoStream, start: float | None, end: float | None
    ) -> None:
        self._container, self._stream = container, stream
        self._tick = float(stream.time_base or 1)
        self._start, self._end = start, end
        zero = origin(container)
        self._low = -np.inf if start is None else (start + zero) / self._tick
        self._high = np.inf if end is None else (end + zero) / self._tick
        if start:
            _seek(container, stream, start + zero)
        self._first = self._last_begin = self._last_end = 0.0
        self._position = 0
        self.wanted: frozenset[float] = frozenset()
        self._packets: list[av.Packet] = []
        rest = self._demux()
        size = 0
        for packet in rest:
            self._packets.append(packet)
            size += packet.size
            if size > KEPT_BYTES:
                break
        self.exact = size <= KEPT_BYTES
        self._numbered = any(packet.pts is None for packet in self._packets)
        if self._numbered and (start is not None or end is not None or not self.exact):
            raise DecodeError("no timestamps in it: moments cannot be found")
        if self.exact:
            if start is None and end is None:
                _check_complete(len(self._packets), stream.frames, "frames")
            self._index()
        else:
            self._look(rest)

    def moments(self, count: int, pairs: bool) -> list[float]:
        """The middles of `count` equal parts; of a track in memory the times of the pictures shown then."""
        first = max(self._first, self._low)
        last = min(self._last_begin if pairs else self._last_end, self._high)
        if not last > first:
            if pairs and self._first < self._last_end:
                raise DecodeError("a single frame: no other follows it")
            raise DecodeError("no frames" if not self._start else f"no frames after {self._start:g} s")
        moments = [first + (2 * i + 1) * (last - first) / (2 * count) for i in range(count)]
        if not self.exact:
            return moments
        return [self._times[max(0, bisect_right(self._times, moment) - 1)] for moment in moments]

    def jump(self, moment: float, now: float | None) -> _Ahead | None:
        """Pictures from the key picture before a moment; None where decoding is to go on from `now`."""
        if self.exact:
            key = self._keys[max(0, bisect_right(self._key_times, moment) - 1)]
            if now is not None and key < self._position:
                return None
            self._position = key
            return self._decoded(self._read())
        if now is not None and moment - now < SEEK_AHEAD / self._tick:
            return None
        back, place = SEEK_AHEAD / self._tick, moment
        while True:
            self._container.seek(int(place), stream=self._stream)
            pictures = self._decoded(self._container.demux(self._stream))
            first = pictures.peek()
            if place < self._first or (first and first[0] <= moment):
                return pictures
            place, back = max(place - back, self._first - 1 / self._tick), 2 * back

    def decode(self, packets: Iterable[av.Packet | None]) -> Iterator[tuple[float, av.VideoFrame]]:
        """Pictures with their times, in the order they are shown."""
        time, damage = -1.0, Damage("frames")
        passes, wanted_before = False, True
        for packet in packets:
            if self.wanted and packet is not None:
                # The decoder still has the packet before at hand (a field of the same picture, an unfinished slice).
                wanted = packet.pts in self.wanted
                if passes == (wanted or wanted_before):
                    passes = not passes
                    self._stream.codec_context.skip_frame = "NONREF" if passes else "DEFAULT"
                wanted_before = wanted
            for frame in damage.decode(self._stream, packet):
                time = time + 1 if self._numbered or frame.pts is None else frame.pts
                yield time, frame

    def _decoded(self, packets: Iterable[av.Packet | None]) -> _Ahead:
        self._stream.codec_context.flush_buffers()
        return _Ahead(self.decode(packets))

    def _demux(self) -> Iterator[av.Packet]:
        for packet in self._container.demux(self._stream):
            time = packet.pts if packet.dts is None else packet.dts
            if time is not None and time >= self._high:
                return
            if packet.size:
                yield packet

    def _read(self) -> Iterator[av.Packet | None]:
        while self._position < len(self._packets):
            self._position += 1
            yield self._packets[self._position - 1]
        yield None

    def _index(self) -> None:
        """Times of the pictures and of the key pictures, from the packets in memory."""
        times = [float(i if p.pts is None or self._numbered else p.pts) for i, p in enumerate(self._packets)]
        keys = [(time, i) for i, (time, p) in enumerate(zip(times, self._packets, strict=True)) if p.is_keyframe]
        if self._numbered or not keys or keys != sorted(keys):
            keys = [(-np.inf, 0)]
        self._key_times, self._keys = [time for time, _ in keys], [i for _, i in keys]
        pictures = sorted(
            (time, 1.0 if self._numbered else float(p.duration or 0))
            for time, p in zip(times, self._packets, strict=True)
            if not p.is_discard
        )
        self._times = [time for time, _ in pictures]
        if pictures:
            (self._first, _), (self._last_begin, length) = pictures[0], pictures[-1]
            spacing = (self._last_begin - self._first) / max(1, len(pictures) - 1)
            self._last_end = self._last_begin + (length or spacing or 1.0)

    def _look(self, rest: Iterable[av.Packet]) -> None:
        """The time of a large track: from its last packets, which are sought where the file says how long it is."""
        stream, container = self._stream, self._container
        self._first = float(min(packet.pts or 0 for packet in self._packets))
        self._packets.clear()
        if stream.duration or container.duration:
            length = stream.duration or (container.duration or 0) / av.time_base / self._tick
            container.seek(int(max(self._first, self._first + length - SEEK_AHEAD / self._tick)), stream=stream)
            rest = container.demux(stream)
        usual = 1 / float(stream.average_rate or 1) / self._tick
        last = max(((float(p.pts), float(p.duration or usual)) for p in rest if p.pts is not None), default=None)
        if last is None:
            raise DecodeError("the file is cut short: its end is not there")
        self._last_begin, self._last_end = last[0], sum(last)


@contextlib.contextmanager
def keeping_open() -> Iterator[None]:
    """Files opened inside stay open until its end: sound and pictures of one are read without opening it twice."""
    with contextlib.ExitStack() as stack:
        before = _kept.set(_Kept(stack))
        try:
            yield
        finally:
            _kept.reset(before)


class _Kept:
    """Files whose sound has been read and whose pictures may follow.

    Not the other way round: a reader taken back does not know how much of the first packet of sound is to be dropped.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._heard: dict[Path, av.container.InputContainer] = {}

    def open(self, path: Path, track: str) -> av.container.InputContainer:
        """A file at its beginning."""
        container = self._heard.pop(path, None) if track == "pictures" else None
        if container is None or not _rewound(container):
            container = self._stack.enter_context(_open(path))
        if track == "sound":
            self._heard[path] = container
        return container


_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


def _rewound(container: av.container.InputContainer) -> bool:
    """Whether the file is at its beginning again, which only an index of its packets can promise."""
    if not container.format.name.startswith(("mov,mp4", "matroska")):
        return False
    try:
        container.seek((container.start_time or 0) - av.time_base)
    except av.FFmpegError:
        return False
    return True


@contextlib.contextmanager
def opened(path: Path, track: str) -> Iterator[av.container.InputContainer]:
    """A file for reading its `sound` or its `pictures`."""
    kept = _kept.get()
    if kept is not None:
        yield kept.open(path, track)
        return
    with _open(path) as container:
        yield container


@contextlib.contextmanager
def _open(path: Path) -> Iterator[av.container.InputContainer]:
    """FFmpeg reads through Python: any name is good, and what the disk says stays an OSError."""
    with _File(path) as file, av.open(file, "r", metadata_errors="ignore") as container:
        yield container


class _File(io.FileIO):
    """A file in which FFmpeg may look for a place that cannot be: that is an error of FFmpeg's, not of the disk."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return -errno.EINVAL


def origin(container: av.container.InputContainer) -> float:
    """When the first of the file's tracks begins, in seconds of its own clock: its time 0 for people."""
    return (container.start_time or 0) / av.time_base


def picture_track(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first track of moving or still pictures; the cover of a sound file is none."""
    tracks = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(tracks, None)


def is_still(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether the track is a single picture, which is on the screen all the time."""
    return container.format.name == "image2" or container.format.name.endswith("_pipe") or stream.frames == 1


def _codec(stream: Any, what: str) -> Any:
    if stream.codec_context is None:
        raise DecodeError(f"FFmpeg does not know the codec of the {what} track")
    return stream.codec_context


def _seek(container: av.container.InputContainer, stream: av.stream.Stream, seconds: float) -> None:
    """To the key picture (or packet) before a time; a file that cannot be sought is read from its beginning."""
    with contextlib.suppress(av.FFmpegError):
        container.seek(int(seconds / float(stream.time_base or 1)), stream=stream)


def _check_complete(found: int, promised: int, what: str) -> None:
    if promised and found < (1 - TOLERATED) * promised:
        raise DecodeError(f"the file is cut short: {found} of {promised} {what}")
