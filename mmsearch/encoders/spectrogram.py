"""Sound as a spectrogram into a timm network."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mmsearch.batch import Modality, View
from mmsearch.encoders import EncoderModule
from mmsearch.encoders._fronts import SECONDS, Fbank, Front, LogMel, Ogm
from mmsearch.encoders._spectra import Spectra, SpectrumEncoder
from mmsearch.knobs import knob


@dataclasses.dataclass
class Spectrogram(Spectra):
    """A spectrogram (torchaudio) into a timm network with one input channel.

    The front `mel` is standardised over the batch. The others are what the papers published: `ogm_code` and
    `ogm_paper` the STFT of the code and of the text of OGM-GE (257 x 188 and 257 x 299 for 3 s), `fbank` the Kaldi
    filter banks of the Kinetics-Sounds protocols (1024 x 128, time first). Sound stored at another rate than theirs
    is resampled.
    """

    name: ClassVar[str] = "spectrogram"
    kind: ClassVar[str] = "sound"
    summary: ClassVar[str] = "spectrogram into a timm network"

    front: str = knob("mel", "the spectrogram", choices=("mel", "ogm_code", "ogm_paper", "fbank"), search=False)
    n_fft: int = knob(512, "window, samples", low=64, high=4096, when={"front": "mel"}, search=False)
    hop_ms: float = knob(20.0, "step, milliseconds", low=2.0, high=100.0, when={"front": "mel"}, search=False)
    n_mels: int = knob(40, "mel bands", low=8, high=256, when={"front": "mel"}, search=False)
    f_min: float = knob(60.0, "lowest frequency, Hz", low=0.0, high=2000.0, when={"front": "mel"}, search=False)
    seconds: float = knob(
        0.0,
        "random crop of this length while training; 0: whole clips (of ogm_code and ogm_paper the first 3 s)",
        low=0.0,
        high=60.0,
        search=False,
    )

    def build(self, modality: Modality) -> EncoderModule:
        """The network for the modality's sampling rate."""
        return SpectrumEncoder(self._front(modality.rate), self)

    def _front(self, rate: float) -> Front:
        if self.front == "ogm_code":
            return Ogm(rate, 22050, hop=353, centred=True, seconds=self.seconds or SECONDS)
        if self.front == "ogm_paper":
            return Ogm(rate, 16000, hop=159, centred=False, seconds=self.seconds or SECONDS)
        if self.front == "fbank":
            return Fbank(rate)
        return LogMel(rate, self.n_fft, self.hop_ms, self.n_mels, self.f_min)

    def view(self, training: bool) -> View:
        """Whole clips, or a crop."""
        return View(seconds=self.seconds or None, random=training, draws=self.draws if training else 0)
