"""Video frames into a timm image network."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mmsearch.batch import View
from mmsearch.encoders._pictures import Pictures
from mmsearch.knobs import knob


@dataclasses.dataclass
class Frames(Pictures):
    """A timm network on a few frames of a clip, averaged over time: the protocol of the balanced-learning papers."""

    name: ClassVar[str] = "frames"
    kind: ClassVar[str] = "frames"
    summary: ClassVar[str] = "a timm network on a few frames, averaged over time"

    train_frames: int = knob(
        1, "random frames a clip while training, one of each equal segment", low=1, high=32, search=False
    )
    eval_frames: int = knob(
        3, "frames a clip in evaluation, the middles of equal segments", low=1, high=32, search=False
    )

    def view(self, training: bool) -> View:
        """Random frames in training, fixed ones in evaluation."""
        frames = self.train_frames if training else self.eval_frames
        return View(frames=frames, random=training, draws=self.draws if training else 0)
