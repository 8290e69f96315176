"""A folder a modality."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.data import Dataset

STEMS = [f"{label}/{i}" for label in ("cat", "dog") for i in range(3)]


def pairs(tree, stems=STEMS) -> None:
    for stem in stems:
        tree.sound(f"audio/{stem}.wav")
        tree.path(f"video/{stem}.mp4").touch()


def test_files_are_matched_by_their_path(tree, manifest):
    pairs(tree)
    tree.array("pose/cat/0.npy", np.zeros((5, 3), np.float32))
    tree.array("face/cat/0.npy", np.zeros(7, np.float32))
    tree.text("words/dog/1.txt", "woof")
    written = manifest("paired", tree.root)
    kinds = {name: m["kind"] for name, m in written.yaml["modalities"].items()}
    assert kinds == {"audio": "sound", "face": "vector", "pose": "series", "video": "frames", "words": "text"}
    row = next(r for r in written.rows if r["clip_id"] == "cat/0")
    assert row["audio"] == "audio/cat/0.wav" and row["face"] == "face/cat/0.npy" and row["words"] == ""
    assert "warning: 5 clips have no face" in written.said
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 6


def test_a_clip_without_one_of_them_lacks_a_modality(tree, manifest):
    pairs(tree)
    (tree.root / "audio/cat/0.wav").unlink()
    written = manifest("paired", tree.root)
    assert "6 kept, 0 missing" in written.said and "warning: 1 clips have no audio" in written.said
    assert Dataset.load(written.folder / "dataset.yaml").clips[0].paths.keys() == {"video"}


def test_folders_whose_names_are_no_names_of_modalities(tree, manifest):
    for stem in STEMS:
        for folder in ("my sound-1", "2nd", "label"):
            tree.sound(f"{folder}/{stem}.wav")
    written = manifest("paired", tree.root)
    assert list(written.yaml["modalities"]) == ["m_2nd", "m_label", "my_sound_1"]
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 6


def test_files_of_another_kind_are_counted(tree, manifest, refused):
    pairs(tree)
    tree.text("audio/cat/0.txt", "notes")
    written = manifest("paired", tree.root)
    assert "  not of kind sound: 1, such as audio/cat/0.txt" in written.said
    assert written.column("audio")["cat/0"] == "audio/cat/0.wav"
    assert manifest("paired", tree.root, "--kinds", "video=sound", out="both").yaml["modalities"]["video"] == {
        "kind": "sound",
        "column": "video",
    }
    for folder in ("a b", "a-b"):
        tree.sound(f"{folder}/cat/0.wav")
    assert "another folder gives the modality a_b too" in refused("paired", tree.root, out="third")


def test_folders_of_splits_and_classes(tree, manifest):
    pairs(tree, [f"{split}/{stem}" for split in ("train", "test") for stem in STEMS])
    written = manifest("paired", tree.root)
    assert "splits: train 6, test 6" in written.said and written.yaml["classes"] == ["cat", "dog"]


def test_folders_of_pictures_as_frames(tree, manifest):
    for stem in STEMS:
        tree.sound(f"audio/{stem}.wav")
        tree.pictures(f"video/{stem}", ("1.jpg", "2.jpg"))
    written = manifest("paired", tree.root, "--kinds", "video=frames")
    assert written.column("video")["cat/0"] == "video/cat/0"
    assert "warning" not in written.said


@pytest.mark.parametrize(
    "text",
    [
        "0,cat\n1,cat\n2,dog\n3,dog\n",
        "\ufefffile;label;split\r\n0.wav;cat;train\r\n1.wav;cat;test\r\n2.wav;dog;train\r\n3.wav;dog;test\r\n",
        "label\tname\ncat\taudio/0.wav\ncat\taudio/1.wav\ndog\taudio/2.wav\ndog\taudio/3.wav\n",
    ],
    ids=["plain", "header-split", "swapped"],
)
def test_labels_from_a_list(text, tree, manifest):
    pairs(tree, "0123")
    labels = tree.text("labels.csv", text)
    written = manifest("paired", tree.root, "--labels", str(labels))
    assert written.column("label") == {"0": "cat", "1": "cat", "2": "dog", "3": "dog"}
    if "split" in text:
        assert written.column("split") == {"0": "train", "1": "test", "2": "train", "3": "test"}


def test_files_without_a_label_and_labels_without_a_file_are_counted(tree, manifest):
    pairs(tree, "01234")
    labels = tree.text("labels.csv", "0,cat\n1,cat\n2,dog\n3,dog\n9,dog\n")
    said = manifest("paired", tree.root, "--labels", str(labels)).said
    assert "  no file: 1, such as 9" in said and "  no label: 1, such as 4" in said


def test_mistakes(tree, refused):
    assert "fewer than two folders" in refused("paired", tree.root)
    pairs(tree)
    assert "no folder 'vidoe'; did you mean 'video'" in refused("paired", tree.root, "--kinds", "vidoe=frames")
    assert "unknown kind 'framse'; did you mean 'frames'" in refused("paired", tree.root, "--kinds", "video=framse")
    labels = tree.text("labels.csv", "7,cat\n8,dog\n")
    assert "labels.csv: no row names a file" in refused("paired", tree.root, "--labels", str(labels))
    classes = tree.text("classes.txt", "cat\nowl\n")
    assert "'dog' is not among the classes" in refused("paired", tree.root, "--classes", str(classes))
    tree.text("audio/cat/0.npy", "hello")
    assert "audio/cat/0.npy: not a .npy array" in refused("paired", tree.root)


def test_nothing_left(tree, refused):
    tree.path("audio/a.xyz").touch()
    tree.path("video/a.xyz").touch()
    assert "nothing is left of 2 clips (paired): an ending that nothing reads: 2" in refused("paired", tree.root)
