"""Augmentation: a pure function of clips and draws, clip by clip, and nothing where it is off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import resized_crop

from mmsearch.batch import Modality
from mmsearch.encoders import ENCODERS
from mmsearch.encoders._augment import (
    PICTURE_DRAWS,
    TIME_DRAWS,
    cropped,
    random_boxes,
    shifted,
    spec_masked,
    stretch,
)

SOUND = Modality("x", "sound", (8000,), 8000.0)
FRAMES = Modality("x", "frames", (4, 40, 48, 3), 4.0)
FLOW = Modality("x", "flow", (4, 40, 48, 2), 4.0)
SERIES = Modality("x", "series", (50, 6))
AUGMENTED: list[tuple[dict[str, Any], Modality]] = [
    ({"name": "frames", "size": 32, "crop": 0.1, "flip": True}, FRAMES),
    ({"name": "image", "crop": 0.1, "flip": True}, Modality("x", "image", (1, 40, 48, 3))),
    ({"name": "flow", "crop": 0.1, "flip": True}, FLOW),
    ({"name": "spectrogram", "shift": 0.3, "time_mask": 0.4, "freq_mask": 0.4}, SOUND),
    ({"name": "spectrogram", "front": "fbank", "shift": 0.3, "time_mask": 0.4, "freq_mask": 0.4}, SOUND),
    ({"name": "spectrogram", "front": "ogm_paper", "shift": 0.3, "time_mask": 0.4, "freq_mask": 0.4}, SOUND),
    ({"name": "map", "shift": 0.3, "time_mask": 0.4, "freq_mask": 0.4}, SERIES),
    ({"name": "series", "shift": 0.3, "time_mask": 0.4}, SERIES),
]
OFF = {"crop": 1.0, "flip": False, "shift": 0.0, "time_mask": 0.0, "freq_mask": 0.0}
each_augmented = pytest.mark.parametrize(
    ("document", "modality"), AUGMENTED, ids=[d.get("front", d["name"]) for d, _ in AUGMENTED]
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(modality: Modality, clips: int = 8) -> Tensor:
    """Clips of different lengths; the last one lacks the modality."""
    if modality.kind in ("sound", "series"):
        x = random(clips, *modality.shape, seed=1) - 0.5
        for i in range(clips):
            x[i, modality.shape[0] * (i + 5) // (clips + 5) :] = 0
    else:
        f, h, w, c = modality.shape
        x = (random(clips, f, c, h, w, seed=1) * 256).to(torch.uint8)
    x[-1] = 0
    return x


def seen(net: Any, x: Tensor, draws: Tensor | None) -> Tensor:
    """The input of the network proper."""
    if hasattr(net, "pictures"):
        return net.pictures(x, draws)
    if hasattr(net, "picture"):
        return net.picture(x, draws)
    return x if draws is None else net.augmented(x, draws)


@each_augmented
def test_only_training_draws_and_only_where_something_is_on(document: dict, modality: Modality) -> None:
    encoder = ENCODERS.create(document)
    columns = PICTURE_DRAWS if "crop" in document else TIME_DRAWS
    assert (encoder.view(training=True).draws, encoder.view(training=False).draws) == (columns, 0)
    off = ENCODERS.create({k: OFF.get(k, v) for k, v in document.items()})
    assert off.view(training=True).draws == off.view(training=False).draws == 0


@each_augmented
def test_with_everything_off_draws_change_no_bit(document: dict, modality: Modality) -> None:
    net: Any = ENCODERS.create({k: OFF.get(k, v) for k, v in document.items()}).build(modality).eval()
    x = batch_of(modality)
    assert torch.equal(seen(net, x, random(8, 5)), seen(net, x, None))
    assert torch.equal(net(x, draws=random(8, 5)).pooled, net(x).pooled)


@each_augmented
def test_the_same_draws_give_the_same_clips_and_leave_the_random_stream_alone(
    document: dict, modality: Modality
) -> None:
    net: Any = ENCODERS.create(document).build(modality).eval()
    x = batch_of(modality)
    before, copy, draws = torch.get_rng_state(), x.clone(), random(8, 5)
    first = seen(net, x, draws)
    assert torch.equal(first, seen(net, x, draws))
    assert not torch.equal(first[:-1], seen(net, x, random(8, 5, seed=2))[:-1])
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(x, copy)


@each_augmented
def test_a_clip_is_augmented_alike_in_any_batch(document: dict, modality: Modality) -> None:
    net: Any = ENCODERS.create(document).build(modality).eval()
    x, draws = batch_of(modality), random(8, 5)
    whole = seen(net, x, draws)
    parts = torch.cat([seen(net, x[i : i + 3], draws[i : i + 3]) for i in range(0, 8, 3)])
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


@each_augmented
def test_a_missing_modality_stays_finite(document: dict, modality: Modality) -> None:
    net: Any = ENCODERS.create(document).build(modality).train()
    out = net(batch_of(modality), True, random(8, 5))
    (out.pooled.square().sum() + out.tokens.sum()).backward()
    assert torch.isfinite(out.pooled).all() and torch.isfinite(out.tokens).all()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("draw", [0.0, 0.3, 1 - 2**-24])
def test_a_crop_of_the_whole_is_the_picture(draw: float) -> None:
    boxes = random_boxes(torch.full((2, 4), draw), 1.0, 40, 48)
    assert boxes.tolist() == [[0, 0, 48, 40]] * 2
    x = random(2, 3, 3, 40, 48)
    assert torch.equal(cropped(x, boxes, (40, 48)), x)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (36, 64)])
def test_boxes_lie_within_the_picture_and_have_the_area_and_aspect_asked_for(height: int, width: int) -> None:
    left, top, w, h = random_boxes(random(2000, 4), 0.2, height, width).unbind(1)
    assert min(left.min(), top.min()) == 0
    assert (left + w).max() == width and (top + h).max() == height
    share, aspect = w * h / (height * width), w / h
    assert 0.2 - 0.03 < share.min() < 0.25 and share.max() > 0.9
    assert 0.7 < aspect.min() < 0.85 and 1.2 < aspect[share < 0.4].max() < 1.45


@pytest.mark.parametrize("size", [(20, 20), (40, 48), (64, 64)])
def test_a_crop_is_torchvisions(size: tuple[int, int]) -> None:
    x = random(6, 2, 3, 40, 48) * 255
    boxes = random_boxes(random(6, 4, seed=3), 0.1, 40, 48)
    mine = cropped(x, boxes, size)
    for clip, (left, top, w, h), out in zip(x, boxes.tolist(), mine, strict=True):
        expected = resized_crop(clip, top, left, h, w, list(size), antialias=True)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "modality"), [("frames", FRAMES), ("flow", FLOW)])
def test_a_flip_mirrors_half_of_the_clips_and_twice_is_none(name: str, modality: Modality) -> None:
    net: Any = ENCODERS.create({"name": name, "flip": True}).build(modality)
    x = batch_of(modality)
    draws = torch.zeros(8, 5)
    draws[4:] = 0.5
    plain, once = net.pictures(x), net.pictures(x, draws)
    sign = torch.tensor([-1.0, 1.0] if name == "flow" else [1.0] * 3)[:, None, None]
    assert torch.equal(once[:4], plain[:4].flip(-1) * sign)
    assert torch.equal(once[4:], plain[4:])
    assert torch.equal(once[:4].flip(-1) * sign, plain[:4])


def test_flow_is_zero_where_nothing_moves() -> None:
    net: Any = ENCODERS.create({"name": "flow", "scale": 64.0}).build(FLOW)
    x = torch.full((1, 4, 2, 40, 48), 128, dtype=torch.uint8)
    x[:, :, 0] = 160
    assert net.pictures(x)[0, 0, :, 0, 0].tolist() == [0.5, 0.0]


def test_all_frames_of_a_clip_have_one_crop() -> None:
    net: Any = ENCODERS.create({"name": "frames", "crop": 0.1, "flip": True}).build(FRAMES)
    x = batch_of(FRAMES)[:, :1].repeat(1, 4, 1, 1, 1)
    pictures = net.pictures(x, random(8, 5))
    assert all(torch.equal(pictures[:, 0], pictures[:, f]) for f in range(4))


@pytest.mark.parametrize("shape", [(8, 100), (8, 100, 3)])
def test_a_shift_moves_by_at_most_its_share_of_the_clip(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    x[:, :60] = 1 + random(*shape)[:, :60]
    for draw, by in ((0.0, -12), (0.5, 0), (1 - 2**-24, 12)):
        expected = torch.zeros_like(x)
        expected[:, max(by, 0) : 60 + by] = x[:, max(-by, 0) : 60]
        assert torch.equal(shifted(x, 0.2, torch.full((8,), draw)), expected)


def test_masks_cover_at_most_their_share_of_the_clip_and_have_its_mean() -> None:
    x, frames = random(200, 30, 50), torch.arange(200) % 50 + 1
    masked = spec_masked(x, frames, 2, 0.3, 0.2, random(200, 4))
    changed = masked != x
    in_time, in_frequency = changed.all(1), changed.all(2)
    assert (in_time.sum(1) <= 0.3 * frames).all() and in_time.sum(1).max() > 10
    assert (in_frequency.sum(1) <= 0.2 * 30).all() and in_frequency.sum(1).max() == 6
    assert not (in_time & (torch.arange(50) >= frames[:, None])).any()
    assert torch.equal(changed, in_time[:, None] | in_frequency[:, :, None])
    filled = torch.where(changed, masked, x.mean((1, 2), keepdim=True))
    torch.testing.assert_close(filled, x.mean((1, 2), keepdim=True).expand_as(x))
    assert torch.equal(spec_masked(x.mT, frames, 1, 0.3, 0.2, random(200, 4)), masked.mT)


def test_stretches_are_of_every_length_and_place() -> None:
    found = stretch(torch.full((5000,), 10), 0.4, random(5000, 2), 12)
    assert set(found.sum(1).tolist()) == {0, 1, 2, 3, 4}
    assert found.any(0).tolist() == [True] * 10 + [False] * 2


def test_a_masked_series_keeps_its_steps_and_mean() -> None:
    net: Any = ENCODERS.create({"name": "series", "time_mask": 0.5}).build(SERIES)
    x = batch_of(SERIES)
    masked = net.augmented(x, torch.tensor([[0.5, 0.999, 0.3, 0.5, 0.5]]).expand(8, 5))
    assert torch.equal((masked != 0).any(-1), (x != 0).any(-1))
    length = int((x[0] != 0).any(-1).sum())
    hidden = (masked[0] != x[0]).any(-1)
    assert int(hidden.sum()) == length // 2
    torch.testing.assert_close(masked[0][hidden][0], x[0, :length].mean(0))
