"""Trained models on raw files: `mmsearch.load(folder).predict(files)`."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mmsearch.batch import Modality
from mmsearch.data import decode
from mmsearch.data.clips import ClipData
from mmsearch.data.dataset import array_row
from mmsearch.data.manifest import printable
from mmsearch.data.places import each, said
from mmsearch.data.shards import through_jpeg
from mmsearch.errors import MMSearchError, nearest
from mmsearch.training import Predictor
from mmsearch.training.bundle import load_bundle
from mmsearch.training.evaluation import pick_device

_NOT_KNOWN = "Invalid data found"

BATCH = 32
"""Clips that are decoded and predicted at a time."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip whose modalities lie in files of their own, or which is a segment of its file.

    Attributes:
        files: per modality its file, as a cell of a manifest names it (`features.npy#7` is a row of an array); of a
            modality of inline texts the text itself. A modality that is left out is missing.
        start, end: the segment in seconds; None for the file's own.
        name: what its prediction is called; empty: its first file.
    """

    files: Mapping[str, str | Path]
    start: float | None = None
    end: float | None = None
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of a clip.

    Attributes:
        path: the clip, as it was asked for.
        label: the most probable class; None where the clip could not be read.
        probabilities: by class, adding up to 1; empty where the clip could not be read.
        unimodal: the same by what each modality that the clip has says alone.
        error: why the clip could not be read; None where it could.
    """

    path: str
    label: str | None
    probabilities: dict[str, float]
    unimodal: dict[str, dict[str, float]]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)


class TrainedModel:
    """A model that a sweep handed over; made by :func:`load`.

    Attributes:
        classes: names.
        modalities: those that the model reads, by name.
        config: the content of its `config.json`.
        predictor: the model itself, for whoever has batches.
    """

    def __init__(self, predictor: Predictor, config: Mapping[str, Any]) -> None:
        self.predictor = predictor
        self.config = dict(config)
        self.classes: list[str] = predictor.classes
        self.modalities: dict[str, Modality] = predictor.modalities
        self._decoding = {d["name"]: d for d in config["modalities"] if d["name"] in predictor.modalities}

    @property
    def columns(self) -> dict[str, str]:
        """Per modality the column of a manifest that has its files or texts.

        Raises:
            MMSearchError: the model does not know how its clips were decoded.
        """
        unknown = [u for u, d in self._decoding.items() if "settings" not in d]
        if unknown:
            raise MMSearchError(
                f"the model does not say how {', '.join(unknown)} was decoded, so raw files cannot be read for it: "
                "its clips were no files, or an older mmsearch listed them"
            )
        return {u: d["column"] for u, d in self._decoding.items()}

    def predict(
        self,
        clips: str | Path | Iterable[str | Path | Mapping[str, str | Path] | Clip],
        *,
        batch_size: int = BATCH,
        device: str | torch.device = "auto",
    ) -> list[Prediction]:
        """Predicts raw files, decoded as the training's were. A file that cannot be read does not stop the others.

        A modality that a clip lacks counts as missing, as it does in training.

        Args:
            clips: files with every modality of the model; mappings from modality to file; or :class:`Clip` s.
            batch_size: clips that are decoded and predicted at a time.
            device: `auto` is the GPU where there is one.

        Returns:
            One prediction a clip, in order.

        Raises:
            MMSearchError: a file for several modalities that lie in different columns, an unknown modality, or a
                library that decoding needs is not installed.
        """
        asked = [self._clip(c) for c in ([clips] if isinstance(clips, str | Path) else clips)]
        self.predictor.model.to(pick_device(device))
        found: list[Prediction] = []
        for start in range(0, len(asked), batch_size):
            found += self._predict(asked[start : start + batch_size])
        return found

    def _clip(self, given: str | Path | Mapping[str, str | Path] | Clip) -> Clip:
        columns = self.columns
        if isinstance(given, str | Path):
            if len(set(columns.values())) > 1 or any(d["inline"] for d in self._decoding.values()):
                places = ", ".join(f"{u} from column {c}" for u, c in columns.items())
                raise MMSearchError(
                    f"{given}: a file alone is no clip for this model, which reads {places}; give a manifest with "
                    "these columns, or in Python a file for each modality"
                )
            return Clip(dict.fromkeys(columns, given))
        clip = given if isinstance(given, Clip) else Clip(given)
        for u in clip.files:
            if u not in self.predictor.all_modalities:
                raise MMSearchError(f"the model has no modality {u!r}{nearest(u, self.modalities)}")
        return clip

    def _predict(self, clips: Sequence[Clip]) -> list[Prediction]:
        decoded = each(self._decoded, clips)
        there = [i for i, d in enumerate(decoded) if isinstance(d, dict)]
        said_of = self._of_arrays([d for d in decoded if isinstance(d, dict)]) if there else []
        by_clip = dict(zip(there, said_of, strict=True))
        found = []
        for i, (clip, result) in enumerate(zip(clips, decoded, strict=True)):
            name = clip.name or printable(str(next(iter(clip.files.values()), "")))
            if isinstance(result, str):
                found.append(Prediction(name, None, {}, {}, result))
            else:
                joint, unimodal = by_clip[i]
                found.append(Prediction(name, max(joint, key=lambda c: joint[c]), joint, unimodal))
        return found

    def _decoded(self, clip: Clip) -> dict[str, np.ndarray] | str:
        """The arrays that the store would have of a clip, or why it has none."""
        sources: dict[str, decode.Source] = {}
        for u, d in self._decoding.items():
            given = str(clip.files.get(u, ""))
            if not given:
                continue
            path, row = array_row(given, d["kind"])
            if d["inline"]:
                sources[u] = (d["kind"], "", {**d["settings"], "text": given})
            else:
                sources[u] = (d["kind"], path, {**d["settings"], **({} if row is None else {"row": row})})
        if clip.end is not None and clip.end <= (clip.start or 0.0):
            return f"end {clip.end:g} s is not after start {clip.start or 0:g} s"
        if not sources:
            return f"it has no file for {' or '.join(self._decoding)}"
        try:
            arrays = decode.decode_clip(sources, clip.start, clip.end)
        except decode.DecodeError as error:
            return _plainly(str(error), sources)
        except MMSearchError:
            raise
        except OSError as error:
            return f"cannot be read: {said(error).lower()}"
        except Exception as error:
            return f"{type(error).__name__}: {said(error)}"
        for u, array in arrays.items():
            if reason := _misfit(array, self.modalities[u]):
                return f"{u}: {reason}"
            if self._decoding[u]["settings"].get("codec") == "jpeg":
                arrays[u] = through_jpeg(array, self._decoding[u]["settings"]["quality"])
        return arrays

    def _of_arrays(
        self, decoded: Sequence[Mapping[str, np.ndarray]]
    ) -> list[tuple[dict[str, float], dict[str, dict[str, float]]]]:
        """Joint and unimodal probabilities of every clip."""
        nothing = np.zeros(0)
        data = ClipData.from_arrays(
            {u: [clip.get(u, nothing) for clip in decoded] for u in self.modalities},
            np.zeros(len(decoded)),
            modalities=self.modalities,
            classes=self.classes,
            split=["test"] * len(decoded),
            present={u: np.array([u in clip for clip in decoded]) for u in self.modalities},
        )
        views = self.predictor.views(training=False)
        out = self.predictor.predict(next(data.batches(np.arange(len(decoded)), len(decoded), views)))
        joint = F.softmax(out.logits, dim=1).tolist()
        alone = {u: F.softmax(z, dim=1).tolist() for u, z in out.unimodal.items()}
        return [
            (
                dict(zip(self.classes, joint[i], strict=True)),
                {u: dict(zip(self.classes, alone[u][i], strict=True)) for u in alone if u in clip},
            )
            for i, clip in enumerate(decoded)
        ]


def load(folder: str | Path) -> TrainedModel:
    """The model that a sweep handed over in `RUN/best`, or that `mmsearch train` has written.

    Raises:
        MMSearchError: no model is there, it is damaged, or a newer version wrote it.
    """
    predictor, config = load_bundle(folder)
    if config.get("decode_version") not in (None, decode.VERSION):
        warnings.warn(
            f"{folder}: its clips were decoded by another version of the decoder; predictions may differ a little",
            stacklevel=2,
        )
    return TrainedModel(predictor, config)


def _plainly(reason: str, sources: Mapping[str, decode.Source]) -> str:
    """Why a clip has no arrays, where FFmpeg only says that it does not know the file."""
    if _NOT_KNOWN not in reason:
        return reason
    empty = any(Path(path).is_file() and not Path(path).stat().st_size for _, path, _ in sources.values())
    return "the file is empty" if empty else "the file is damaged, or is no film, sound or picture"


def _misfit(array: np.ndarray, modality: Modality) -> str:
    """Why a decoded array is not what the model takes; empty where it is."""
    axes = {"vector": slice(0, 1), "series": slice(1, 2)}.get(modality.kind)
    if axes is None or array.shape[axes] == modality.shape[axes]:
        return ""
    return f"has {array.shape[-1]} values, the model takes {modality.shape[-1]}"
