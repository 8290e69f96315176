"""CREMA-D in the four shapes that repositories expect."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.data import Dataset
from mmsearch.data.decode import decode_clip
from mmsearch.data.layouts.cremad import ACTORS, CLASSES, actor, drawn_actors

CLIPS = [f"{a}_{s}_{e}_XX" for e in CLASSES for a, s in (("1001", "DFA"), ("1002", "DFA"), ("1001", "IEO"))]
TRAIN, TEST = [c for c in CLIPS if "DFA" in c], [c for c in CLIPS if "IEO" in c]


def lists(tree, folder: str = "", ending: str = "\r\n", header: str = "") -> None:
    for name, clips in (("train", TRAIN), ("test", TEST)):
        rows = "".join(f"{clip},{clip.split('_')[2]}{ending}" for clip in clips)
        tree.text(f"{folder}{name}.csv", f"{header}{rows}")


def v1(tree, fps: str = "01") -> None:
    lists(tree, "data/CREMAD/")
    for clip in CLIPS:
        tree.sound(f"AudioWAV/{clip}.wav")
        tree.pictures(f"Image-{fps}-FPS/{clip}", ("00000.jpg", "00030.jpg"))


def v2(tree) -> None:
    lists(tree, "cremad/", header="\ufeffname,label\r\n")
    for clip in CLIPS:
        torch.save(torch.rand(257, 188), tree.path(f"audio/{clip}.pt"))
        tree.pictures(f"visual/{clip}", ("frame_00001.jpg", "frame_00002.jpg"))


def test_v1_wav_and_frames(tree, manifest):
    v1(tree)
    written = manifest("cremad", tree.root)
    assert "crema-d: 18 clips listed, 18 kept, 0 missing" in written.said
    assert "splits: train 12, test 6" in written.said
    assert written.yaml["classes"] == ["NEU", "HAP", "SAD", "FEA", "DIS", "ANG"]
    assert written.yaml["root"] == str(tree.root)
    row = written.rows[0]
    assert row["sound"] == f"AudioWAV/{CLIPS[0]}.wav" and row["frames"] == f"Image-01-FPS/{CLIPS[0]}"
    assert row["group"] == "1001" and row["split"] == "train"
    assert (written.folder / "dataset.yaml").read_text().startswith("# Written by `mmsearch manifest cremad`.\n")
    dataset = Dataset.load(written.folder / "dataset.yaml")
    assert [dataset.modalities[m].kind for m in ("sound", "frames")] == ["sound", "frames"]
    assert [c.label for c in dataset.clips[:3]] == [0, 0, 1]
    stored = decode_clip(dataset.sources(dataset.clips[0]))
    assert stored["sound"].size and stored["frames"].shape == (3, 224, 224, 3)


def test_v2_tensors_are_rewritten_and_classes_are_alphabetical(tree, manifest):
    v2(tree)
    written = manifest("cremad", tree.root)
    assert written.yaml["classes"] == ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]
    assert "18 files rewritten, 0 were there" in written.said
    assert written.yaml["modalities"]["sound"] == {"kind": "series", "column": "sound"}
    assert "root" not in written.yaml
    assert written.rows[0]["sound"] == f"arrays/sound/{CLIPS[0]}.npy"
    assert written.rows[0]["frames"] == f"media/visual/{CLIPS[0]}"
    assert np.load(written.folder / written.rows[0]["sound"]).shape == (188, 257), "time first"
    dataset = Dataset.load(written.folder / "dataset.yaml")
    stored = decode_clip(dataset.sources(dataset.clips[0]))
    assert stored["sound"].shape == (188, 257) and stored["frames"].shape == (3, 224, 224, 3)


def test_v3_has_the_files_of_v2_and_the_classes_of_v1(tree, manifest):
    v2(tree)
    assert manifest("cremad", tree.root, "--variant", "v3").yaml["classes"] == CLASSES


def test_v4_pickled_spectrograms(tree, manifest):
    lists(tree)
    for clip in CLIPS:
        tree.path(f"Audio-1004/{clip}.pkl").write_bytes(pickle.dumps(np.zeros((257, 1004), np.float32)))
        tree.pictures(f"Image-01-FPS/{clip}")
    written = manifest("cremad", tree.root)
    assert written.yaml["classes"] == CLASSES
    assert np.load(written.folder / written.rows[0]["sound"]).shape == (1004, 257)


def test_rewriting_goes_on_where_it_stopped(tree, manifest):
    v2(tree)
    written = manifest("cremad", tree.root)
    (written.folder / "arrays" / "sound" / f"{CLIPS[3]}.npy").unlink()
    again = manifest("cremad", tree.root, "--force")
    assert "1 files rewritten, 17 were there" in again.said
    assert again.rows == written.rows
    assert not list(written.folder.rglob(".*.npy.*")), "nothing half-written is left"


def test_a_tensor_that_cannot_be_read_is_counted(tree, manifest):
    v2(tree)
    tree.text(f"audio/{CLIPS[0]}.pt", "nothing of the kind")
    torch.save(torch.rand(4), tree.path(f"audio/{CLIPS[1]}.pt"))
    written = manifest("cremad", tree.root)
    assert "18 clips listed, 16 kept, 2 missing" in written.said
    assert f"cannot be converted: 2, such as {CLIPS[0]} (" in written.said
    assert "needs an array of two dimensions, found [4]" in written.said
    assert len(written.rows) == 16


def test_missing_clips_are_counted_and_change_no_class_index(tree, manifest):
    v1(tree)
    for clip in CLIPS:
        if "_NEU_" in clip:
            (tree.root / "AudioWAV" / f"{clip}.wav").unlink()
    (tree.root / "Image-01-FPS" / CLIPS[-1] / "00000.jpg").unlink()
    (tree.root / "Image-01-FPS" / CLIPS[-1] / "00030.jpg").unlink()
    written = manifest("cremad", tree.root)
    assert "18 clips listed, 14 kept, 4 missing" in written.said
    assert f"  no sound: 3, such as {CLIPS[0]}, {CLIPS[1]}, {CLIPS[2]}\n" in written.said
    assert f"  no frames: 1, such as {CLIPS[-1]}\n" in written.said
    assert "warning: 1 of 6 classes have no clip left, such as NEU" in written.said
    assert written.yaml["classes"] == CLASSES


def test_the_published_split_is_warned_of_and_the_other_has_actors_apart(tree, manifest):
    v1(tree)
    published = manifest("cremad", tree.root)
    assert "--split speaker" in published.said
    assert "warning: 1 groups are in test and outside it, such as 1001" in published.said
    drawn = manifest("cremad", tree.root, "--split", "speaker", out="drawn")
    assert "warning" not in drawn.said
    test = {actor(row["clip_id"]) for row in drawn.rows if row["split"] == "test"}
    assert test == {"1001", "1002"} & set(drawn_actors())


def test_nine_of_all_actors_are_drawn_whatever_is_on_disk():
    assert len(ACTORS) == 91 and len(set(drawn_actors())) == 9 and set(drawn_actors()) < set(ACTORS)
    assert drawn_actors() == drawn_actors()


def test_two_frame_folders_need_a_choice(tree, manifest, refused):
    v1(tree)
    for clip in CLIPS:
        tree.pictures(f"Image-03-FPS/{clip}")
    assert "say which with --frames 'Image-01-FPS/{name}'" in refused("cremad", tree.root)
    chosen = manifest("cremad", tree.root, "--frames", "Image-03-FPS/{name}")
    assert chosen.rows[0]["frames"] == f"Image-03-FPS/{CLIPS[0]}"


def test_lists_may_be_elsewhere(tree, manifest, refused, tmp_path):
    v1(tree)
    (tree.root / "data").rename(tmp_path / "lists")
    assert "no train.csv and no test.csv" in refused("cremad", tree.root)
    assert len(manifest("cremad", tree.root, "--lists", str(tmp_path / "lists" / "CREMAD")).rows) == 18


def test_the_published_download_without_lists(tree, manifest, refused):
    for clip in CLIPS:
        tree.sound(f"AudioWAV/{clip}.wav")
        tree.path(f"VideoFlash/{clip}.flv").touch()
    assert "or use --split speaker" in refused("cremad", tree.root)
    written = manifest("cremad", tree.root, "--split", "speaker")
    assert len(written.rows) == 18 and written.rows[0]["frames"].startswith("VideoFlash/1001_")
    tree.sound("AudioWAV/1001_DFA_XXX_XX.wav")
    assert "'1001_DFA_XXX_XX' is no clip of CREMA-D" in refused("cremad", tree.root, "--split", "speaker", out="more")


def test_development_lists_of_diagnosing_stand_for_train(tree, manifest):
    v2(tree)
    (tree.root / "cremad" / "train.csv").unlink()
    tree.text("cremad/my_train.csv", [f"{c},{c.split('_')[2]}" for c in TRAIN[:-2]])
    tree.text("cremad/val.csv", [f"{c},{c.split('_')[2]}" for c in TRAIN[-2:]])
    assert "splits: train 10, val 2, test 6" in manifest("cremad", tree.root).said


def test_a_folder_of_something_else_is_refused(tree, refused):
    tree.text("readme.txt", "hello")
    assert "no train.csv" in refused("cremad", tree.root)
    lists(tree)
    message = refused("cremad", tree.root)
    assert "no folder of sound here; looked for AudioWAV/{name}.wav" in message
    assert "no such file or folder" in refused("cremad", tree.root / "nowhere")


def test_unknown_class_wrong_name_and_wrong_label(tree, refused):
    v1(tree)
    for line, says in (
        ("1001_DFA_NEU_XX,NEUTRAL", "train.csv:1: label 'NEUTRAL' is not among the classes"),
        ("1234_DFA_NEU_XX,NEU", "train.csv:1: '1234_DFA_NEU_XX' is no clip of CREMA-D"),
        ("1001_DFA_NEU_XX,SAD", "train.csv:1: 1001_DFA_NEU_XX is labelled SAD, but its name says NEU"),
    ):
        tree.text("data/CREMAD/train.csv", [line, *(f"{c},{c.split('_')[2]}" for c in TRAIN)])
        assert says in refused("cremad", tree.root)


def test_all_media_missing(tree, refused):
    lists(tree)
    tree.path("AudioWAV/x").touch()
    tree.path("Image-01-FPS/x").touch()
    assert "nothing is left of 18 clips (cremad): no sound: 18" in refused("cremad", tree.root)


def test_what_is_there_is_replaced_only_when_told(tree, manifest, refused):
    v1(tree)
    manifest("cremad", tree.root)
    assert "manifest.csv: is there already; --force replaces it" in refused("cremad", tree.root)
    manifest("cremad", tree.root, "--force")


def test_the_published_lists(tree, manifest, real_lists: Path):
    """7,442 clips; counts as in the papers' lists. The media are stand-ins."""
    for name in ("train", "test"):
        tree.text(f"{name}.csv", (real_lists / f"cremad_{name}.csv").read_text())
    clips = [line.split(",")[0] for n in ("train", "test") for line in (tree.root / f"{n}.csv").read_text().split()]
    tree.path("AudioWAV/x")
    for clip in clips:
        (tree.root / "AudioWAV" / f"{clip}.wav").touch()
        (tree.root / "Image-01-FPS" / clip).mkdir(parents=True)
        (tree.root / "Image-01-FPS" / clip / "00000.jpg").touch()
    written = manifest("cremad", tree.root)
    assert "crema-d: 7442 clips listed, 7442 kept, 0 missing" in written.said
    assert "splits: train 6698, test 744" in written.said
    assert "warning: 91 groups are in test and outside it" in written.said
    counts = {s: Counter(r["label"] for r in written.rows if r["split"] == s) for s in ("train", "test")}
    assert counts["train"] == {"ANG": 1166, "HAP": 1148, "DIS": 1142, "FEA": 1138, "SAD": 1131, "NEU": 973}
    assert counts["test"] == {"SAD": 140, "FEA": 133, "DIS": 129, "HAP": 123, "NEU": 114, "ANG": 105}
    drawn = manifest("cremad", tree.root, "--split", "speaker", out="drawn")
    test = [row for row in drawn.rows if row["split"] == "test"]
    assert 0.09 < len(test) / 7442 < 0.11 and len({row["group"] for row in test}) == 9
    assert len({row["label"] for row in test}) == 6
    assert "groups are in test" not in drawn.said


def test_the_published_validation_list_is_a_part_of_train(real_lists: Path):
    train = {line for line in (real_lists / "cremad_train.csv").read_text().split()}
    val = {line for line in (real_lists / "cremad_val_diagnosing.csv").read_text().split()}
    assert len(val) == 744 and val < train and len(train - val) == 5954


@pytest.mark.parametrize("flag", ["--splt", "--lst"])
def test_a_flag_that_does_not_exist_is_answered_with_the_nearest(flag, tree, refused):
    assert "did you mean '--" in refused("cremad", tree.root, flag, "x")
