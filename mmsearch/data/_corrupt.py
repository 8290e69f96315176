"""What the quality dials do to one stored clip: arrays in, arrays of the same type out.

Everything random comes from Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), a
counter-based generator: a clip's key and the number of the frame give the same noise wherever and whenever it is asked.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np

SEVERITY = (0, 1, 2, 3, 4, 5)
"""Levels of picture noise; between them noise and blur are interpolated."""
SEVERITY_NOISE = (0.0, 0.08, 0.12, 0.18, 0.26, 0.38)
"""Per level the standard deviation of the Gaussian noise of every value; full scale is 1.

This and the blur are the levels of ImageNet-C (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", 2019), here both at once.
"""
SEVERITY_BLUR = (0.0, 1 / 224, 2 / 224, 3 / 224, 4 / 224, 6 / 224)
"""Per level the standard deviation of the Gaussian blur over the height of the picture."""

_LEVELS = 1 << 16


def noisy_sound(wave: np.ndarray, snr_db: float, key: np.ndarray, pink: bool = False) -> np.ndarray:
    """A sound in Gaussian noise whose power is `snr_db` below that of the whole sound.

    A mixture that would leave full scale is turned down as a whole, so that the ratio holds. Silence stays as it is.

    Args:
        wave: `[T]`, int16 or float32 in [-1, 1].
        snr_db: signal over noise.
        key: uint64 `[2]`.
        pink: power falls with 1/f, else it is white.

    Returns:
        `[T]` of the same type.
    """
    signal = wave.astype(np.float32)
    if not signal.any():
        return wave
    noise = _normal(key, len(signal))
    if pink:
        noise = _pink(noise)
    signal += noise * np.float32(np.sqrt(_power(signal) * 10 ** (-snr_db / 10) / _power(noise)))
    whole = np.issubdtype(wave.dtype, np.integer)
    full, loudest = np.iinfo(wave.dtype).max if whole else 1.0, max(float(signal.max()), -float(signal.min()))
    if loudest > full:
        signal *= np.float32(full / loudest)
    return (np.rint(signal, out=signal) if whole else signal).astype(wave.dtype)


def noisy_pictures(pictures: np.ndarray, severity: float, key: np.ndarray, frames: Iterable[int]) -> np.ndarray:
    """Pictures, blurred and then in Gaussian noise that is another one for every frame.

    Args:
        pictures: uint8 `[F, H, W, channels]`.
        severity: 0 to 5, see :data:`SEVERITY_NOISE` and :data:`SEVERITY_BLUR`.
        key: uint64 `[2]`.
        frames: the number of every picture in its clip; the noise hangs on it.

    Returns:
        uint8 of the same shape.
    """
    from scipy.ndimage import gaussian_filter

    blur = float(np.interp(severity, SEVERITY, SEVERITY_BLUR)) * pictures.shape[1]
    noise = np.rint(_quantiles() * (255 * np.interp(severity, SEVERITY, SEVERITY_NOISE))).astype(np.int16)
    smooth = gaussian_filter(pictures, blur, axes=(1, 2), output=np.float32, truncate=3)
    values = np.rint(smooth, out=smooth).astype(np.int16)
    for picture, frame in zip(values, frames, strict=True):
        picture += noise.take(_bits(key, picture.size, frame)).reshape(picture.shape)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def noisy_features(features: np.ndarray, snr_db: float, key: np.ndarray) -> np.ndarray:
    """Features in white Gaussian noise, whose power is `snr_db` below that of each feature over the clip's time;
    of a single vector, below that of its values.

    Args:
        features: float32 `[T, D]` or `[D]`.
        snr_db: signal over noise.
        key: uint64 `[2]`.

    Returns:
        float32 of the same shape.
    """
    scale = np.sqrt(np.mean(np.square(features, dtype=np.float64), axis=0) * 10 ** (-snr_db / 10))
    noise = _normal(key, features.size).reshape(features.shape)
    return (features + noise * scale).astype(features.dtype)


def fewer_words(text: np.ndarray, share: float, key: np.ndarray) -> np.ndarray:
    """A text without some of its words, each lost with the chance `share`; at least one stays.

    Args:
        text: uint8 `[L]`, UTF-8.
        share: of the words that is lost.
        key: uint64 `[2]`.

    Returns:
        uint8, the words that are left with a space between them.
    """
    words = text.tobytes().split()
    if not words:
        return text
    chance = _bits(key, len(words)) / _LEVELS
    left = chance >= min(share, chance.max())
    return np.frombuffer(b" ".join(word for word, stays in zip(words, left, strict=True) if stays), np.uint8)


def _bits(key: np.ndarray, count: int, frame: int = 0) -> np.ndarray:
    """Random uint16 `[count]`."""
    counter = np.array([0, 0, 0, frame], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(-(-count // 4))
    return words.astype("<u8", copy=False).view("<u2")[:count]


@functools.cache
def _quantiles() -> np.ndarray:
    """The standard normal distribution cut into equally probable values: a random uint16 picks one."""
    from scipy.special import ndtri

    return ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS).astype(np.float32)


def _normal(key: np.ndarray, count: int) -> np.ndarray:
    return _quantiles().take(_bits(key, count))


def _pink(noise: np.ndarray) -> np.ndarray:
    from scipy.fft import irfft, next_fast_len, rfft

    size = next_fast_len(len(noise), real=True)
    spectrum = rfft(noise, size)
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum), dtype=np.float32), 1))
    return irfft(spectrum, size)[: len(noise)]


def _power(x: np.ndarray) -> float:
    return float(np.mean(np.square(x, dtype=np.float64)))
