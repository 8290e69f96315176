"""The interface of a sampler."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np


@dataclasses.dataclass
class Sampler:
    """Base of all samplers; fields made with :func:`mmsearch.knobs.knob` are its knobs.

    A sampler says which clips an epoch shows and how often; the batches shuffle them afterwards. The method comes
    last: what its `epoch_rows` adds or leaves out, it adds to what the sampler gave.

    Attributes:
        name: in documents.
        summary: one line of what it is.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def rows(self, rows: np.ndarray, label: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
        """The rows of an epoch, a pure function of the arguments.

        As many as are given, so that an epoch costs what it costs with any other sampler; they may repeat.

        Args:
            rows: int64 `[N]`, the training part.
            label: int64 `[N]`, of these rows.
            seed: of the trial.
            epoch: from 0.
        """
        raise NotImplementedError
