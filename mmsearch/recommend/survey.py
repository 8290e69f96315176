"""The survey: what a few trainings say of a dataset before any sweep. The test part is not touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from mmsearch.data import ClipData
from mmsearch.methods.unimodal_teacher import ensemble
from mmsearch.recommend.decision import BASELINE
from mmsearch.recommend.inside import SELECT_CLIPS, TRAIN_CLIPS, encoder_hits
from mmsearch.recommend.knowledge import Descriptors
from mmsearch.recommend.measure import Reading, read, some
from mmsearch.search.space import Space
from mmsearch.training import train

Progress = Callable[[str, int, int], None]
"""What is trained, its epoch, and how many it has."""


def survey(
    data: ClipData, space: Space, *, device: str = "auto", progress: Progress = lambda what, epoch, of: None
) -> Descriptors:
    """Trains every modality alone and all of them together at the space's recipe, on the seed and fold of a search.

    Accuracies are those of the last epoch on val and select together, which nothing here is chosen by.

    Args:
        data: the clips.
        space: of the dataset; its epochs and its first fusion are what is trained.
        device: of the trainings.
        progress: told of every epoch.

    Raises:
        FloatingPointError: a training diverged.
    """
    judged = some(np.sort(np.concatenate([data.part("val"), data.part("select")])), SELECT_CLIPS, "survey")
    fitted = some(data.part("train"), TRAIN_CLIPS, "fit")

    def trained(what: str, document: Mapping[str, Any]) -> tuple[Reading, Reading]:
        run = train(dict(document), data, device=device)
        for result in run:
            progress(what, result.epoch, run.last)
        fit, judge = (read(run.predictor, data, rows, run.clips_at_once, hide=False) for rows in (fitted, judged))
        return fit, judge

    joint = trained(BASELINE, space.paper_documents(BASELINE)[0])
    alone = {u: trained(f"{u} alone", space.teacher(u, held=False)) for u in data.modalities}
    accuracy = {u: _accuracy(judge) for u, (_, judge) in alone.items()}
    z = {u: judge.output.unimodal[u] for u, (_, judge) in alone.items()}
    label = joint[1].batch.label
    averaged = ensemble(z, "prob", None, joint[1].batch.present)
    lacks = ~torch.stack(list(joint[1].batch.present.values())).all(0)
    return Descriptors(
        classes=len(data.classes),
        clips=sum(len(data.part(p)) for p in ("train", "val", "select")),
        missing=float(lacks.double().mean()),
        alone=accuracy,
        joint=_accuracy(joint[1]),
        ensemble=float((averaged.argmax(1) == label).double().mean()),
        gap={u: _gap(u, joint, alone[u]) for u in data.modalities},
    )


def _accuracy(reading: Reading) -> float:
    return float((reading.output.logits.argmax(1) == reading.batch.label).double().mean())


def _gap(u: str, joint: tuple[Reading, Reading], alone: tuple[Reading, Reading]) -> float | None:
    """What a probe of a modality's encoder inside joint training falls short of that of one trained alone."""
    hits = [encoder_hits(fit, judged, u) for fit, judged in (alone, joint)]
    return None if hits[0] is None or hits[1] is None else float(hits[0].mean() - hits[1].mean())
