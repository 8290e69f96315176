"""AV-MNIST."""

from __future__ import annotations

import numpy as np
import pytest

from mmsearch.data import Dataset
from mmsearch.data.decode import decode_clip


def digits(tree, image) -> None:
    for split, n in (("train", 30), ("test", 10)):
        tree.array(f"image/{split}_data.npy", image(n))
        tree.array(f"audio/{split}_data.npy", np.full((n, 112, 112), 7, np.uint8))
        tree.array(f"{split}_labels.npy", np.arange(n) % 10)


@pytest.mark.parametrize(
    "image",
    [
        lambda n: np.full((n, 784), 200, np.uint8),
        lambda n: np.full((n, 28, 28), 200),
        lambda n: np.full((n, 784), 0.78),
    ],
    ids=["bytes", "integers", "fractions"],
)
def test_rows_of_the_arrays_without_a_copy(image, tree, manifest):
    digits(tree, image)
    written = manifest("avmnist", tree.root)
    assert "avmnist: 40 clips listed, 40 kept, 0 missing" in written.said and "train 30, test 10" in written.said
    assert written.rows[31]["image"] == "image/test_data.npy#1" and written.rows[31]["label"] == "1"
    assert sorted(p.name for p in written.folder.iterdir()) == ["dataset.yaml", "manifest.csv"]
    dataset = Dataset.load(written.folder / "dataset.yaml")
    stored = decode_clip(dataset.sources(dataset.clips[31]))
    assert stored["image"].shape == (1, 28, 28, 3) and abs(int(stored["image"][0, 3, 3, 0]) - 200) <= 2
    assert stored["audio"].shape == (112, 112)


def test_pictures_outside_of_the_range_are_written_as_bytes(tree, manifest):
    digits(tree, lambda n: np.tile(np.array([-3.2, 200.4, 260.0, 0.0]), (n, 196)))
    written = manifest("avmnist", tree.root)
    assert "2 files rewritten" in written.said
    assert written.rows[0]["image"] == "arrays/image_train.npy#0" and written.rows[0]["audio"].startswith("media/audio")
    pictures = np.load(written.folder / "arrays" / "image_train.npy")
    assert pictures.dtype == np.uint8 and pictures[0, :4].tolist() == [0, 200, 255, 0]
    dataset = Dataset.load(written.folder / "dataset.yaml")
    assert decode_clip(dataset.sources(dataset.clips[0]))["audio"].shape == (112, 112)


def test_mistakes(tree, refused):
    assert "no image/train_data.npy and no audio/train_data.npy" in refused("avmnist", tree.root)
    digits(tree, lambda n: np.zeros((n, 784), np.uint8))
    tree.array("test_labels.npy", np.arange(9))
    assert "image/test_data.npy: 10 clips, but 9 labels" in refused("avmnist", tree.root)
    tree.array("test_labels.npy", np.arange(10) + 1)
    assert "test_labels.npy: row 9: label 10 is not a digit" in refused("avmnist", tree.root)
    tree.text("test_labels.npy", "hello")
    assert "test_labels.npy: not a .npy array" in refused("avmnist", tree.root)
    tree.array("test_labels.npy", np.array([{}], dtype=object))
    assert "test_labels.npy: not a .npy array" in refused("avmnist", tree.root)
    for split in ("train", "test"):
        for name in (f"image/{split}_data.npy", f"audio/{split}_data.npy", f"{split}_labels.npy"):
            tree.array(name, np.zeros((0, 4), np.uint8))
    assert "nothing is left" in refused("avmnist", tree.root)
