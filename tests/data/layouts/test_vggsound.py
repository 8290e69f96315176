"""VGGSound in the shapes that repositories expect."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from mmsearch.data import Dataset

LABELS = ["people cheering", "dog barking", "baby laughter", "playing violin, fiddle"]
CLIPS = [
    (f"{label:x}{i}_-abcdefgh", str(30 * i), LABELS[label], "test" if i == 2 else "train")
    for label in range(4)
    for i in range(3)
]
FRAMES = [f"{i:05d}.jpg" for i in range(4)]


def listed(tree, header: str = "", clips=CLIPS) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(clips)
    tree.text("vggsound.csv", header + text.getvalue())


def g1(tree) -> None:
    listed(tree)
    for name, start, _, split in CLIPS:
        tree.sound(f"{split}-audios/{split}-set/{name}_{start}.wav")
        tree.pictures(f"{split}-videos/{split}-set-img/Image-01-FPS/{name}_{start}.mp4", FRAMES)


@pytest.mark.parametrize(
    "header", ["", "\ufeffyoutube_id,start,label,split\r\n", "# YouTube ID, start, label, split\n"]
)
def test_g1_folders_that_end_in_mp4(header, tree, manifest):
    g1(tree)
    listed(tree, header)
    written = manifest("vggsound", tree.root)
    assert "vggsound: 12 clips listed, 12 kept, 0 missing" in written.said
    assert "splits: train 8, test 4" in written.said
    assert written.yaml["classes"] == sorted(LABELS)
    row = written.rows[0]
    assert row["frames"] == f"train-videos/train-set-img/Image-01-FPS/{row['clip_id']}.mp4"
    assert row["group"] == CLIPS[0][0]
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 12


@pytest.mark.parametrize("padded", [False, True])
def test_g2_and_g3_start_padded_or_not(padded, tree, manifest):
    listed(tree)
    for name, start, _, split in CLIPS:
        stem = f"{name}_{int(start):06d}" if padded else f"{name}_{start}"
        tree.array(f"audio/{split}/{stem}.npy", np.zeros((8, 4), np.float32))
        tree.pictures(f"visual/{split}/{stem}", FRAMES)
    written = manifest("vggsound", tree.root)
    assert len(written.rows) == 12
    assert written.rows[0]["clip_id"] == "00_-abcdefgh_0", "the id does not depend on how files are called"
    assert written.rows[1]["sound"] == f"audio/train/01_-abcdefgh_{'000030' if padded else '30'}.npy"


def test_one_film_a_clip_holds_both(tree, manifest):
    listed(tree)
    for name, start, _, _ in CLIPS:
        tree.path(f"video/{name}_{int(start):06d}.mp4").touch()
    written = manifest("vggsound", tree.root)
    assert written.rows[0]["sound"] == written.rows[0]["frames"] == "video/00_-abcdefgh_000000.mp4"
    assert written.yaml["modalities"]["sound"]["kind"] == "sound"


def test_classes_are_those_of_the_list_not_of_the_disk(tree, manifest):
    g1(tree)
    for path in (tree.root / "train-audios" / "train-set").glob("1*"):
        path.unlink()
    for path in (tree.root / "test-audios" / "test-set").glob("1*"):
        path.unlink()
    folder = tree.root / "test-videos" / "test-set-img" / "Image-01-FPS"
    next(folder.glob("0*/00000.jpg")).unlink()
    written = manifest("vggsound", tree.root)
    assert written.yaml["classes"] == sorted(LABELS)
    assert "  no sound: 3, such as" in written.said and "  fewer than 4 frames: 1, such as 02_" in written.said
    assert "warning: 1 of 4 classes have no clip left, such as dog barking" in written.said


def test_mistakes_in_the_list(tree, refused):
    assert "no vggsound.csv here" in refused("vggsound", tree.root)
    for row, says in (
        (("id", "0", "a label"), "vggsound.csv:2: needs id, start, label and split, found 3 cells"),
        (("id", "zero", "a label", "train"), "vggsound.csv:2: start is 'zero'"),
        (("id", "0", "a label", "trian"), "vggsound.csv:2: unknown split 'trian'; did you mean 'train'"),
        (("id", "0", "", "train"), "vggsound.csv:2: label is empty"),
    ):
        listed(tree, clips=[CLIPS[0], row])
        assert says in refused("vggsound", tree.root)


def test_wrong_root_and_nothing_left(tree, refused):
    listed(tree)
    assert "no folder of sound here; looked for {split}-audios" in refused("vggsound", tree.root)
    tree.path("audio/x").touch()
    tree.path("visual/x").touch()
    assert "nothing is left of 12 clips (vggsound): no sound: 12" in refused("vggsound", tree.root)
