"""Clips to look at and listen to, as data URIs: only on request, since they show people."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from mmsearch.batch import Modality

HEIGHT = 96
"""Pixels of a thumbnail."""

PICTURES = 3
"""Frames of a clip side by side."""

SECONDS = 4.0
"""Of sound at most, so that the file stays one that can be sent."""


class Clips(Protocol):
    """What is read of the clips; a `ClipData` has it."""

    modalities: dict[str, Modality]

    def stored(self, modality: str, row: int) -> np.ndarray | None:
        """One clip's modality, None where it lacks it."""
        ...


def picture(clips: Clips, row: int) -> str | None:
    """Frames of a clip side by side as a JPEG; None where it has none."""
    for name, modality in clips.modalities.items():
        if modality.kind in ("frames", "image"):
            stored = clips.stored(name, row)
            if stored is not None and len(stored):
                return _jpeg(_spread(stored))
    return None


def sound(clips: Clips, row: int) -> str | None:
    """The first seconds of a clip's sound as a WAV; None where it has none."""
    for name, modality in clips.modalities.items():
        if modality.kind == "sound" and modality.rate:
            stored = clips.stored(name, row)
            if stored is not None and len(stored):
                return _wav(stored[: int(SECONDS * modality.rate)], int(modality.rate))
    return None


def _spread(frames: np.ndarray) -> list[np.ndarray]:
    n = min(PICTURES, len(frames))
    return [frames[int((i + 0.5) * len(frames) / n)] for i in range(n)]


def _jpeg(frames: Sequence[np.ndarray]) -> str:
    pictures = [Image.fromarray(np.asarray(f, np.uint8)) for f in frames]
    small = [p.resize((max(1, round(p.width * HEIGHT / p.height)), HEIGHT)) for p in pictures]
    strip = Image.new("RGB", (sum(p.width for p in small), HEIGHT))
    left = 0
    for p in small:
        strip.paste(p, (left, 0))
        left += p.width
    stream = io.BytesIO()
    strip.save(stream, "JPEG", quality=80)
    return _uri("image/jpeg", stream.getvalue())


def _wav(samples: np.ndarray, rate: int) -> str:
    if samples.dtype != np.int16:
        samples = np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return _uri("audio/wav", stream.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
