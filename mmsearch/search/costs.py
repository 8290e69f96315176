"""What an epoch of each method costs, measured on random clips before anything is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsearch.batch import Modality
from mmsearch.data import ClipData
from mmsearch.data.dataset import ModalityConfig
from mmsearch.encoders import ENCODERS
from mmsearch.methods import METHODS
from mmsearch.search.space import Space
from mmsearch.training import train
from mmsearch.training.cost import joint_step_flops

CLIPS = 12
"""Random clips, half of which are trained on, in one batch."""

MOST = 2e11
"""Operations that a plan may spend on measuring; where it takes more, costs are assumed unless they are needed."""

HELD = 1 / 8
"""The share of train that a document with `held` leaves out."""

_SECONDS, _BYTES, _STEPS, _WIDTH = 3.0, 64, 64, 128


@dataclasses.dataclass(frozen=True)
class Costs:
    """What an epoch costs.

    Attributes:
        of: per method the joint epochs of one of its epochs, once for every paper setting of its own knobs.
        measured: on random clips, or assumed.
    """

    of: dict[str, list[float]]
    measured: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dataclasses.asdict(self)

    def mean(self, method: str) -> float:
        """Over the paper settings of a method."""
        return statistics.fmean(self.of[method])


def declared(configs: Mapping[str, ModalityConfig]) -> dict[str, Modality]:
    """The modalities of a dataset as far as they are known before a clip is decoded.

    A sound counts as 3 s, a text as 64 bytes, a series as 64 steps of 128 values, a vector as 128 values.
    """
    return {u: Modality(u, c.kind, _shape(c), float(c.settings.get("rate", 0))) for u, c in configs.items()}


def _shape(config: ModalityConfig) -> tuple[int, ...]:
    s = config.settings
    match config.kind:
        case "sound":
            return (round(s["rate"] * min(s["seconds"], _SECONDS)),)
        case "frames":
            return (s["frames"], s["size"], s["size"], 3)
        case "image":
            return (1, s["size"], s["size"], 3)
        case "flow":
            return (s["frames"], s["size"], s["size"], 2)
        case "text":
            return (min(s["bytes"], _BYTES),)
        case "series":
            return (min(s["steps"], _STEPS), _WIDTH)
    return (_WIDTH,)


def assumed(space: Space) -> Costs:
    """A joint epoch an epoch, the part of the modalities that a method trains, nothing where it trains nothing."""
    of: dict[str, list[float]] = {}
    for method in space.methods:
        for document in _settings(space, method):
            instance = METHODS.create(document["method"])
            trains = any(stage.share > 0 for stage in instance.stages())
            used = instance.modalities(list(space.modalities))
            of.setdefault(method, []).append(trains * len(used) / len(space.modalities))
    return Costs(of, measured=False)


def measured(space: Space, *, whatever_it_takes: bool = False) -> Costs:
    """Trains every paper setting for a few epochs on a batch of noise and counts the operations.

    The first fusion that goes with a method stands for all, since the reference has it too. Teachers are not counted.

    Args:
        space: with the modalities as the clips are stored.
        whatever_it_takes: measure also where that takes more than :data:`MOST` operations; else they are assumed.
    """
    data = _noise(space.modalities)
    settings = {method: list(_settings(space, method)) for method in space.methods}
    epochs = 2 * len(space.modalities)
    joint = settings["joint"][0]
    views = {u: ENCODERS.create(joint["encoders"][u]).view(training=True) for u in space.modalities}
    with torch.random.fork_rng([]):
        batch = next(data.batches(data.part("train")[:2], 2, views, seed=0))
        a_clip = joint_step_flops(joint, space.modalities, 2, batch)
    large = a_clip * CLIPS / 2 * epochs * sum(map(len, settings.values())) > MOST
    if large and not whatever_it_takes:
        return assumed(space)
    with tempfile.TemporaryDirectory() as folder, _threads(None if large else 1):
        teachers = _teachers(space, data, Path(folder))
        of = {m: [_cost(d, data, teachers) for d in documents] for m, documents in settings.items()}
    return Costs(of, measured=True)


@contextlib.contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """So many threads for torch; None: as many as there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _settings(space: Space, method: str) -> Iterator[dict[str, Any]]:
    """A document for every paper setting of a method's own knobs."""
    seen = []
    for document in space.paper_documents(method):
        if document["method"] not in seen:
            seen.append(document["method"])
            yield document


def _cost(document: Mapping[str, Any], data: ClipData, teachers: Mapping[tuple[str, bool], Path]) -> float:
    """Joint epochs of an epoch of a document, had it trained on all the clips that are there.

    A method that acts late or in turns trains twice as many epochs as there are modalities, any other one two.
    """
    method = METHODS.create(document["method"])
    needs_held, epochs = method.needs_held, 2 * len(data.modalities) if method.earliest else 2
    small: dict[str, Any] = {"data": None, "epochs": epochs, "batch_size": CLIPS, "post_hoc": [], "held": needs_held}
    run = train({**document, **small}, data, teachers={u: teachers[u, needs_held] for u in document["teachers"]})
    cost = 0.0
    for result in run:
        cost = result.cost_joint_epochs
    whole = len(data.part("train")) / len(run.rows)
    return cost / epochs * whole * (1 - HELD if document["held"] else 1)


def _teachers(space: Space, data: ClipData, folder: Path) -> dict[tuple[str, bool], Path]:
    """Untrained teachers, by modality and whether they leave out the held clips."""
    made = {}
    for u in space.modalities:
        for held in (False, True):
            made[u, held] = folder / f"{u}-{held}"
            document = space.teacher(u, held=held)
            train({**document, "data": None, "post_hoc": [], "held": held}, data).save_weights(made[u, held])
    return made


def _noise(modalities: Mapping[str, Modality]) -> ClipData:
    rng = np.random.default_rng(0)
    inputs = {u: [_clip(m, rng) for _ in range(CLIPS)] for u, m in modalities.items()}
    split = ["test" if i % 4 == 3 else None for i in range(CLIPS)]
    return ClipData.from_arrays(inputs, np.arange(CLIPS) // 2 % 2, modalities=modalities, split=split)


def _clip(modality: Modality, rng: np.random.Generator) -> Any:
    if modality.kind == "sound":
        return rng.uniform(-1, 1, modality.shape).astype(np.float32)
    if modality.kind == "text":
        return "".join(rng.choice(list("abcde "), modality.shape))
    if modality.kind in ("series", "vector"):
        return rng.normal(size=modality.shape).astype(np.float32)
    return rng.integers(0, 256, modality.shape, dtype=np.uint8)
