"""From a source file to arrays, with PyAV. Imports neither torch nor ray: decode workers stay small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

VERSION = 1
"""Part of every clip's key: raised whenever the same file and settings would decode to other values."""

LAYOUT: dict[str, tuple[str, int]] = {
    "sound": ("<i2", 1),
    "frames": ("|u1", 4),
    "image": ("|u1", 4),
    "vector": ("<f4", 1),
}
"""Per kind that can be decoded: dtype and number of axes of a stored clip."""


class DecodeError(Exception):
    """The file holds nothing usable; decoding it again would give the same."""


def decode_clip(
    sources: Mapping[str, tuple[str, str, Mapping[str, Any]]], start: float | None = None, end: float | None = None
) -> dict[str, np.ndarray]:
    """All modalities of one clip.

    Args:
        sources: per modality its kind, file and decode settings.
        start, end: the segment in seconds from the beginning of the file (None: its beginning, its end).

    Returns:
        Per modality the array to store; a modality whose file has no such track is left out.

    Raises:
        DecodeError: a file cannot be decoded, or no modality was found at all.
        OSError: a file cannot be read now.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, (kind, path, settings) in sources.items():
        try:
            array = _DECODERS[kind](Path(path), start=start, end=end, **settings)
        except OSError:
            raise
        except DecodeError as error:
            raise DecodeError(f"{name}: {error}") from None
        except av.FFmpegError as error:
            raise DecodeError(f"{name}: {error.strerror}") from None
        except ValueError as error:
            raise DecodeError(f"{name}: {error}") from None
        if array is not None:
            arrays[name] = np.ascontiguousarray(array, dtype=LAYOUT[kind][0])
    if not arrays:
        raise DecodeError(f"no {' and no '.join(sources)} in it")
    return arrays


def decode_sound(
    path: Path, *, rate: int, seconds: float, start: float | None = None, end: float | None = None
) -> np.ndarray | None:
    """The first sound track, mono.

    Args:
        path: anything FFmpeg reads.
        rate: samples a second of the result.
        seconds: longer sounds are cut at this length.
        start, end: the segment in seconds.

    Returns:
        int16 `[T]`, or None where the file has no sound track.
    """
    limit = round(seconds * rate)
    if end is not None:
        limit = min(limit, round((end - (start or 0.0)) * rate))
    with av.open(str(path), metadata_errors="ignore") as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        tick, origin = float(stream.time_base or 0), _origin(container)
        if start:
            container.seek(int((start + origin) / tick), stream=stream)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        pieces: list[np.ndarray] = []
        skip: int | None = None
        total = packets = 0
        for packet in container.demux(stream):
            packets += packet.size > 0
            for frame in packet.decode():
                if skip is None:
                    first = start or 0.0 if frame.time is None else frame.time - origin
                    skip = round((start - first) * rate) if start else 0
                for piece in resampler.resample(frame):
                    pieces.append(piece.to_ndarray()[0])
                    total += pieces[-1].size
            if skip is not None and total - skip >= limit:
                break
        else:
            if start is None and end is None:
                _check_complete(packets, stream.frames, "sound packets")
            if skip is not None:
                pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    skip = skip or 0
    wave = wave[skip:] if skip >= 0 else np.concatenate([np.zeros(-skip, np.int16), wave])
    if not wave.size:
        raise DecodeError("the sound track is empty" if not start else f"there is no sound after {start:g} s")
    return wave[:limit]


def decode_frames(
    path: Path, *, frames: int, size: int, start: float | None = None, end: float | None = None
) -> np.ndarray | None:
    """Frames spread evenly over the first picture track: the middle ones of `frames` equal parts.

    The short side is scaled to `size`, the long side cut to its middle. A clip with fewer frames repeats some.

    Args:
        path: anything FFmpeg reads, a single picture too.
        frames: how many.
        size: side of the square in pixels.
        start, end: the segment in seconds.

    Returns:
        uint8 `[frames, size, size, 3]`, or None where the file has no picture track (a cover does not count).
    """
    with av.open(str(path), metadata_errors="ignore") as container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            return None
        stream = streams[0]
        stream.codec_context.thread_count = 1
        tick, origin = float(stream.time_base or 0), _origin(container)
        if start:
            container.seek(int((start + origin) / tick), stream=stream)
        packets: list[av.Packet] = []
        for packet in container.demux(stream):
            if end is not None and packet.dts is not None and packet.dts * tick - origin >= end:
                break
            if packet.size:
                packets.append(packet)
        if start is None and end is None:
            _check_complete(len(packets), stream.frames, "frames")
        times = sorted(packet.pts for packet in packets if packet.pts is not None)
        counted = len(times) < len(packets)
        if counted:
            if start is not None or end is not None:
                raise DecodeError("no timestamps in it: start and end cannot be found")
            times = list(range(len(packets)))
        low, high = -np.inf if start is None else start, np.inf if end is None else end
        times = [t for t in times if counted or low <= t * tick - origin < high]
        if not times:
            raise DecodeError("no frames" if not start else f"no frames after {start:g} s")
        wanted = [times[int((i + 0.5) / frames * len(times))] for i in range(frames)]
        pictures: list[np.ndarray] = []
        reformatter = VideoReformatter()
        last = None
        decoded = (frame for packet in [*packets, None] for frame in stream.decode(packet))
        for number, frame in enumerate(decoded):
            last = frame
            time = number if counted or frame.pts is None else frame.pts
            if time >= wanted[len(pictures)]:
                picture = _picture(frame, size, reformatter)
                while len(pictures) < frames and time >= wanted[len(pictures)]:
                    pictures.append(picture)
            if len(pictures) == frames:
                break
        if last is None:
            raise DecodeError("no frame could be decoded")
        if len(pictures) < frames:
            pictures += [_picture(last, size, reformatter)] * (frames - len(pictures))
    return np.stack(pictures)


def decode_image(path: Path, *, size: int, start: float | None = None, end: float | None = None) -> np.ndarray | None:
    """A picture (of a video: the middle frame) as a clip of one frame, uint8 `[1, size, size, 3]`."""
    return decode_frames(path, frames=1, size=size, start=start, end=end)


def decode_vector(path: Path, *, start: float | None = None, end: float | None = None) -> np.ndarray:
    """A feature vector from a `.npy` file, float32 `[D]`; the segment does not apply."""
    with path.open("rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "fiub":
        raise DecodeError(f"needs numbers along one axis, found {array.dtype} {list(array.shape)}")
    vector = array.astype(np.float32)
    if not np.isfinite(vector).all():
        raise DecodeError("has values that are not finite")
    return vector


_DECODERS: dict[str, Callable[..., np.ndarray | None]] = {
    "sound": decode_sound,
    "frames": decode_frames,
    "image": decode_image,
    "vector": decode_vector,
}


def _origin(container: av.container.InputContainer) -> float:
    return (container.start_time or 0) / av.time_base


def _check_complete(found: int, promised: int, what: str) -> None:
    if promised and found < 0.9 * promised:
        raise DecodeError(f"the file is cut short: {found} of {promised} {what}")


def _picture(frame: av.VideoFrame, size: int, reformatter: VideoReformatter) -> np.ndarray:
    scale = size / min(frame.width, frame.height)
    width, height = max(size, round(frame.width * scale)), max(size, round(frame.height * scale))
    scaled = reformatter.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    return np.rot90(scaled[top : top + size, left : left + size], round(frame.rotation / 90))
