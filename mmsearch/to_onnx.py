"""A trained model as an ONNX file, for programs without Python; compared with the model where ONNX Runtime is there."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.batch import Batch, Modality
from mmsearch.data.clips import ClipData
from mmsearch.errors import MMSearchError
from mmsearch.trained import TrainedModel
from mmsearch.training import Predictor

TOLERANCE = 1e-4
"""The largest difference in a probability between ONNX Runtime and the model."""

_TRACED, _CHECKED = 3, (1, 4)
"""Clips of the batch that is traced, and of those that are checked: the size of a batch must not be baked in."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """An ONNX file.

    Attributes:
        inputs: per name its shape; the first axis is the batch. Of every modality its decoded clips as in
            :class:`mmsearch.batch.Batch`, and bool `<modality>_present`.
        outputs: names: `probabilities` `[B, C]`, and `probabilities_<modality>` of what each says alone.
        difference: the largest of a probability from the model's own over random clips; None where ONNX Runtime is not
            installed.
    """

    inputs: dict[str, list[int | None]]
    outputs: list[str]
    difference: float | None


class _Graph(nn.Module):
    """From tensors to probabilities, on a copy of the model on the CPU."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.method, self.model = predictor.method, copy.deepcopy(predictor.model).cpu()
        self.names = list(predictor.modalities)
        head = self.model.fusion
        if self.model.kind.post_hoc:
            fitted = bool(head.fitted)  # a graph cannot branch on a tensor
            del head.fitted
            head.fitted = fitted

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Inputs, then presence, of every modality."""
        count = len(self.names)
        nothing = torch.zeros(tensors[0].shape[0], dtype=torch.int64)
        inputs, present = (dict(zip(self.names, t, strict=True)) for t in (tensors[:count], tensors[count:]))
        out = self.model(Batch(inputs, nothing, nothing, present))
        out = self.method.predict(self.model, out)
        return F.softmax(out.logits, 1), *(F.softmax(out.unimodal[u], 1) for u in self.names)


def export_onnx(model: TrainedModel, file: Path) -> Exported:
    """Writes the model as ONNX, in float32, for batches of any size.

    Classes, modalities and how their files are decoded stand in the file's metadata, as JSON.

    Args:
        model: is left as it is.
        file: where to; an older one is replaced when the new one is whole and has passed the check.

    Raises:
        MMSearchError: the packages are not installed, ONNX has no form for something in the model, ONNX Runtime
            disagrees with it, or the file cannot be written.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise MMSearchError(f"export: needs {' and '.join(missing)}; pip install 'mmsearch[onnx]'")
    graph = _Graph(model.predictor).eval()
    names = [*graph.names, *(f"{u}_present" for u in graph.names)]
    outputs = ["probabilities", *(f"probabilities_{u}" for u in graph.names)]
    traced = _clips(model, _TRACED)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                graph,
                traced,
                dynamo=True,
                input_names=names,
                output_names=outputs,
                dynamic_shapes={"tensors": tuple({0: torch.export.Dim.DYNAMIC} for _ in traced)},
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props.update(_metadata(model))
    except Exception as error:
        raise MMSearchError(f"export: this model has no form in ONNX: {_reason(error)}") from error
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with _quiet():
            program.save(str(fresh), external_data=False)
        difference = _difference(graph, model, fresh)
        if difference is not None and not difference <= TOLERANCE:
            raise MMSearchError(
                f"export: ONNX Runtime's probabilities differ from the model's by {difference:.2g}, more than "
                f"{TOLERANCE:g}; no file was written"
            )
        fresh.replace(file)
    except (OSError, ValueError) as error:
        raise MMSearchError(f"{file}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        fresh.unlink(missing_ok=True)
    shapes = {name: [None, *t.shape[1:]] for name, t in zip(names, traced, strict=True)}
    return Exported(shapes, outputs, difference)


def _clips(model: TrainedModel, clips: int) -> tuple[Tensor, ...]:
    """Random clips as the graph takes them, with every modality; the last of several has the first alone."""
    rng = np.random.default_rng(clips)
    present = {u: np.ones(clips, bool) for u in model.modalities}
    for u in list(present)[1:]:
        present[u][-1] = clips == 1
    data = ClipData.from_arrays(
        {u: [_random(m, rng) for _ in range(clips)] for u, m in model.modalities.items()},
        np.zeros(clips),
        modalities=model.modalities,
        classes=model.classes,
        split=["test"] * clips,
        present=present,
    )
    batch = next(data.batches(np.arange(clips), clips, model.predictor.views(training=False)))
    return *(batch.inputs[u].contiguous() for u in model.modalities), *(batch.present[u] for u in model.modalities)


def _random(modality: Modality, rng: np.random.Generator) -> np.ndarray:
    if modality.kind == "sound":
        return rng.integers(-(2**14), 2**14, modality.shape).astype(np.int16)
    if modality.kind in ("frames", "image", "flow"):
        return rng.integers(0, 256, modality.shape).astype(np.uint8)
    if modality.kind == "text":
        return rng.integers(97, 123, modality.shape).astype(np.uint8)
    return rng.normal(size=modality.shape).astype(np.float32)


def _difference(graph: _Graph, model: TrainedModel, file: Path) -> float | None:
    """The largest difference of ONNX Runtime's probabilities from the model's; of a missing modality's none."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    worst = 0.0
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for clips in _CHECKED:
            tensors = _clips(model, clips)
            with torch.no_grad():
                expected = graph(*tensors)
            feed = {i.name: t.numpy() for i, t in zip(session.get_inputs(), tensors, strict=True)}
            found = session.run(None, feed)
            here = [torch.ones(clips, dtype=torch.bool), *tensors[len(graph.names) :]]
            for a, b, rows in zip(expected, found, here, strict=True):
                worst = max(worst, float(np.abs(a.numpy() - b)[rows.numpy()].max()))
    except Exception as error:
        raise MMSearchError(f"export: ONNX Runtime cannot run this model: {_reason(error)}") from error
    return worst


def _metadata(model: TrainedModel) -> dict[str, str]:
    """What whoever feeds the file must know."""
    modalities = [m for m in model.config["modalities"] if m["name"] in model.modalities]
    return {
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "modalities": json.dumps(modalities, ensure_ascii=False),
        "document": json.dumps(model.predictor.document),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks to programmers, on every channel."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of the error at the bottom of it."""
    chain: list[Any] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    lines = _lines(chain[::-1])
    return lines[0].rstrip(".:") if lines else type(error).__name__


def _lines(errors: Sequence[BaseException]) -> list[str]:
    return [line.strip() for error in errors for line in str(error).splitlines() if line.strip()]
