"""One shard of the clip store: its files, how they are written and how its index is read.

Needs numpy and pyarrow; Pillow where pictures are kept as JPEG. On disk, below `shards` of a store:

* `<shard>.<modality>.bin`: the clips of one modality one after the other, as little-endian arrays in C order (codec
  `raw`) or as the JPEG files of their frames (codec `jpeg`; what has no three colours, such as flow, as a grey
  picture with its channels side by side);
* `<shard>.<digest>.arrow`: an Arrow IPC file with a row a clip: `key`, `reason` (why it was set aside, or null), and
  per modality `<modality>.offset` (-1: the clip lacks it), `<modality>.shape`, and for JPEG `<modality>.frames`, the
  bytes of each frame. The schema's metadata has `format`, and `modalities` as JSON: dtype, axes, bytes, codec and
  checksum of each. It is written last, so a killed decode loses the shard under way and nothing else. `<digest>` is
  that of the file's own bytes.

Digests are blake2b of 16 bytes as hex, checksums CRC-32 as hex. Shard names are unique: any number of processes may
add to one store. Still read: format 2, whose checksums were such digests, and format 1, which had `raw` alone, no
checksums, and no digest in the index's name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import struct
import uuid
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmsearch.data.places import Place, Seen, said
from mmsearch.errors import MMSearchError

FORMAT = 3
"""Of the shards that are written now."""

CODECS = ("raw", "jpeg")


class DamagedError(Exception):
    """A shard cannot be read as it was written."""


class Crc32:
    """A CRC-32 with the face of `hashlib`: a checksum of large files, at a third of a digest's cost."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: Any) -> None:
        """Takes more bytes."""
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        """Of all bytes so far."""
        return f"{self._value:08x}"


def hasher(expected: str | None = None) -> Any:
    """What computes a digest, or whatever this digest or checksum was computed with."""
    return Crc32() if expected is not None and len(expected) == 8 else hashlib.blake2b(digest_size=16)


def digest(data: bytes) -> str:
    """The digest of some bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


@dataclasses.dataclass
class Part:
    """One modality of a shard.

    Attributes:
        file: name of its `.bin`.
        dtype: of the arrays.
        codec: one of :data:`CODECS`.
        bytes: of the file.
        checksum: of the file; None in format 1.
        offset: int64 `[N]`, first byte of every clip; -1 where the clip lacks the modality.
        shape: int64 `[N, axes]`.
        cuts: for JPEG int64 `[frames + 1]`: where the frames of the file begin, and its end.
        first: for JPEG int64 `[N]`: position in `cuts` of every clip's first frame.
    """

    file: str
    dtype: np.dtype
    codec: str
    bytes: int
    checksum: str | None
    offset: np.ndarray
    shape: np.ndarray
    cuts: np.ndarray | None = None
    first: np.ndarray | None = None

    def read(self, data: np.ndarray, row: int) -> np.ndarray:
        """The clip in a row; with the codec raw a view of the file's bytes.

        Args:
            data: uint8, all of the file.
            row: of a clip that has the modality.

        Raises:
            DamagedError: what is in the file is no such array.
        """
        shape, offset = self.shape[row], int(self.offset[row])
        if self.codec == "jpeg":
            return self._pictures(data, row, range(int(shape[0])))
        end = offset + int(shape.prod()) * self.dtype.itemsize
        try:
            return data[offset:end].view(self.dtype).reshape(shape)
        except ValueError:
            raise DamagedError(f"{self.file}: a clip lies beyond its end") from None

    def take(self, data: np.ndarray, row: int, picks: Sequence[int] | np.ndarray) -> np.ndarray:
        """As :meth:`read`, but only these positions of the first axis; of JPEG no other frame is decoded."""
        if self.codec == "jpeg":
            return self._pictures(data, row, picks)
        return self.read(data, row)[np.asarray(picks)]

    def _pictures(self, data: np.ndarray, row: int, picks: Sequence[int] | np.ndarray) -> np.ndarray:
        from PIL import Image

        assert self.cuts is not None and self.first is not None
        count, height, width, channels = self.shape[row].tolist()
        wanted = [range(count)[int(pick)] for pick in picks]
        decoded: dict[int, np.ndarray] = {}
        for pick in dict.fromkeys(wanted):
            start, end = self.cuts[self.first[row] + pick : self.first[row] + pick + 2]
            try:
                picture = Image.open(io.BytesIO(data[start:end].data), formats=["JPEG"])
                if (picture.height, picture.width * len(picture.mode)) != (height, width * channels):
                    raise ValueError("not of its size")
                decoded[pick] = _unfold(np.asarray(picture), channels)
            except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
                raise DamagedError(f"{self.file}: a frame is no JPEG file: {said(error)}") from None
        return np.stack([decoded[pick] for pick in wanted])


@dataclasses.dataclass
class Shard:
    """A shard as its index tells it.

    Attributes:
        name: the beginning of the names of its files.
        index: the name of its index.
        keys: of its clips.
        reasons: per clip why it was set aside, or None.
        parts: by modality.
    """

    name: str
    index: str
    keys: list[str]
    reasons: list[str | None]
    parts: dict[str, Part]

    @property
    def files(self) -> list[str]:
        """All of its files, the index first: the order in which they are removed."""
        return [self.index, *(part.file for part in self.parts.values())]

    def missing(self, seen: Mapping[str, Seen]) -> str:
        """What a listing lacks of its files, empty where they are all there with all their bytes."""
        for part in self.parts.values():
            if part.file not in seen:
                return f"{part.file} is missing"
            if seen[part.file].size != part.bytes:
                return f"{part.file} has {seen[part.file].size} bytes, not {part.bytes}"
        return ""


def index_digest(file: str) -> str | None:
    """The digest that the name of an index has; None in format 1."""
    return file.removesuffix(".arrow").partition(".")[2] or None


def read_index(file: str, data: bytes) -> Shard:
    """Reads a shard's index.

    Args:
        file: its name.
        data: its bytes.

    Raises:
        DamagedError: they are not what was written.
        MMSearchError: a newer mmsearch wrote it.
    """
    name = file.partition(".")[0]
    if index_digest(file) not in (None, digest(data)):
        raise DamagedError("its index is damaged")
    try:
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
        metadata = table.schema.metadata or {}
        version = int(metadata.get(b"format", 1))
        if version > FORMAT:
            raise MMSearchError(
                f"{file}: written by a newer mmsearch (format {version}; this one reads up to {FORMAT}): upgrade it, "
                "or use another store"
            )
        table.validate(full=True)
        layouts = json.loads(metadata[b"modalities"])
        parts = {modality: _part(f"{name}.{modality}.bin", table, modality, layouts[modality]) for modality in layouts}
        return Shard(name, file, table["key"].to_pylist(), table["reason"].to_pylist(), parts)
    except (pa.ArrowException, LookupError, ValueError, TypeError, OSError, AttributeError, ArithmeticError) as error:
        raise DamagedError(f"its index cannot be read ({said(error)})") from None


def _part(file: str, table: pa.Table, modality: str, layout: Mapping[str, Any]) -> Part:
    dtype, codec, size = np.dtype(layout["dtype"]), layout.get("codec", "raw"), int(layout["bytes"])
    if dtype.kind not in "iuf" or codec not in CODECS:
        raise ValueError(f"{modality}: dtype {dtype}, codec {codec}")
    offset = table[f"{modality}.offset"].to_numpy()
    flat = table[f"{modality}.shape"].combine_chunks().flatten().to_numpy()
    shape = flat.reshape(table.num_rows, int(layout["axes"]))
    part = Part(file, dtype, codec, size, layout.get("checksum"), offset, shape)
    whole = bool((shape >= 0).all() and (offset >= -1).all())
    if codec == "jpeg":
        frames = table[f"{modality}.frames"].combine_chunks()
        counts = np.where(offset < 0, 0, shape[:, 0])
        part.cuts = np.concatenate([[0], np.cumsum(frames.flatten().to_numpy(), dtype=np.int64)])
        part.first = np.cumsum(counts) - counts
        whole &= bool(counts.sum() == len(part.cuts) - 1 and part.cuts[-1] == size and dtype == np.uint8)
    else:
        end = offset + shape.prod(axis=1) * dtype.itemsize
        whole &= bool(((offset < 0) | (end <= size)).all())
    if not whole:
        raise ValueError(f"{modality}: clips beyond its end")
    return part


class ShardWriter:
    """Writes one shard: :meth:`add` clips, then :meth:`commit`. Used as a context; what is not committed vanishes.

    The bytes go to files of this machine first; a store elsewhere gets them when the shard is complete.

    Args:
        place: the store's.
        layouts: per modality dtype and number of axes.
        jpeg: modalities whose frames are kept as JPEG, with the quality (1 to 95); they need uint8 `[F, H, W, C]`.

    Raises:
        OSError: the files cannot be made.
    """

    def __init__(
        self, place: Place | str | Path, layouts: Mapping[str, tuple[str, int]], jpeg: Mapping[str, int] | None = None
    ) -> None:
        self._place = place if isinstance(place, Place) else Place(place)
        self._name = uuid.uuid4().hex
        self._keys: list[str] = []
        self._reasons: list[str | None] = []
        self._parts: dict[str, _PartWriter] = {}
        self._put: list[str] = []
        folder = self._place.staging()
        for name, (dtype, axes) in layouts.items():
            path = folder / f".{self._name}.{name}.tmp"
            self._parts[name] = _PartWriter(path, dtype, axes, (jpeg or {}).get(name))

    def add(self, key: str, arrays: Mapping[str, np.ndarray], reason: str | None = None) -> None:
        """One clip; a modality that is not in `arrays` is absent. With a reason: a clip set aside.

        Raises:
            OSError: the bytes cannot be written.
        """
        self._keys.append(key)
        self._reasons.append(reason)
        for name, part in self._parts.items():
            part.add(arrays.get(name))

    def commit(self) -> None:
        """Makes the shard visible, all of it or nothing.

        Raises:
            OSError: it cannot be written.
        """
        columns: dict[str, pa.Array] = {
            "key": pa.array(self._keys, pa.string()),
            "reason": pa.array(self._reasons, pa.string()),
        }
        layouts = {}
        for name, part in self._parts.items():
            layouts[name] = part.finish()
            columns |= {f"{name}.{column}": values for column, values in part.columns().items()}
        metadata = {"format": str(FORMAT), "modalities": json.dumps(layouts)}
        table = pa.table(columns).replace_schema_metadata(metadata)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        index = sink.getvalue().to_pybytes()
        for name, part in self._parts.items():
            self._put.append(f"shards/{self._name}.{name}.bin")
            self._place.put(self._put[-1], part.path)
        self._place.write(f"shards/{self._name}.{digest(index)}.arrow", index)
        self._put = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        for part in self._parts.values():
            part.discard()
        for name in self._put:
            with contextlib.suppress(OSError):
                self._place.delete(name)


class _PartWriter:
    """The bytes of one modality, and where every clip lies in them."""

    def __init__(self, path: Path, dtype: str, axes: int, quality: int | None) -> None:
        self.path = path
        self._dtype, self._axes, self._quality = dtype, axes, quality
        self._file, self._hash, self._size = path.open("wb"), Crc32(), 0
        self._offset: list[int] = []
        self._shape: list[Sequence[int]] = []
        self._frames: list[list[int]] = []

    def add(self, array: np.ndarray | None) -> None:
        self._offset.append(-1 if array is None else self._size)
        self._shape.append((0,) * self._axes if array is None else array.shape)
        pieces: list[Any] = []
        if array is not None:
            array = np.ascontiguousarray(array, self._dtype)
            pieces = (
                [array.reshape(-1).view(np.uint8)]
                if self._quality is None
                else [_jpeg(f, self._quality) for f in array]
            )
        for piece in pieces:
            self._file.write(piece)
            self._hash.update(piece)
            self._size += len(piece)
        self._frames.append([len(piece) for piece in pieces])

    def finish(self) -> dict[str, Any]:
        """Writes everything out; returns what the index says of the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {
            "dtype": self._dtype,
            "axes": self._axes,
            "bytes": self._size,
            "codec": "raw" if self._quality is None else "jpeg",
            "checksum": self._hash.hexdigest(),
        }

    def columns(self) -> dict[str, pa.Array]:
        flat = np.array(self._shape, np.int64).reshape(-1)
        columns = {
            "offset": pa.array(self._offset, pa.int64()),
            "shape": pa.FixedSizeListArray.from_arrays(pa.array(flat), self._axes),
        }
        if self._quality is not None:
            columns["frames"] = pa.array(self._frames, pa.list_(pa.int32()))
        return columns

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


def _jpeg(frame: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    height, width, channels = frame.shape
    picture = frame if channels == 3 else frame.transpose(0, 2, 1).reshape(height, channels * width)
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()


def through_jpeg(frames: np.ndarray, quality: int) -> np.ndarray:
    """What a store that keeps JPEGs gives back of frames: uint8 `[F, H, W, channels]`."""
    from PIL import Image

    pictures = (Image.open(io.BytesIO(_jpeg(frame, quality)), formats=["JPEG"]) for frame in frames)
    return np.stack([_unfold(np.asarray(picture), frames.shape[3]) for picture in pictures])


def _unfold(picture: np.ndarray, channels: int) -> np.ndarray:
    """The inverse of what :func:`_jpeg` does to a frame whose channels are no colours."""
    if picture.ndim == 3:
        return picture
    return picture.reshape(len(picture), channels, -1).transpose(0, 2, 1)
