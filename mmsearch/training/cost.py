"""Cost in joint epochs: operations over those of one epoch of plain joint training of the same model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmsearch.batch import Batch, Modality
from mmsearch.fusion import OWN
from mmsearch.training.model import Model

_REFERENCE: dict[str, float] = {}


class CostMeter:
    """Counts floating-point operations: one batch of each kind of step is measured, the rest is multiplied.

    Attributes:
        per_clip: operations a clip, by kind of step.
        total: operations so far.
    """

    def __init__(self) -> None:
        self.per_clip: dict[str, float] = {}
        self.total = 0.0
        self._measuring = False

    @contextlib.contextmanager
    def count(self, kind: str, n_clips: int, seen: int | None = None) -> Iterator[None]:
        """Everything run inside is one step of this kind over `n_clips` clips; an inner call adds nothing.

        Args:
            kind: of step.
            n_clips: of all processes.
            seen: those that this process works on; None for all.
        """
        if self._measuring:
            yield
            return
        self._measuring = True
        try:
            if kind in self.per_clip:
                yield
            else:
                counter = FlopCounterMode(display=False)
                with counter:
                    yield
                self.per_clip[kind] = counter.get_total_flops() / (seen or n_clips)
        finally:
            self._measuring = False
        self.total += self.per_clip[kind] * n_clips

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"per_clip": dict(self.per_clip), "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self.per_clip, self.total = dict(state["per_clip"]), state["total"]


def joint_step_flops(
    document: Mapping[str, Any], modalities: Mapping[str, Modality], n_classes: int, batch: Batch
) -> float:
    """Operations a clip of one forward and backward pass of plain joint training.

    Args:
        document: whose encoders and fusion (concat for a method that brings its own) are meant.
        modalities: all of the dataset's.
        n_classes: C.
        batch: a training batch with every modality, on the CPU or the model's device.
    """
    fusion = {"name": "concat"} if document["fusion"]["name"] == OWN else document["fusion"]
    shapes = {u: list(x.shape[1:]) for u, x in batch.inputs.items()}
    key = json.dumps([document["encoders"], fusion, shapes, n_classes], sort_keys=True)
    if key not in _REFERENCE:
        model = Model({**document, "fusion": fusion}, modalities, n_classes).to(batch.label.device)
        counter = FlopCounterMode(display=False)
        with counter:
            F.cross_entropy(model(batch).logits, batch.label).backward()
        _REFERENCE[key] = counter.get_total_flops() / len(batch)
    return _REFERENCE[key]
