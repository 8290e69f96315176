"""The sound of the demo: rough English digit words from formant tables, by additive synthesis, and noise."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

RATE = 16_000
"""Samples a second."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_FORMANTS = {
    "i": (290, 2250, 2950),
    "e": (480, 1950, 2550),
    "a": (740, 1250, 2500),
    "o": (460, 900, 2400),
    "u": (320, 880, 2250),
    "r": (470, 1300, 1650),
    "n": (260, 1250, 2150),
    "v": (300, 1100, 2200),
    "I": (400, 1900, 2500),
}
_WEIGHTS = np.array([1.0, 0.6, 0.3], np.float32)
_BANDWIDTHS = np.array([90.0, 120.0, 180.0], np.float32)
_HIGHEST, _MOST_HARMONICS = 3600.0, 30

# target:seconds:voiced[:noise@centre/bandwidth]
_SPELLING = (
    "i:.05:.25:.5@5200/1500 i:.12:1 r:.08:.8 o:.16:1",
    "u:.08:.9 a:.16:1 n:.12:.6",
    "u:.04:0:.7@3800/1800 u:.26:1",
    "e:.09:0:.25@5000/2500 r:.08:.8 i:.2:1",
    "o:.09:0:.25@4000/2800 o:.16:1 r:.12:.7",
    "a:.09:0:.25@4000/2800 a:.14:1 i:.1:.9 v:.07:.4:.1@4000/2500",
    "I:.1:0:.6@5600/1300 I:.1:1 I:.05:0 I:.12:0:.6@5600/1300",
    "e:.1:0:.6@5600/1300 e:.1:1 v:.06:.4:.1@4000/2500 e:.06:.8 n:.1:.6",
    "e:.1:1 i:.12:.95 i:.05:0 i:.03:0:.6@3800/1800",
    "n:.1:.6 a:.14:1 i:.1:.9 n:.1:.6",
)


@dataclasses.dataclass(frozen=True)
class _Segment:
    """A piece of a word: formants (Hz), seconds, gain of voice and of noise, the noise's centre and width (Hz)."""

    formants: tuple[int, int, int]
    seconds: float
    voiced: float
    noise: float = 0.0
    centre: float = 0.0
    bandwidth: float = 1.0


@functools.cache
def _segments(digit: int) -> tuple[_Segment, ...]:
    parsed = []
    for text in _SPELLING[digit].split():
        target, seconds, voiced, *rest = text.split(":")
        segment = _Segment(_FORMANTS[target], float(seconds), float(voiced))
        if rest:
            gain, _, band = rest[0].partition("@")
            centre, _, width = band.partition("/")
            segment = dataclasses.replace(segment, noise=float(gain), centre=float(centre), bandwidth=float(width))
        parsed.append(segment)
    return tuple(parsed)


def _band(rng: np.random.Generator, n: int, centre: float, bandwidth: float) -> np.ndarray:
    """Noise of rms .5 in a Gaussian band, `[n]`."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / RATE)
    noise = np.fft.irfft(spectrum * np.exp(-(((frequency - centre) / (bandwidth / 2)) ** 2)), n)
    return 0.5 * noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9)


def speech(digit: int, seconds: float, time_var: float, rng: np.random.Generator) -> np.ndarray:
    """A speaker says a digit somewhere in a second of silence.

    Args:
        digit: 0 to 9.
        seconds: length of the whole clip.
        time_var: strength of the variation of tempo and of segment lengths; 1 is the recipe's.
        rng: draws speaker, tempo, melody, onset and loudness.

    Returns:
        float32 `[seconds * RATE]`, peak .25 to .5.
    """
    segments = _segments(digit)
    pitch = 150 * np.exp(rng.uniform(-0.5, 0.5))
    tract = 1 + rng.uniform(-0.14, 0.14)
    formants = np.array([s.formants for s in segments], np.float64) * tract * (1 + rng.uniform(-0.04, 0.04, 3))
    tempo = np.exp(rng.uniform(-0.25, 0.25) * time_var)
    lengths = np.array([s.seconds for s in segments]) * tempo * rng.lognormal(0, 0.15 * time_var, len(segments))
    lengths *= min(1.0, 0.98 * seconds / lengths.sum())
    slope, vibrato, wobble = rng.uniform(-0.2, 0.1), rng.uniform(0, 0.03), rng.uniform(4, 7)
    onset, gain = rng.uniform(), 0.5 * 10 ** (rng.uniform(-6, 0) / 20)

    n = int(lengths.sum() * RATE)
    t = np.arange(n) / RATE
    middles = np.cumsum(lengths) - lengths / 2
    knots = np.concatenate([[0.0], middles, [lengths.sum()]])

    def envelope(values: list[float]) -> np.ndarray:
        return np.interp(t, knots, [0.0, *values, 0.0])

    f0 = pitch * (1 + slope * t / t[-1] + vibrato * np.sin(2 * np.pi * wobble * t))
    k = np.arange(1, min(_MOST_HARMONICS, int(_HIGHEST / f0.min())) + 1, dtype=np.float32)[:, None]
    harmonic = k * f0.astype(np.float32)
    amplitude = np.zeros_like(harmonic)
    for j in range(3):
        centre = np.interp(t, middles, formants[:, j]).astype(np.float32)
        amplitude += _WEIGHTS[j] / (1 + ((harmonic - centre) / _BANDWIDTHS[j]) ** 2)
    amplitude *= harmonic < _HIGHEST
    phase = (2 * np.pi * np.cumsum(f0) / RATE).astype(np.float32)
    word = (amplitude * np.sin(k * phase)).sum(0) * envelope([s.voiced for s in segments])
    for j, s in enumerate(segments):
        if s.noise:
            gains = [s.noise if i == j else 0.0 for i in range(len(segments))]
            word += _band(rng, n, s.centre, s.bandwidth) * envelope(gains)

    total = round(seconds * RATE)
    out = np.zeros(total, np.float32)
    start = int(onset * (total - n))
    out[start : start + n] = gain * word / np.abs(word).max()
    return out


def noise(signal: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """White to pinkish noise, float32 of the signal's length.

    Its power is `snr_db` below the signal's, both taken over the whole clip.
    """
    n = len(signal)
    tilt = (1 + np.fft.rfftfreq(n, 1 / RATE) / 500) ** rng.uniform(0, 0.8)
    hiss = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) / tilt, n)
    power = float(np.mean(signal.astype(np.float64) ** 2)) * 10 ** (-snr_db / 10)
    return (hiss * np.sqrt(power / np.mean(hiss**2))).astype(np.float32)
