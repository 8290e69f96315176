"""Series of feature vectors into a small transformer."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.batch import Modality, View
from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.encoders._augment import TIME_DRAWS, mask_knob, shift_knob, shifted, stretch
from mmsearch.encoders._steps import StepTransformer, averaged, length_of
from mmsearch.knobs import knob


class StepNorm(nn.BatchNorm1d):
    """Batch norm over the real steps of a batch; with fewer than two of them it learns nothing of the batch."""

    def forward(self, x: Tensor, real: Tensor) -> Tensor:  # type: ignore[override]
        """`[B, T, D]` to the same, zero where bool `[B, T]` says that there is no step."""
        steps = x[real]
        if len(steps) > 1 or not self.training:
            steps = super().forward(steps)
        else:
            steps = F.batch_norm(steps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        y = torch.zeros_like(x, dtype=steps.dtype)
        y[real] = steps
        return y


class SeriesEncoder(EncoderModule):
    """Batch norm (where asked for), linear, transformer, mean over the real steps: those that are not all zeros."""

    def __init__(self, d_in: int, knobs: Series) -> None:
        super().__init__()
        self.width = knobs.width
        self.shift, self.time_mask = knobs.shift, knobs.time_mask
        self.standardise = StepNorm(d_in) if knobs.normalise else None
        self.project = nn.Linear(d_in, knobs.width)
        self.transformer = StepTransformer(knobs.width, knobs.layers, knobs.heads)

    def forward(self, x: Tensor, detail: bool = False, draws: Tensor | None = None) -> Encoded:
        """`[B, T, D_in]` to `[B, D]`; tokens are the steps."""
        if draws is not None:
            x = self.augmented(x, draws)
        real = (x != 0).any(-1)
        h = x if self.standardise is None else self.standardise(x, real)
        pooled, steps = self.transformer(self.project(h), real)
        return Encoded(pooled, steps if detail else None)

    def augmented(self, x: Tensor, draws: Tensor) -> Tensor:
        """Shifted in time, and a stretch of steps replaced by the clip's mean step."""
        if self.shift:
            x = shifted(x, self.shift, draws[:, 0])
        if self.time_mask:
            real = (x != 0).any(-1)
            hidden = real & stretch(length_of(x), self.time_mask, draws[:, 1:3], x.shape[1])
            x = torch.where(hidden[..., None], averaged(x, real)[0][:, None], x)
        return x


@dataclasses.dataclass
class Series(Encoder):
    """A small transformer on a series of feature vectors, averaged over its steps.

    A step that is all zeros is padding, at the end or at the beginning, and counts for nothing.
    """

    name: ClassVar[str] = "series"
    kind: ClassVar[str] = "series"
    summary: ClassVar[str] = "a small transformer on a series of feature vectors"

    width: int = knob(64, "width of the transformer", choices=(32, 64, 128, 256, 512), search=False)
    layers: int = knob(2, "layers of the transformer; 0: the mean of the projected steps", low=0, high=8, search=False)
    heads: int = knob(4, "heads of the attention", choices=(1, 2, 4, 8), search=False)
    length: int = knob(
        0, "steps a clip: a random crop while training, else the middle; 0: whole clips", low=0, high=4096, search=False
    )
    normalise: bool = knob(True, "batch norm on the vectors", search=False)
    shift: float = shift_knob()
    time_mask: float = mask_knob("steps of time")

    def build(self, modality: Modality) -> EncoderModule:
        """The network for the modality's vectors."""
        return SeriesEncoder(modality.shape[1], self)

    def view(self, training: bool) -> View:
        """Whole clips, or a crop."""
        augments = training and bool(self.shift or self.time_mask)
        crops = training and self.length > 0
        return View(length=self.length or None, random=crops, draws=TIME_DRAWS if augments else 0)
