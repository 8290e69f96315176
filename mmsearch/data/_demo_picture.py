"""The picture of the demo: a handwritten digit drifts over a shaded ground strewn with fragments of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates

if TYPE_CHECKING:
    from mmsearch.data.demo import DemoConfig

SIZE = 64
"""Height and width of a frame in pixels."""
FRAMES = 8
"""Frames of a clip, which lasts one second."""

_AXIS = np.arange(SIZE, dtype=np.float32)


def _mask(digit: np.ndarray, px: float, centre: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """A digit `[8, 8]` at size `px`, turned by `angle [F]` radians about `centre [F, 2]` (y, x): `[F, SIZE, SIZE]`."""
    dy = _AXIS[None, :, None] - centre[:, 0, None, None]
    dx = _AXIS[None, None, :] - centre[:, 1, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    step = digit.shape[0] / px
    middle = (digit.shape[0] - 1) / 2 + 1
    source = np.stack([(cos * dy + sin * dx) * step + middle, (cos * dx - sin * dy) * step + middle])
    return map_coordinates(np.pad(digit, 1), source, order=1, mode="constant", prefilter=False)


def _fragment(digits: np.ndarray, px: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Half of a digit somewhere: its mask `[SIZE, SIZE]` and how much brighter than the ground it is, `[3]`."""
    half = digits[rng.integers(len(digits))].copy()
    side, rows = rng.integers(2), rng.integers(2)
    view = half if rows else half.T
    view[4 * side : 4 * side + 4] = 0
    size, angle = px * rng.uniform(0.7, 1.3), rng.uniform(0, 2 * np.pi)
    mask = _mask(half, size, rng.uniform(0, SIZE, (1, 2)), np.array([angle]))[0]
    return mask, rng.uniform(0.3, 0.6) + rng.uniform(-0.08, 0.08, 3)


def picture(digit: np.ndarray, pool: np.ndarray, config: DemoConfig, rng: np.random.Generator) -> np.ndarray:
    """The frames of one clip.

    Args:
        digit: the source image, `[8, 8]` in 0 to 1.
        pool: source images that fragments are cut from, `[N, 8, 8]`.
        config: the dials `clutter`, `contrast`, `room`, `jitter`, `motion`, `digit_px`, `pix_noise`.
        rng: draws everything else.

    Returns:
        uint8 `[FRAMES, SIZE, SIZE, 3]`.
    """
    ground = rng.uniform(0.15, 0.40) + rng.uniform(-0.08, 0.08, 3)
    ramp = np.linspace(-0.5, 0.5, SIZE)
    shade = rng.uniform(-0.15, 0.15) * ramp[:, None] + rng.uniform(-0.15, 0.15) * ramp[None, :]
    still = ground + shade[:, :, None]
    for _ in range(config.clutter):
        mask, brighter = _fragment(pool, config.digit_px, rng)
        alpha = 0.5 * mask[:, :, None]
        still = still * (1 - alpha) + alpha * (ground + brighter)

    px = config.digit_px * (1 + 0.15 * config.jitter * rng.uniform(-1, 1))
    start = (SIZE - 1) / 2 + rng.uniform(-1, 1, 2) * max(0.0, SIZE - px) / 2 * config.room
    velocity = rng.normal(0, config.motion / FRAMES, 2)
    walk = np.cumsum(rng.normal(0, 0.4 * config.jitter, (FRAMES, 2)), axis=0)
    time = np.arange(FRAMES)
    angle = np.deg2rad(15) * config.jitter * rng.uniform(-1, 1) + rng.normal(0, 0.03) * time
    mask = _mask(digit, px, start + time[:, None] * velocity + walk, angle)
    colour = ground + 0.55 + rng.uniform(-0.08, 0.08, 3)
    alpha = (config.contrast * mask)[..., None].astype(np.float32)
    frames = still.astype(np.float32) * (1 - alpha) + alpha * colour.astype(np.float32)
    frames += config.pix_noise * rng.standard_normal(frames.shape, np.float32)
    return (frames.clip(0, 1) * 255 + 0.5).astype(np.uint8)
