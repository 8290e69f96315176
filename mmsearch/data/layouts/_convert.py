"""Files of kinds that are not decoded, rewritten once as `.npy` or as folders of pictures below the output folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmsearch.data._pickles import load_pickle, load_torch
from mmsearch.errors import MMSearchError

FREQUENCY_BINS = (128, 129, 257)
"""Frequency axes of the spectrograms that people publish: filter banks, STFT of 256, STFT of 512."""

JPEG = b"\xff\xd8"
"""How a JPEG picture begins."""


class Unreadable(MMSearchError):
    """A source that is not what it should be."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """One file or folder to write.

    Attributes:
        source: what it is made from.
        write: called with the source and the path to write.
    """

    source: Path
    write: Callable[[Path, Path], None]

    def done(self, target: Path) -> bool:
        """Whether `target` is there and not older than its source."""
        try:
            return target.stat().st_mtime >= self.source.stat().st_mtime
        except OSError:
            return False

    def run(self, target: Path) -> None:
        """Writes `target` under a temporary name and renames it.

        Raises:
            Unreadable: the source is not what it should be.
            MMSearchError: the target cannot be written.
        """
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove(fresh)
            self.write(self.source, fresh)
            if target.is_dir():
                _remove(target)
            fresh.replace(target)
        except MMSearchError as error:
            raise Unreadable(str(error)) from None
        except OSError as error:
            raise MMSearchError(f"{target}: cannot be written: {error.strerror or error}") from None
        finally:
            _remove(fresh)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes a `.npy` file at exactly this path."""
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def series_file(source: Path, fresh: Path) -> None:
    """A stored spectrogram (`.pt`, `.pkl`) as a series, float32 `[T, D]`, in a `.npy` file.

    A spectrogram whose first axis is its frequencies (128, 129 or 257 of them) is turned over; one with a leading
    axis of length 1 loses it.

    Raises:
        MMSearchError: the file holds no two-dimensional array of numbers.
    """
    held = load_torch(source) if source.suffix == ".pt" else load_pickle(source)
    try:
        array = np.asarray(held, dtype=np.float32)
    except (TypeError, ValueError):
        raise MMSearchError(f"{source}: holds a {type(held).__name__}, not an array of numbers") from None
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or not array.size:
        raise MMSearchError(f"{source}: needs an array of two dimensions, found {list(array.shape)}")
    if array.shape[0] in FREQUENCY_BINS and array.shape[1] not in FREQUENCY_BINS:
        array = array.T
    save_array(fresh, array)


def need_h5py(source: Path) -> None:
    """Refuses to go on without h5py.

    Raises:
        MMSearchError: it is not installed; names the extra that brings it.
    """
    if importlib.util.find_spec("h5py") is None:
        raise MMSearchError(f"{source}: reading .hdf5 needs h5py: pip install 'mmsearch[h5]'")


def picture_folder(source: Path, fresh: Path) -> None:
    """The JPEG pictures in dataset `video` of an `.hdf5` file, as `frame_00001.jpg` and so on in a folder.

    Raises:
        MMSearchError: the file holds no such pictures.
    """
    import h5py

    try:
        with h5py.File(source, "r") as file:
            pictures = [p if isinstance(p, bytes) else np.asarray(p).tobytes() for p in file["video"]]
    except (OSError, KeyError, TypeError) as error:
        raise MMSearchError(f"{source}: holds no pictures in a dataset 'video': {error}") from None
    if not pictures or not all(picture.startswith(JPEG) for picture in pictures):
        raise MMSearchError(f"{source}: dataset 'video' holds something else than JPEG pictures")
    fresh.mkdir()
    for number, picture in enumerate(pictures, start=1):
        (fresh / f"frame_{number:05d}.jpg").write_bytes(picture)
