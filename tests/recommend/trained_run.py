"""A run's folder with small models that were really trained and confirmed, without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.batch import Modality
from mmsearch.data import ClipData
from mmsearch.methods import METHODS
from mmsearch.recommend import card
from mmsearch.search.job import Job
from mmsearch.search.journal import Journal
from mmsearch.training import resolve, train, trial_id

RECIPE = {"epochs": 6, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.05}}
SWEEP: dict[str, Any] = {"arguments": {}, "created": "2025-06-15T15:06:40+00:00"}


def vectors(
    signal: Mapping[str, float],
    *,
    clips: int = 240,
    classes: int = 3,
    width: int = 8,
    missing: float = 0.0,
    group: Sequence[int] | None = None,
) -> ClipData:
    """Feature vectors in memory, each class at a place of its own and as far from the others as `signal` says.

    Args:
        signal: per modality how far apart the classes lie, in standard deviations of a feature.
        clips, classes, width: sizes.
        missing: share of the clips that lack the last modality.
        group: of the clips.
    """
    rng = np.random.default_rng(0)
    label = np.arange(clips) % classes
    inputs, kinds, present = {}, {}, {}
    for u, far in signal.items():
        places = rng.normal(size=(classes, width))
        inputs[u] = (far * places[label] + rng.normal(size=(clips, width))).astype(np.float32)
        kinds[u] = Modality(u, "vector", (width,))
        present[u] = np.ones(clips, bool)
    present[list(signal)[-1]] = rng.random(clips) >= missing
    return ClipData.from_arrays(inputs, label, modalities=kinds, present=present, group=group)


def confirm(
    folder: Path, data: ClipData, documents: Sequence[Mapping[str, Any]], *, seeds: int = 1, alone: bool = True
) -> dict[str, Any]:
    """Trains every document on every seed, after each modality alone; gives the recommendation.

    Args:
        folder: the run's, made here.
        data: the clips.
        documents: of the finalists, plain joint training among them, without seed and teachers.
        seeds: how many.
        alone: whether the modalities are trained alone first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder) as journal:
        for i in range(seeds):
            place = {"seed": 1000 + i, "fold": 1 + i, "data": data.digest}
            teachers = {}
            for u in data.modalities if alone else ():
                document = resolve({**RECIPE, **place, "method": {"name": "unimodal", "modality": u}}, data.modalities)
                teachers[u] = trial_id(document)
                _trained(folder, journal, data, document)
            for given in documents:
                needs = METHODS.create(given.get("method", {"name": "joint"})).needs_teachers
                document = resolve(
                    {**RECIPE, **given, **place, **({"teachers": teachers} if needs else {})}, data.modalities
                )
                _trained(folder, journal, data, document)
        return card.build(journal.events, data, SWEEP)


def choose(recommendation: dict[str, Any], label: str) -> dict[str, Any]:
    """The same with another finalist recommended, whatever the seeds say."""
    assert label in {f["label"] for f in recommendation["finalists"]}
    return {**recommendation, "decision": {**recommendation["decision"], "label": label}}


def _trained(folder: Path, journal: Journal, data: ClipData, document: dict[str, Any]) -> None:
    identity = trial_id(document)
    asked = {"stage": "confirm", "method": document["method"]["name"], "fusion": document["fusion"]["name"]}
    journal.append(
        {"event": "asked", "trial_id": identity, "document": document, "params": {}, "why": "confirmation", **asked}
    )
    job = Job(
        folder,
        identity,
        "confirm",
        document,
        open_run=lambda doc, path, teachers, device, micro: train(doc, data, teachers=teachers, device="cpu"),
    )
    while True:
        for event in job.step():
            assert event["event"] != "failed", event
            if event["event"] == "finished":
                journal.append({"event": "told", "trial_id": identity, "state": "complete", "select": event["select"]})
                return
            journal.append({**event, "trial_id": identity})
