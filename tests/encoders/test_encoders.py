"""Encoders of frames, images and sound: shapes, tokens, stages, views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmsearch.batch import Modality
from mmsearch.data.clips import ClipData
from mmsearch.encoders import ENCODERS
from mmsearch.errors import MMSearchError

SOUND = Modality("sound", "sound", (16000,), 16000)
FRAMES = Modality("frames", "frames", (8, 64, 64, 3), 8)


@pytest.mark.parametrize("backbone", ["small", "test_resnet", "test_vit"])
def test_frames_give_pooled_features_and_tokens(backbone: str) -> None:
    size = 160 if backbone == "test_vit" else 48
    net = ENCODERS.create({"name": "frames", "backbone": backbone, "size": size}).build(FRAMES).eval()
    x = torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8)
    out = net(x, detail=True)
    assert out.pooled.shape == (2, net.width)
    assert out.tokens.shape[0] == 2
    assert out.tokens.shape[2] == net.width
    torch.testing.assert_close(net(x).pooled, out.pooled)


@pytest.mark.parametrize(("kind", "x"), [("frames", FRAMES), ("sound", SOUND)])
def test_an_encoder_run_stage_by_stage_gives_the_same_features(kind: str, x: Modality) -> None:
    clips = torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8) if kind == "frames" else torch.randn(2, 16000)
    encoder = ENCODERS.create({"name": {"frames": "frames", "sound": "spectrogram"}[kind]})
    net = encoder.build(x).eval()
    stages, widths = net.staged(clips), []
    try:
        maps = next(stages)
        while True:
            widths.append(maps.shape[2])
            maps = stages.send(maps)
    except StopIteration as end:
        torch.testing.assert_close(end.value.pooled, net(clips).pooled)
    assert tuple(widths) == net.stage_widths
    assert len(widths) == encoder.stages


def test_the_feature_of_a_clip_is_the_mean_over_its_frames() -> None:
    net = ENCODERS.create({"name": "frames"}).build(FRAMES).eval()
    x = torch.randint(0, 256, (1, 4, 3, 64, 64), dtype=torch.uint8)
    each = torch.cat([net(x[:, [i]]).pooled for i in range(4)])
    torch.testing.assert_close(net(x).pooled[0], each.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["small", "resnet18"])
def test_sound_of_any_length_gives_features_of_the_encoders_width(backbone: str) -> None:
    net = ENCODERS.create({"name": "spectrogram", "backbone": backbone}).build(SOUND).eval()
    for seconds in (1, 3):
        assert net(torch.randn(2, 16000 * seconds)).pooled.shape == (2, net.width)


def test_an_unknown_timm_network_is_named_with_the_nearest_one() -> None:
    with pytest.raises(MMSearchError, match="did you mean 'resnet18'"):
        ENCODERS.create({"name": "frames", "backbone": "resnet81"}).build(FRAMES)


def test_an_image_is_one_frame() -> None:
    net = ENCODERS.create({"name": "image"}).build(Modality("image", "image", (1, 32, 32, 3))).eval()
    assert net(torch.randint(0, 256, (2, 1, 3, 32, 32), dtype=torch.uint8)).pooled.shape == (2, net.width)


@pytest.mark.parametrize("name", ["frames", "flow"])
def test_three_frames_a_clip_are_random_ones_of_each_third_and_its_middles(name: str) -> None:
    stored = 9
    channels = {"frames": 3, "flow": 2}[name]
    arrays = np.broadcast_to(np.arange(stored, dtype=np.uint8)[:, None, None, None], (6, stored, 2, 2, channels))
    modality = Modality("x", name, (stored, 2, 2, channels))
    data = ClipData.from_arrays({"x": list(arrays)}, np.arange(6) % 2, modalities={"x": modality})
    encoder = ENCODERS.create({"name": name, "train_frames": 3, "eval_frames": 3})

    def picked(training: bool, epoch: int = 0) -> torch.Tensor:
        seed = 0 if training else None
        batch = next(data.batches(np.arange(6), 6, {"x": encoder.view(training)}, seed=seed, epoch=epoch))
        return batch.inputs["x"][..., 0, 0, 0]

    assert picked(training=False).tolist() == [[1, 4, 7]] * 6
    found = torch.cat([picked(True, epoch) for epoch in range(20)])
    assert [sorted(set(f.tolist())) for f in found.T] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_pictures_that_are_not_square_are_resized() -> None:
    net = ENCODERS.create({"name": "frames", "size": 48}).build(FRAMES).eval()
    assert net.pictures(torch.zeros(2, 3, 3, 40, 48, dtype=torch.uint8)).shape == (2, 3, 3, 48, 48)
