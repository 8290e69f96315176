"""CMU-MOSEI and CMU-MOSI: sentiment of sentences, as features of vision, audio and text."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmsearch.data._pickles import load_pickle
from mmsearch.data.layouts import Layout, Listing, Row
from mmsearch.data.layouts._convert import Conversion
from mmsearch.errors import MMSearchError
from mmsearch.knobs import knob

FILES = {
    ("mosei", False): ("mosei_senti_data_noalign.pkl", "unaligned_50.pkl"),
    ("mosei", True): ("mosei_senti_data.pkl", "aligned_50.pkl"),
    ("mosi", False): ("mosi_data_noalign.pkl", "mosi_raw.pkl", "unaligned_50.pkl"),
    ("mosi", True): ("mosi_data.pkl", "aligned_50.pkl"),
}
SPLITS = {"train": "train", "valid": "val", "test": "test"}
MODALITIES = ("vision", "audio", "text")
LABELS = ("labels", "regression_labels")
CLASSES = ["negative", "nonnegative"]
"""Sentiment below 0, and 0 or more."""


@dataclasses.dataclass
class Mosei(Layout):
    """The feature pickle of MulT or MMSA: per split the arrays vision, audio, text `[N, T, D]`, labels and ids.

    Sentiment below 0 is negative, 0 and above nonnegative. Values that are not finite, such as the -inf in audio,
    become 0. The arrays are written as `.npy` files, one a modality, train, valid and test after each other. Sentences
    of one video are a group where the ids say which video it is.
    """

    name: ClassVar[str] = "mosei"
    summary: ClassVar[str] = "CMU-MOSEI or CMU-MOSI feature pickles: vision, audio and text"
    expects: ClassVar[str] = (
        "mosei_senti_data_noalign.pkl, mosei_senti_data.pkl, mosi_data_noalign.pkl, mosi_data.pkl,\n"
        "unaligned_50.pkl or aligned_50.pkl; or the pickle itself as ROOT"
    )

    corpus: str = knob("mosei", "which of the two", choices=("mosei", "mosi"), search=False)
    aligned: bool = knob(False, "features aligned to words", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        path = self._file(root)
        parts = read_features(path)
        sizes = {split: len(part["labels"]) for split, part in parts.items()}
        listing = Listing(path.parent, self.corpus, CLASSES)
        listing.notes = ["Sentiment below 0 is negative, 0 and above nonnegative. Encoder: series."]
        longest = {m: max(part[m].shape[1] for part in parts.values()) for m in MODALITIES}
        listing.modalities = {m: {"kind": "series", "column": m, "steps": longest[m]} for m in MODALITIES}
        for modality in MODALITIES:
            arrays = [part[modality] for part in parts.values()]
            odd = sum(int(np.size(array) - np.isfinite(array).sum()) for array in arrays)
            if odd:
                listing.warnings.append(f"{modality}: {odd} values that are not finite become 0")
            write = functools.partial(_write_series, arrays)
            listing.conversions[f"arrays/{modality}.npy"] = Conversion(path, write)
        first = 0
        for split, part in parts.items():
            self._add(listing, part, SPLITS[split], first)
            first += sizes[split]
        return listing

    def _file(self, root: Path) -> Path:
        if root.is_file():
            return root
        names = FILES[self.corpus, self.aligned]
        found = next((root / name for name in names if (root / name).is_file()), None)
        if found is None:
            raise MMSearchError(
                f"{root}: none of {', '.join(names)} here; see --corpus and --aligned, or name the file"
            )
        return found

    def _add(self, listing: Listing, part: Mapping[str, Any], split: str, first: int) -> None:
        for i, (sentiment, (name, video)) in enumerate(zip(part["labels"], part["ids"], strict=True)):
            clip_id = f"{split}_{i:05d}" + (f"_{name}" if name else "")
            if math.isnan(sentiment):
                listing.missing.add("no label", clip_id)
                continue
            cells = {modality: f"arrays/{modality}.npy#{first + i}" for modality in MODALITIES}
            listing.rows.append(Row(clip_id, CLASSES[int(sentiment >= 0)], cells, split, video))


def read_features(path: Path) -> dict[str, dict[str, Any]]:
    """Per split the three arrays, `labels` as a flat array and `ids` as pairs of name and video.

    Raises:
        MMSearchError: the pickle is not of this form, or its arrays differ in length.
    """
    held = load_pickle(path)
    if not isinstance(held, Mapping) or not all(isinstance(held.get(split), Mapping) for split in SPLITS):
        raise MMSearchError(f"{path}: needs a dict with {', '.join(SPLITS)}")
    return {split: _part(f"{path}: {split}", held[split]) for split in SPLITS}


def _part(where: str, held: Mapping[str, Any]) -> dict[str, Any]:
    labels_key = next((key for key in LABELS if key in held), LABELS[0])
    for key in (*MODALITIES, labels_key):
        array = held.get(key)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise MMSearchError(f"{where}: {key} must be an array of numbers, not {type(array).__name__}")
        if key in MODALITIES and array.ndim != 3:
            raise MMSearchError(f"{where}: {key} needs the axes clip, time and feature, found {list(array.shape)}")
    clips = len(held[labels_key])
    labels = held[labels_key].reshape(clips, -1)[:, 0].astype(np.float64)
    ids = held.get("id")
    for key, count in [(m, len(held[m])) for m in MODALITIES] + [("id", clips if ids is None else len(ids))]:
        if count != clips:
            raise MMSearchError(f"{where}: {count} clips in {key}, but {clips} labels")
    pairs = [_names(one) for one in ids] if ids is not None else [("", "")] * clips
    if not all(video for _, video in pairs):
        pairs = [(name, "") for name, _ in pairs]
    return {**{m: held[m] for m in MODALITIES}, "labels": labels, "ids": pairs}


def _names(one: Any) -> tuple[str, str]:
    """Name and video of an id: `video$_$clip`, or an array of video, start and end; no video where neither fits."""
    parts = [x.decode("utf-8", "replace") if isinstance(x, bytes) else str(x) for x in np.ravel(one).tolist()]
    video = parts[0].partition("$_$")[0] if len(parts) == 1 and "$_$" in parts[0] else ""
    return "_".join(parts).replace("$_$", "_"), video or (parts[0] if len(parts) > 1 else "")


def _write_series(arrays: list[np.ndarray], source: Path, fresh: Path) -> None:
    """One float32 `.npy` of all clips, shorter arrays padded with zeros at the end; not finite becomes 0."""
    steps = max(array.shape[1] for array in arrays)
    widths = {array.shape[2] for array in arrays}
    if len(widths) > 1:
        raise MMSearchError(f"{source}: the splits have {' and '.join(map(str, sorted(widths)))} features")
    shape = (sum(map(len, arrays)), steps, widths.pop())
    whole = np.lib.format.open_memmap(fresh, mode="w+", dtype="<f4", shape=shape)
    first = 0
    for array in arrays:
        part = whole[first : first + len(array), : array.shape[1]]
        np.copyto(part, array, casting="unsafe")
        part[~np.isfinite(part)] = 0
        first += len(array)
    whole.flush()
