"""CMU-MOSEI and CMU-MOSI feature pickles."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from mmsearch.data import Dataset
from mmsearch.data.decode import decode_clip

SIZES = {"train": 6, "valid": 3, "test": 4}


def features(ids: str = "mult") -> dict:
    """The pickle of MulT (`ids="mult"`, as in MOSI with bytes) or MMSA (`ids="mmsa"`)."""
    random = np.random.RandomState(0)
    held = {}
    for split, n in SIZES.items():
        part = {
            "vision": random.randn(n, 5, 3).astype(np.float32),
            "audio": random.randn(n, 4, 2),
            "text": random.randn(n, 3, 6).astype(np.float32),
        }
        sentiment = np.array([-1.5, 0.0, 2.0, -0.2, 0.5, -3.0])[:n]
        videos = [f"{split}{i // 2}" for i in range(n)]
        if ids == "mult":
            part["labels"] = sentiment.reshape(n, 1, 1).astype(np.float32)
            part["id"] = np.array([[v, str(i), str(i + 1)] for i, v in enumerate(videos)], dtype="S12")
        elif ids == "mmsa":
            part["regression_labels"] = sentiment
            part["id"] = [f"{v}$_${i}" for i, v in enumerate(videos)]
        else:
            part["labels"] = sentiment.reshape(n, 1, 1)
        held[split] = part
    held["train"]["audio"][0, 0, 0] = -np.inf
    return held


def store(tree, held, name: str = "mosei_senti_data_noalign.pkl", protocol: int = 4) -> None:
    tree.path(name).write_bytes(pickle.dumps(held, protocol=protocol))


def test_three_series_of_the_unaligned_features(tree, manifest):
    held = features()
    store(tree, held)
    written = manifest("mosei", tree.root)
    assert "mosei: 13 clips listed, 13 kept, 0 missing" in written.said
    assert "splits: train 6, val 3, test 4" in written.said
    assert "warning: audio: 1 values that are not finite become 0" in written.said
    assert written.yaml["classes"] == ["negative", "nonnegative"]
    assert written.yaml["modalities"]["vision"] == {"kind": "series", "column": "vision", "steps": 5}
    assert [row["label"] for row in written.rows][:4] == ["negative", "nonnegative", "nonnegative", "negative"]
    assert written.rows[0]["group"] == "train0" and written.rows[0]["audio"] == "arrays/audio.npy#0"
    arrays = {m: np.load(written.folder / "arrays" / f"{m}.npy") for m in ("vision", "audio", "text")}
    assert {m: (a.shape, a.dtype.str) for m, a in arrays.items()} == {
        "vision": ((13, 5, 3), "<f4"), "audio": ((13, 4, 2), "<f4"), "text": ((13, 3, 6), "<f4"),
    }  # fmt: skip
    assert arrays["audio"][0, 0, 0] == 0 and np.isfinite(arrays["audio"]).all()
    dataset = Dataset.load(written.folder / "dataset.yaml")
    stored = decode_clip(dataset.sources(dataset.clips[7]))
    np.testing.assert_array_equal(stored["vision"], held["valid"]["vision"][1])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mosei_senti_data.pkl", ["--aligned"]),
        ("mosi_data_noalign.pkl", ["--corpus", "mosi"]),
        ("mosi_data.pkl", ["--corpus", "mosi", "--aligned"]),
    ],
)
def test_the_other_files(name, options, tree, manifest):
    store(tree, features(), name)
    assert manifest("mosei", tree.root, *options).yaml["name"] == ("mosi" if "mosi_" in name else "mosei")


def test_the_file_itself_and_ids_of_mmsa(tree, manifest):
    store(tree, features("mmsa"), "any.pkl", protocol=5)
    rows = manifest("mosei", tree.root / "any.pkl").rows
    assert rows[3]["group"] == "train1" and rows[3]["clip_id"] == "train_00003_train1_3"


def test_without_ids_there_are_no_groups(tree, manifest):
    store(tree, features(""))
    assert "group" not in manifest("mosei", tree.root).rows[0]


def test_arrays_are_not_written_again(tree, manifest):
    store(tree, features())
    manifest("mosei", tree.root)
    assert "0 files rewritten, 3 were there" in manifest("mosei", tree.root, "--force").said
    os.utime(tree.root / "mosei_senti_data_noalign.pkl", (2e9, 2e9))
    assert "3 files rewritten, 0 were there" in manifest("mosei", tree.root, "--force").said


def test_a_sentence_without_a_label_is_left_out_and_the_others_keep_their_rows(tree, manifest):
    held = features()
    held["train"]["labels"][1] = np.nan
    store(tree, held)
    written = manifest("mosei", tree.root)
    assert "  no label: 1, such as train_00001_" in written.said
    assert [row["text"] for row in written.rows[:2]] == ["arrays/text.npy#0", "arrays/text.npy#2"]


class Planted:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_planted_pickle_does_not_run(tree, refused, tmp_path):
    held = features()
    held["train"]["id"] = [Planted(str(tmp_path / "trap"))]
    store(tree, held)
    assert "asks for posix.mkdir, which is not read" in refused("mosei", tree.root)
    assert not (tmp_path / "trap").exists()


def test_mistakes(tree, refused):
    assert "none of mosei_senti_data_noalign.pkl, unaligned_50.pkl here" in refused("mosei", tree.root)
    assert "'mosei'" in refused("mosei", tree.root, "--corpus", "moosei")
    for change, says in (
        (lambda held: held.pop("valid"), "needs a dict with train, valid, test"),
        (lambda held: held["train"].pop("audio"), "train: audio must be an array of numbers, not NoneType"),
        (lambda held: held["test"].update(text=np.zeros((4, 3))), "test: text needs the axes clip, time and feature"),
        (lambda held: held["valid"].update(vision=np.zeros((2, 5, 3))), "valid: 2 clips in vision, but 3 labels"),
        (lambda held: held["valid"].update(id=["a"]), "valid: 1 clips in id, but 3 labels"),
        (lambda held: [part["labels"].fill(np.nan) for part in held.values()], "nothing is left of 13 clips (mosei)"),
    ):
        held = features()
        change(held)
        store(tree, held)
        assert says in refused("mosei", tree.root)
    store(tree, [1, 2])
    assert "needs a dict with train, valid, test" in refused("mosei", tree.root)
    tree.text("mosei_senti_data_noalign.pkl", "hello")
    assert "not a pickle that can be read" in refused("mosei", tree.root)
