"""What a trained model does on clips: with some modalities hidden, on worse clips, and how its losses pull."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Modality, Output
from mmsearch.data import ClipData
from mmsearch.data.quality import DIALS, Dials, FeatureDials, PictureDials, Quality, SoundDials, TextDials
from mmsearch.diagnostics.agreement import cosine, gradients
from mmsearch.diagnostics.shapley import subsets
from mmsearch.knobs import knobs_of
from mmsearch.training import Predictor, seed_of
from mmsearch.training.evaluation import autocast
from mmsearch.training.model import tokens_of

LEVELS: dict[type[Dials], tuple[float, ...]] = {
    SoundDials: (20.0, 10.0, 0.0, -10.0),
    PictureDials: (1.0, 2.0, 3.0, 5.0),
    FeatureDials: (20.0, 10.0, 0.0, -10.0),
    TextDials: (0.1, 0.25, 0.5, 0.75),
}
"""At which levels of a modality's dial the robustness is measured, from mild to harsh."""

Subset = frozenset[str]


@dataclasses.dataclass
class Reading:
    """A model's predictions of clips, on the CPU.

    Attributes:
        output: with all modalities that a clip has.
        batch: the clips, without inputs.
        hits: bool `[n]` for every subset of the model's modalities, the empty one included: whether a clip is
            predicted right from these alone.
    """

    output: Output
    batch: Batch
    hits: dict[Subset, Tensor]

    @property
    def label(self) -> np.ndarray:
        """`[n]`."""
        return self.batch.label.numpy()

    def present(self, u: str) -> np.ndarray:
        """Bool `[n]`: who has a modality."""
        return self.batch.present[u].numpy()

    def own_hits(self, u: str) -> np.ndarray:
        """Whether the model's own prediction from a modality is right, bool, of the clips that have it."""
        right = self.output.unimodal[u].argmax(1) == self.batch.label
        return right.numpy()[self.present(u)]

    def features(self, u: str) -> np.ndarray:
        """Float32 `[n, D_u]`."""
        return self.output.features[u].numpy()


def some(rows: np.ndarray, most: int, purpose: str) -> np.ndarray:
    """At most so many of the rows, drawn without replacement, ascending; the same ones at every call."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed_of(0, "diagnosis", purpose)).choice(rows, most, replace=False))


def read(predictor: Predictor, data: ClipData, rows: np.ndarray, at_once: int, *, hide: bool = True) -> Reading:
    """The model's predictions, and with `hide` those from every subset of its modalities.

    A hidden modality is one that the clip lacks, as the model saw it in training.

    Args:
        predictor: the model.
        data: the clips.
        rows: which of them.
        at_once: clips a forward pass.
        hide: whether subsets are wanted.
    """
    U = frozenset(predictor.modalities)
    wanted = [frozenset(), *subsets(list(predictor.modalities))] if hide else [U]
    outs: list[Output] = []
    batches: list[Batch] = []
    hits: dict[Subset, list[Tensor]] = {S: [] for S in wanted}
    for batch in _batches(predictor, data, rows, at_once):
        for S, out in _hidden(predictor, batch.to(predictor.device), wanted):
            hits[S].append(out.logits.argmax(1).cpu() == batch.label)
            if S == U:
                outs.append(dataclasses.replace(out, tokens={}).each(Tensor.cpu))
        batches.append(batch.without_inputs())
    return Reading(Output.cat(outs), Batch.cat(batches), {S: torch.cat(h) for S, h in hits.items()})


def _batches(predictor: Predictor, data: ClipData, rows: np.ndarray, at_once: int) -> Iterator[Batch]:
    views = predictor.views(training=False)
    with contextlib.closing(data.batches(rows, at_once, views, device=predictor.device)) as batches:
        yield from batches


@torch.no_grad()
def _hidden(predictor: Predictor, batch: Batch, wanted: Iterable[Subset]) -> Iterator[tuple[Subset, Output]]:
    """The output with only some modalities present; encoders that exchange nothing run once for all of them."""
    model, method = predictor.model.eval(), predictor.method
    with autocast(predictor.device, predictor.document["precision"]):
        whole = None if model.kind.mixes else model.encode(batch)
        for S in wanted:
            there = {u: p & (u in S) for u, p in batch.present.items()}
            encoded = whole or model.encode(dataclasses.replace(batch, present=there))
            features = {u: torch.where(there[u][:, None], e.pooled, 0) for u, e in encoded.items()}
            out = method.predict(model, model.fuse(features, tokens_of(encoded)))
            yield S, out.float()


def robustness(
    predictor: Predictor, data: ClipData, rows: np.ndarray, at_once: int
) -> dict[str, list[tuple[float | None, np.ndarray]]]:
    """Which clips are predicted right where one modality is made worse, level by level, the clips as they are first.

    The noise of a clip is a function of its id, the same for every model.

    Returns:
        By dial (as in `sound/snr_db`) pairs of a level (None where the clean one is infinite) and bool `[n]`.
    """

    def right(clips: ClipData) -> np.ndarray:
        return read(predictor, clips, rows, at_once, hide=False).hits[frozenset(predictor.modalities)].numpy()

    clean = right(data)
    found = {}
    for u, modality in predictor.modalities.items():
        dials = DIALS[modality.kind]
        paper = float(knobs_of(dials)[dials.level].paper)
        curve: list[tuple[float | None, np.ndarray]] = [(None if math.isinf(paper) else paper, clean)]
        curve += [(level, right(data.worse(_quality(modality, level)))) for level in LEVELS[dials]]
        found[f"{u}/{dials.level}"] = curve
    return found


def _quality(modality: Modality, level: float) -> Quality:
    """One dial turned, of the development part alone."""
    dials = DIALS[modality.kind]
    turned: dict[str, Any] = {dials.level: level}
    return Quality(seed=seed_of(0, "diagnosis", "quality"), on="train", modalities={modality.name: dials(**turned)})


def agreement(
    predictor: Predictor, data: ClipData, rows: np.ndarray, at_once: int, *, batches: int
) -> dict[str, list[float]]:
    """Per modality the cosine of the gradients of L_mm = CE(z, y) and L_u = CE(z_u, y) on its encoder, batch by batch.

    In evaluation mode, without augmentation. Where a fusion's unimodal logits come from probe heads, they are read
    from features that let the gradient through. A batch in which either gradient is zero is left out.

    Args:
        predictor: the model.
        data: the clips.
        rows: those it was trained on.
        at_once: clips a batch.
        batches: how many, drawn by seed.
    """
    model, method = predictor.model.eval(), predictor.method
    cosines: dict[str, list[float]] = {u: [] for u in predictor.modalities}
    parameters = {u: [p for p in model.encoders[u].parameters() if p.requires_grad] for u in predictor.modalities}
    for batch in _batches(predictor, data, some(rows, at_once * batches, "gradients"), at_once):
        batch = batch.to(predictor.device)
        with torch.enable_grad(), autocast(predictor.device, predictor.document["precision"]):
            encoded = model.encode(batch)
            features = {u: e.pooled for u, e in encoded.items()}
            out = method.predict(model, model.fuse(features, tokens_of(encoded))).float()
            L_mm = F.cross_entropy(out.logits, batch.label)
        for u, theta in parameters.items():
            here = batch.present[u]
            if not theta or not here.any():
                continue
            g = gradients(L_mm, theta)
            h = gradients(F.cross_entropy(out.unimodal[u][here], batch.label[here]), theta)
            if u in model.probes and not any(x.any() for x in h):
                z_u = model.probes[u](features[u].float())
                h = gradients(F.cross_entropy(z_u[here], batch.label[here]), theta)
            found = cosine(g, h)
            if found is not None:
                cosines[u].append(found)
    return cosines
