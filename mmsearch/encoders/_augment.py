"""Augmentation on the device of the batch: pure functions of clips and their draws, uniform numbers in [0, 1).

Every clip is augmented by its own row of draws alone, the same whatever stands beside it in the batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mmsearch.encoders._steps import length_of
from mmsearch.knobs import knob

PICTURE_DRAWS = 5
"""Draws of a clip of pictures: four of :func:`random_boxes`, one of the flip."""

TIME_DRAWS = 5
"""Draws of a clip in time: one of :func:`shifted`, two each of the masks along time and along frequency."""

ASPECT = (3 / 4, 4 / 3)
"""Width over height of a random crop, as in Going Deeper with Convolutions (CVPR 2015)."""


def crop_knob() -> Any:
    """The knob of :func:`random_boxes`."""
    return knob(
        1.0, "random crop while training: its least share of the area; 1: none", low=0.05, high=1.0, search=False
    )


def flip_knob() -> Any:
    """The knob of the mirror image."""
    return knob(False, "half of the clips, drawn at random, mirrored while training", search=False)


def shift_knob() -> Any:
    """The knob of :func:`shifted`."""
    return knob(
        0.0, "shift along time while training: its largest share of the clip; 0: none", low=0.0, high=0.5, search=False
    )


def mask_knob(what: str) -> Any:
    """The knob of a mask such as :func:`spec_masked` makes."""
    return knob(
        0.0, f"mask over {what} while training: its largest share of them; 0: none", low=0.0, high=0.5, search=False
    )


def random_boxes(draws: Tensor, least: float, height: int, width: int) -> Tensor:
    """One box a clip, int64 `[B, 4]`: left, top, width and height, in pixels.

    The share of the area is uniform from `least` to 1, the logarithm of the aspect ratio uniform within
    :data:`ASPECT` as far as the picture has room, the place uniform.

    Args:
        draws: `[B, 4]`: area, aspect, left, top.
        least: least share of the area.
        height, width: of the pictures.
    """
    area = (least + (1 - least) * draws[:, 0]) * height * width
    low, high = (math.log(r) for r in ASPECT)
    aspect = (low + (high - low) * draws[:, 1]).exp()
    aspect = torch.minimum(torch.maximum(aspect, area / height**2), width**2 / area)
    w = (area * aspect).sqrt().round().clamp(1, width)
    h = (area / aspect).sqrt().round().clamp(1, height)
    left = _integer(draws[:, 2], width - w)
    top = _integer(draws[:, 3], height - h)
    return torch.stack([left, top, w, h], dim=1).long()


def cropped(x: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes cut out and resized, bilinear with antialiasing: `[B, F, C, H, W]` float32 to `[B, F, C, *size]`.

    The same as cutting and `interpolate(mode="bilinear", antialias=True)` clip by clip.
    """
    left, top, width, height = boxes.float().unbind(1)
    down = _resampling(top, height, size[0], x.shape[-2])[:, None, None]
    across = _resampling(left, width, size[1], x.shape[-1])[:, None, None]
    with torch.autocast(x.device.type, enabled=False):
        return down @ x @ across.mT


def _resampling(start: Tensor, length: Tensor, out: int, size: int) -> Tensor:
    """Weights `[B, out, size]` with which `length` pixels from `start` make `out`: triangles, as wide as a step."""
    step = (length / out)[:, None]
    centre = start[:, None] + step * (torch.arange(out, device=start.device) + 0.5)
    pixel = torch.arange(size, device=start.device) + 0.5
    weights = (1 - (pixel - centre[..., None]).abs() / step.clamp(min=1)[..., None]).clamp(min=0)
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


def flipped(x: Tensor, draws: Tensor, sign: Tensor) -> Tensor:
    """Half of the clips mirrored: `[B, F, C, H, W]`.

    Args:
        x: pictures, zero where there is no motion if they are flow.
        draws: `[B]`.
        sign: `[C]`, by which the channels of a mirrored clip are multiplied: -1 for motion to the right.
    """
    mirrored = x.flip(-1) * sign[:, None, None]
    return torch.where((draws < 0.5)[:, None, None, None, None], mirrored, x)


def shifted(x: Tensor, share: float, draws: Tensor) -> Tensor:
    """Clips moved along time, by at most `share` of their own length either way; zeros move in.

    Args:
        x: `[B, T]` or `[B, T, D]`.
        share: of a clip's length.
        draws: `[B]`.
    """
    by = ((2 * draws - 1) * share * length_of(x)).round().long()
    origin = torch.arange(x.shape[1], device=x.device) - by[:, None]
    outside = (origin < 0) | (origin >= x.shape[1])
    origin = origin.clamp(0, x.shape[1] - 1)
    if x.ndim == 3:
        origin, outside = origin[..., None].expand_as(x), outside[..., None]
    return x.gather(1, origin).masked_fill(outside, 0)


def stretch(length: Tensor, share: float, draws: Tensor, size: int) -> Tensor:
    """A random stretch of every clip, bool `[B, size]`.

    Args:
        length: steps that a clip has, `[B]`.
        share: the largest share of them in the stretch.
        draws: `[B, 2]`: how long, from where.
        size: steps of the batch.
    """
    longest = (share * length).floor()
    width = _integer(draws[:, 0], longest)
    start = _integer(draws[:, 1], length - width)
    step = torch.arange(size, device=draws.device)
    return (step >= start[:, None]) & (step < (start + width)[:, None])


def spec_masked(x: Tensor, frames: Tensor, time: int, time_mask: float, frequency_mask: float, draws: Tensor) -> Tensor:
    """A stretch of time and one of frequencies filled with the clip's mean, `[B, H, W]`.

    Source: SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition (Interspeech 2019).

    Args:
        x: spectrograms.
        frames: steps of time that a clip has, `[B]`.
        time: dimension of `x` that is time, 1 or 2.
        time_mask, frequency_mask: the largest shares masked.
        draws: `[B, 4]`: how long and from where in time, the same in frequency.
    """
    bands = torch.full_like(frames, x.shape[3 - time])
    in_time = stretch(frames, time_mask, draws[:, :2], x.shape[time]).unsqueeze(3 - time)
    in_frequency = stretch(bands, frequency_mask, draws[:, 2:], x.shape[3 - time]).unsqueeze(time)
    return torch.where(in_time | in_frequency, x.mean((1, 2), keepdim=True), x)


def _integer(draws: Tensor, high: Tensor) -> Tensor:
    """A whole number from 0 to `high`, uniform."""
    return torch.minimum((draws * (high + 1)).floor(), high)
