"""A two-dimensional array, such as a spectrogram computed beforehand, into a timm network."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mmsearch.batch import Modality, View
from mmsearch.encoders import EncoderModule
from mmsearch.encoders._fronts import Stored
from mmsearch.encoders._spectra import Spectra, SpectrumEncoder
from mmsearch.knobs import knob


@dataclasses.dataclass
class Map(Spectra):
    """A series `[T, D]` seen as a picture: spectrograms and filter banks that a dataset has on disk.

    The first axis counts as time, the second as frequency.
    """

    name: ClassVar[str] = "map"
    kind: ClassVar[str] = "series"
    summary: ClassVar[str] = "a two-dimensional array, such as a stored spectrogram, into a timm network"
    default: ClassVar[bool] = False

    normalise: bool = knob(True, "batch norm on the array", search=False)

    def build(self, modality: Modality) -> EncoderModule:
        """The network."""
        return SpectrumEncoder(Stored(self.normalise), self)

    def view(self, training: bool) -> View:
        """Whole arrays."""
        return View(draws=self.draws if training else 0)
