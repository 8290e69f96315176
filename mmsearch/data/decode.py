"""From a source to arrays: media files, pictures, texts and arrays of numbers.

Imports neither torch nor ray (the optional decoder torchcodec does, when it is asked for): decode workers stay small.
"""

from __future__ import annotations

import codecs
import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from mmsearch.data.manifest import printable

VERSION = 2
"""Part of every clip's key: raised whenever the same file and settings would decode to other values."""

LAYOUT: dict[str, tuple[str, int]] = {
    "sound": ("<i2", 1),
    "frames": ("|u1", 4),
    "image": ("|u1", 4),
    "flow": ("|u1", 4),
    "text": ("|u1", 1),
    "series": ("<f4", 2),
    "vector": ("<f4", 1),
}
"""Per kind: dtype and number of axes of a stored clip."""

DECODERS = {"pyav": "mmsearch.data._pyav", "torchcodec": "mmsearch.data._torchcodec"}
"""What may read media files, each a module with `sound` and `shown`; see those of :mod:`mmsearch.data._pyav`."""

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings of the files that count as pictures in a folder."""

UV = "{uv}"
"""In the path of a stored flow: stands for `u` (to the right) and `v` (downwards)."""

STORED = ("codec", "quality")
"""Settings that say how an array is stored, and nothing about what is in it."""

_SLIMMEST = 64
"""A picture so many times as long as it is wide is no picture, and would need absurd memory to scale."""

Source = tuple[str, str, Mapping[str, Any]]
"""Kind, path and settings of one modality of a clip. The path is that of a file, of a folder of pictures, or has
`{uv}` in it for the two folders of a stored flow; it is empty where the settings have the `text` itself. Settings
are those of :data:`mmsearch.data.dataset.SETTINGS`, `row` for a row of a `.npy` file, and `decoder`.
:meth:`mmsearch.data.dataset.Dataset.sources` makes them of a clip."""


class DecodeError(Exception):
    """The source holds nothing usable; decoding it again would give the same."""


_UNUSABLE = (DecodeError, av.FFmpegError, ValueError, ArithmeticError)
"""What decoders raise because of what is in a file. FFmpeg reads through Python: an `OSError` that is FFmpeg's own is
the file's fault, and any other the disk's."""


def decode_clip(
    sources: Mapping[str, Source], start: float | None = None, end: float | None = None
) -> dict[str, np.ndarray]:
    """All modalities of one clip.

    Args:
        sources: per modality where it is and how it is decoded.
        start, end: the segment in seconds from the beginning of the file (None: its beginning, its end). It applies
            to sound and film; pictures, texts and arrays of numbers are taken whole.

    Returns:
        Per modality the array to store; a modality whose file has no such track is left out.

    Raises:
        DecodeError: a source cannot be decoded, or no modality was found at all.
        OSError: a file cannot be read now.
        MMSearchError: what is needed to decode it is not installed here.
    """
    arrays: dict[str, np.ndarray] = {}
    with _module("pyav").keeping_open():
        for name, (kind, path, settings) in sorted(sources.items(), key=lambda source: source[1][0] != "sound"):
            settings = {key: value for key, value in settings.items() if key not in (*STORED, "inline")}
            try:
                array = _DECODE[kind](Path(path), start=start, end=end, **settings)
            except _UNUSABLE as error:
                raise DecodeError(printable(f"{name}: {_said(error)}")) from None
            if array is not None:
                arrays[name] = np.ascontiguousarray(array, dtype=LAYOUT[kind][0])
    if not arrays:
        raise DecodeError(f"no {' and no '.join(sources)} in it")
    return {name: arrays[name] for name in sources if name in arrays}


def source_files(path: str | Path) -> list[Path]:
    """The files that a source's content lies in, in the order in which they are read.

    Raises:
        OSError: a folder cannot be read.
    """
    places = uv_folders(path) if UV in str(path) else [Path(path)]
    return [file for place in places for file in (_pictures_in(place) if place.is_dir() else [place])]


def uv_folders(path: str | Path) -> list[Path]:
    """The two folders of a stored flow."""
    return [Path(str(path).replace(UV, name)) for name in ("u", "v")]


def decode_sound(
    path: Path,
    *,
    rate: int,
    seconds: float,
    start: float | None = None,
    end: float | None = None,
    decoder: str = "pyav",
) -> np.ndarray | None:
    """The first sound track, mono; see :func:`mmsearch.data._pyav.sound`.

    Args:
        path: anything FFmpeg reads.
        rate: samples a second of the result.
        seconds: longer sounds are cut at this length.
        start, end: the segment in seconds.
        decoder: one of :data:`DECODERS`.

    Returns:
        int16 `[T]`, or None where the file has no sound track.
    """
    limit = round((seconds if end is None else min(seconds, end - (start or 0.0))) * rate)
    return _module(decoder).sound(path, rate, max(1, limit), start, end)


def decode_frames(
    path: Path,
    *,
    frames: int,
    size: int,
    start: float | None = None,
    end: float | None = None,
    decoder: str = "pyav",
) -> np.ndarray | None:
    """What is seen in the middle of each of `frames` equal parts of a film's time, or of a folder's pictures.

    The short side is scaled to `size`, the long side cut to its middle; the film's rotation is honoured and its
    transparency ignored. A clip with fewer pictures repeats some.

    Args:
        path: anything FFmpeg reads, a single picture too; or a folder of pictures, which are taken in the natural
            order of their names.
        frames: how many.
        size: side of the square in pixels.
        start, end: the segment in seconds.
        decoder: one of :data:`DECODERS`.

    Returns:
        uint8 `[frames, size, size, 3]`, or None where the file has no picture track (a cover does not count).
    """
    if path.is_dir():
        return _folder(path, frames, size)
    reformatter = VideoReformatter()
    pictures: list[np.ndarray] = []
    last = None
    for frame, _ in _module(decoder).shown(path, frames, start, end):
        pictures.append(pictures[-1] if frame is last else _square(frame, size, "rgb24", reformatter))
        last = frame
    return np.stack(pictures) if pictures else None


def decode_image(
    path: Path,
    *,
    size: int,
    row: int | None = None,
    start: float | None = None,
    end: float | None = None,
    decoder: str = "pyav",
) -> np.ndarray | None:
    """A picture as a clip of one frame.

    Args:
        path: a picture, a film or a folder (its middle picture), or a `.npy` file: grey `[H, W]` or `[N * N]`, or
            colours `[H, W, 3]`, as whole numbers from 0 to 255 or as fractions from 0 to 1.
        size: side of the square in pixels.
        row: the position of the picture along the first axis of the `.npy` file; None: the file is one picture.
        start, end: the segment of a film in seconds.
        decoder: one of :data:`DECODERS`.

    Returns:
        uint8 `[1, size, size, 3]`, or None where a film has no picture track.
    """
    if path.suffix.lower() != ".npy":
        return decode_frames(path, frames=1, size=size, start=start, end=end, decoder=decoder)
    colours = _colours(_array(path, row))
    return _square(av.VideoFrame.from_ndarray(colours, format="rgb24"), size, "rgb24", VideoReformatter())[None]


def decode_flow(
    path: Path,
    *,
    frames: int,
    size: int,
    start: float | None = None,
    end: float | None = None,
    decoder: str = "pyav",
) -> np.ndarray | None:
    """Optical flow: stored as two folders of grey pictures, else computed from a film with the extra `flow`.

    Args:
        path: with :data:`UV` in it two folders, whose pictures are scaled, not their values; else a film, of which
            the flow is computed at the stored size, between each picture and the one that comes next.
        frames, size, start, end, decoder: as for :func:`decode_frames`.

    Returns:
        uint8 `[frames, size, size, 2]` with 128 for no motion, or None where a film has no picture track.

    Raises:
        MMSearchError: OpenCV is not installed.
    """
    if UV in str(path):
        motions = uv_folders(path)
        counts = [len(_pictures_in(folder)) for folder in motions]
        if counts[0] != counts[1]:
            raise DecodeError(f"{counts[0]} pictures of u, but {counts[1]} of v")
        return np.concatenate([_folder(folder, frames, size)[..., :1] for folder in motions], axis=-1)
    from mmsearch.data._flow import dense_inverse_search, flow

    dense_inverse_search()
    reformatter = VideoReformatter()
    flows: list[np.ndarray] = []
    last = None
    for pair in _module(decoder).shown(path, frames, start, end, pairs=True):
        if pair != last:
            one, other = (_square(frame, size, "gray", reformatter) for frame in pair)
        flows.append(flows[-1] if pair == last else flow(one, other))
        last = pair
    return np.stack(flows) if flows else None


def decode_text(
    path: Path, *, bytes: int, text: str | None = None, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """A text as UTF-8 without a byte order mark, uint8 `[L]`; cut at the last whole character that fits.

    Args:
        path: a UTF-8 file; not read where `text` is given.
        bytes: longest text.
        text: the text itself.
        start, end: do not apply.
    """
    if text is None:
        with path.open("rb") as file:
            content = file.read(bytes + 4)
        try:
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(content, final=len(content) < bytes + 4)
        except UnicodeDecodeError as error:
            raise DecodeError(f"not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise DecodeError("the text is empty")
    if "\0" in text:
        raise DecodeError("not a text: it has NUL characters")
    whole = text.encode()[:bytes].decode(errors="ignore").encode()
    return np.frombuffer(whole, np.uint8)


def decode_series(
    path: Path, *, steps: int, row: int | None = None, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """A time series from a `.npy` file, float32 `[T, D]`.

    Args:
        path: `[T, D]`, or `[T]` for a single value a step.
        steps: longer series are cut at this length.
        row: the position of the series along a first axis before these; None: the file is one series.
        start, end: do not apply.
    """
    array = _array(path, row)
    if array.ndim not in (1, 2):
        raise DecodeError(f"a series has steps and values, found {array.dtype} {list(array.shape)}")
    return _finite(array[:steps].reshape(len(array[:steps]), -1))


def decode_vector(
    path: Path, *, row: int | None = None, start: float | None = None, end: float | None = None
) -> np.ndarray:
    """A feature vector from a `.npy` file, or its row `row`: float32 `[D]`. The segment does not apply."""
    array = _array(path, row)
    if array.ndim != 1:
        raise DecodeError(f"needs numbers along one axis, found {array.dtype} {list(array.shape)}")
    return _finite(array)


_DECODE: dict[str, Callable[..., np.ndarray | None]] = {
    "sound": decode_sound,
    "frames": decode_frames,
    "image": decode_image,
    "flow": decode_flow,
    "text": decode_text,
    "series": decode_series,
    "vector": decode_vector,
}


def _said(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def _module(decoder: str) -> Any:
    return importlib.import_module(DECODERS[decoder])


def _pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in the natural order of their names: `2.jpg` before `10.jpg`."""

    def natural(path: Path) -> tuple[list[int | str], str]:
        parts = re.split(r"([0-9]+)", path.name)
        return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name

    names = (path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.name[0] != ".")
    return sorted(names, key=natural)


def _folder(folder: Path, frames: int, size: int) -> np.ndarray:
    """Pictures from the middles of equal parts of a folder, uint8 `[frames, size, size, 3]`."""
    pictures = _pictures_in(folder)
    if not pictures:
        raise DecodeError("no pictures in the folder")
    chosen = [pictures[int((i + 0.5) / frames * len(pictures))] for i in range(frames)]
    decoded: dict[Path, np.ndarray] = {}
    for picture in dict.fromkeys(chosen):
        try:
            array = decode_frames(picture, frames=1, size=size)
        except _UNUSABLE as error:
            raise DecodeError(f"{picture.name}: {_said(error)}") from None
        if array is None:
            raise DecodeError(f"{picture.name}: not a picture")
        decoded[picture] = array[0]
    return np.stack([decoded[picture] for picture in chosen])


def _square(frame: av.VideoFrame, size: int, colours: str, reformatter: VideoReformatter) -> np.ndarray:
    """The middle of a picture, upright, with its short side scaled: uint8 `[size, size]`, or with colours."""
    short, long = sorted((frame.width, frame.height))
    if long > _SLIMMEST * short:
        raise DecodeError(f"a picture of {frame.width} x {frame.height} is too slim")
    scale = size / short
    width, height = max(size, round(frame.width * scale)), max(size, round(frame.height * scale))
    scaled = reformatter.reformat(frame, width=width, height=height, format=colours, threads=1).to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    return np.rot90(scaled[top : top + size, left : left + size], round(frame.rotation / 90))


def _array(path: Path, row: int | None) -> np.ndarray:
    """The array of a `.npy` file, or a row of it; mapped, so that only what is used is read."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:
        raise DecodeError(f"not an array in a .npy file: {str(error).splitlines()[0]}") from None
    if row is not None:
        if not array.ndim or row >= len(array):
            raise DecodeError(f"no row {row} in an array of {list(array.shape)}")
        array = array[row]
    if not array.size or array.dtype.kind not in "fiub":
        raise DecodeError(f"has no numbers: {array.dtype} {list(array.shape)}")
    return array


def _finite(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        numbers = np.asarray(array).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise DecodeError("has values that are not finite")
    return numbers


def _colours(array: np.ndarray) -> np.ndarray:
    """A picture given as numbers, as uint8 `[H, W, 3]`."""
    side = round(array.size**0.5)
    if array.ndim == 1 and side * side == array.size:
        array = array.reshape(side, side)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise DecodeError(f"a picture is [H, W], [H, W, 3] or [N * N], found {list(array.shape)}")
    most = 255 if array.dtype.kind in "iu" else 1
    if not (array.min() >= 0 and array.max() <= most):
        raise DecodeError(f"{array.dtype} values from {array.min():g} to {array.max():g}; they must be 0 to {most}")
    grey = array if most == 255 else np.round(array.astype(np.float64) * 255)
    colours = grey if array.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)
    return np.ascontiguousarray(colours, dtype=np.uint8)
