"""AV-MNIST: handwritten digits and spectrograms of spoken ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmsearch.data.layouts import Layout, Listing, Row
from mmsearch.data.layouts._convert import Conversion, save_array
from mmsearch.errors import MMSearchError

SPLITS = ("train", "test")
CLASSES = [str(digit) for digit in range(10)]


@dataclasses.dataclass
class AVMNIST(Layout):
    """The arrays of MFAS and MultiBench, referred to by row.

    Nothing is copied, but for pictures that are neither whole numbers from 0 to 255 nor fractions from 0 to 1: the
    published ones are sums of principal components and leave that range a little.
    """

    name: ClassVar[str] = "avmnist"
    summary: ClassVar[str] = "AV-MNIST as the arrays of MFAS and MultiBench"
    expects: ClassVar[str] = (
        "image/train_data.npy, audio/train_data.npy, train_labels.npy; the same with test;\n"
        "images [N, 784] or [N, 28, 28] from 0 to 255, audio [N, 112, 112]"
    )

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        wanted = [f"{m}/{split}_data.npy" for split in SPLITS for m in ("image", "audio")]
        wanted += [f"{split}_labels.npy" for split in SPLITS]
        lost = [name for name in wanted if not (root / name).is_file()]
        if lost:
            raise MMSearchError(f"{root}: no {' and no '.join(lost)} here")
        listing = Listing(root, "avmnist", CLASSES)
        listing.modalities = {
            "image": {"kind": "image", "column": "image", "size": 28},
            "audio": {"kind": "series", "column": "audio"},
        }
        listing.notes = ["Audio: encoder map (the spectrogram as a picture)."]
        for split in SPLITS:
            self._add(listing, root, split)
        return listing

    def _add(self, listing: Listing, root: Path, split: str) -> None:
        labels = _array(root / f"{split}_labels.npy").reshape(-1)
        files = {m: f"{m}/{split}_data.npy" for m in ("image", "audio")}
        for file in files.values():
            clips = len(_array(root / file))
            if clips != len(labels):
                raise MMSearchError(f"{root / file}: {clips} clips, but {len(labels)} labels")
        source = root / files["image"]
        if not _plain(_array(source)):
            files["image"] = f"arrays/image_{split}.npy"
            listing.conversions[files["image"]] = Conversion(source, _write_pictures)
        for row, label in enumerate(labels):
            if label not in range(10):
                raise MMSearchError(f"{root / f'{split}_labels.npy'}: row {row}: label {label} is not a digit")
            cells = {m: f"{file}#{row}" for m, file in files.items()}
            listing.rows.append(Row(f"{split}_{row:05d}", CLASSES[int(label)], cells, split))


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MMSearchError(f"{path}: not a .npy array: {error}") from None
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise MMSearchError(f"{path}: needs numbers, found {array.dtype} {list(array.shape)}")
    return array


def _plain(pictures: np.ndarray) -> bool:
    """Whether the numbers can be read as pictures as they are."""
    most = 255 if pictures.dtype.kind in "iu" else 1
    return not pictures.size or bool(pictures.min() >= 0 and pictures.max() <= most)


def _write_pictures(source: Path, fresh: Path) -> None:
    """Numbers from about 0 to 255 as whole ones."""
    save_array(fresh, np.clip(np.rint(_array(source)), 0, 255).astype(np.uint8))
