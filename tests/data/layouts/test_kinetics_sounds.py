"""Kinetics-Sounds in the three shapes that repositories expect."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmsearch.data import Dataset
from mmsearch.data.layouts._convert import need_h5py
from mmsearch.data.layouts.kinetics_sounds import CLASSES
from mmsearch.errors import MMSearchError

FRAMES = [f"frame_0000{t}.jpg" for t in range(1, 5)]


def names(split: str, count: int) -> list[tuple[str, int]]:
    return [
        (f"{split[:2]}{label:02d}{i}-_abcde_0000{i}0_0000{i + 1}0", label) for label in range(31) for i in range(count)
    ]


TRAIN, TEST = names("train", 2), names("test", 1)


def test_k2_filter_banks_and_frames(tree, manifest):
    tree.text("ks_train_overlap.txt", [f"{name} {label}" for name, label in TRAIN])
    tree.text("ks_test.txt", [f"{name}\t{label}" for name, label in TEST])
    for name, _ in TRAIN + TEST:
        tree.array(f"audio/{name}.npy", np.zeros((8, 4), np.float32))
        tree.pictures(f"visual/{name}", FRAMES)
    tree.path("visual/" + TRAIN[0][0] + "/" + FRAMES[0]).unlink()
    written = manifest("kinetics_sounds", tree.root)
    assert "93 clips listed, 92 kept, 1 missing" in written.said
    assert f"  fewer than 4 frames: 1, such as {TRAIN[0][0]}" in written.said
    assert written.yaml["classes"] == CLASSES and len(CLASSES) == 31
    assert written.yaml["modalities"]["sound"]["kind"] == "series"
    row = written.rows[0]
    assert row["group"] == row["clip_id"][:11] and row["sound"] == f"audio/{row['clip_id']}.npy"
    written.yaml  # noqa: B018


def test_k3_a_folder_a_split(tree, manifest):
    for split, clips in (("train", TRAIN), ("test", TEST), ("val", names("val", 1))):
        tree.text(
            f"ks_audio/{split}_1fps_path.txt", [f"/data/ks_audio/{split}/{name}.npy {label}" for name, label in clips]
        )
        for name, _ in clips:
            tree.array(f"ks_audio/{split}/{name}.npy", np.zeros((8, 4), np.float32))
            tree.pictures(f"ks_visual/{split}/{name}", FRAMES)
    written = manifest("kinetics_sounds", tree.root)
    assert "splits: train 62, val 31, test 31" in written.said
    assert written.rows[0]["frames"] == f"ks_visual/train/{TRAIN[0][0]}"
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 124


def k1(tree) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra h5 is not installed")
    database = {}
    tree.picture("one.jpg")
    jpeg = np.frombuffer((tree.root / "one.jpg").read_bytes(), np.uint8)
    for subset, clips in (("training", TRAIN), ("validation", names("val", 1)), ("testing", TEST)):
        for name, label in clips:
            database[name] = {"subset": subset, "label": CLASSES[label].replace("_", " ")}
            tree.path(f"audio/{name}.pkl").write_bytes(pickle.dumps(np.ones((8, 4), np.float32)))
            with h5py.File(tree.path(f"visual/{name}.hdf5"), "w") as file:
                pictures = file.create_dataset("video", (3,), dtype=h5py.vlen_dtype(np.uint8))
                for i in range(3):
                    pictures[i] = jpeg
    tree.text("KS.json", json.dumps({"labels": [c.replace("_", " ") for c in CLASSES], "database": database}))


def test_k1_pickles_and_hdf5(tree, manifest):
    k1(tree)
    written = manifest("kinetics_sounds", tree.root)
    assert "splits: train 62, val 31, test 31" in written.said
    assert "248 files rewritten" in written.said
    assert written.yaml["classes"][0] == "blowing nose"
    folder = written.folder / written.rows[0]["frames"]
    assert sorted(p.name for p in folder.iterdir()) == ["frame_00001.jpg", "frame_00002.jpg", "frame_00003.jpg"]
    assert (folder / "frame_00001.jpg").read_bytes() == (tree.root / "one.jpg").read_bytes()
    assert "root" not in written.yaml and not (written.folder / "media").exists()
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 124
    assert "0 files rewritten, 248 were there" in manifest("kinetics_sounds", tree.root, "--force").said


def test_k1_without_h5py_names_the_extra(tree, refused, monkeypatch):
    k1(tree)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'mmsearch[h5]'" in refused("kinetics_sounds", tree.root)
    with pytest.raises(MMSearchError, match="needs h5py"):
        need_h5py(Path("x.hdf5"))


def test_bad_databases(tree, refused):
    for held, says in (
        ({"labels": ["a"]}, "KS.json: needs"),
        ([], "KS.json: needs"),
        ({"labels": ["cat"], "database": {"x": {"subset": "training", "label": "cta"}}}, "x: label 'cta'"),
        ({"labels": ["cat"], "database": {"x": {"subset": "trainning", "label": "cat"}}}, "unknown split 'trainning'"),
    ):
        tree.text("KS.json", json.dumps(held))
        assert says in refused("kinetics_sounds", tree.root)


def test_unknown_number_wrong_root_and_nothing_left(tree, refused):
    assert "no ks_train.txt and ks_test.txt and no KS.json here" in refused("kinetics_sounds", tree.root)
    tree.text("ks_train.txt", ["abcdefghijk_0_10,10,31"])
    tree.text("ks_test.txt", ["bbcdefghijk_0,10,3"])
    assert "ks_train.txt:1: label '31' is not among the classes" in refused("kinetics_sounds", tree.root)
    tree.text("ks_train.txt", ["abcdefghijk_0_10,10,30"])
    assert "no folder of sound here" in refused("kinetics_sounds", tree.root)
    tree.path("audio/x").touch()
    tree.path("visual/x").touch()
    assert "nothing is left of 2 clips (kinetics_sounds): no sound: 2" in refused("kinetics_sounds", tree.root)


def test_the_published_lists(tree, manifest, real_lists: Path):
    """14,799 and 2,597 clips of 31 classes; the media are stand-ins of one modality each."""
    clips = []
    for part in ("train", "test"):
        text = (real_lists / f"ks_{part}.txt").read_text()
        tree.text(f"ks_{part}.txt", text)
        clips += [line.split(",")[0] for line in text.split()]
    tree.path("audio/x")
    for clip in clips:
        (tree.root / "audio" / f"{clip}.wav").touch()
        (tree.root / "audio" / f"{clip}.mp4").touch()
    written = manifest("kinetics_sounds", tree.root, "--frames", "audio/{name}.mp4")
    assert "kinetics-sounds: 17396 clips listed, 17396 kept, 0 missing" in written.said
    assert "splits: train 14799, test 2597" in written.said
    assert "groups are in test" not in written.said
    assert len(Counter(row["label"] for row in written.rows)) == 31
    assert written.column("label")["--4-0ihtnBU_000058_000068"] == "dribbling_basketball"
