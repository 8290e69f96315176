"""A folder a class."""

from __future__ import annotations

import os

import pytest

from mmsearch.data import Dataset


def clips(tree, prefix: str = "", ending: str = ".mp4", classes=("cat", "dog"), count: int = 3) -> None:
    for label in classes:
        for i in range(count):
            tree.path(f"{prefix}{label}/clip {i}{ending}").touch()


def test_a_folder_a_class(tree, manifest):
    clips(tree)
    tree.path("dog/deeper/more.mkv").touch()
    tree.path("dog/notes.txt").touch()
    tree.path("dog/.hidden.mp4").touch()
    tree.path("readme.txt").touch()
    written = manifest("folder", tree.root)
    assert "set: 8 clips listed, 7 kept, 1 missing" in written.said
    assert "  no video, sound or picture: 1, such as dog/notes.txt" in written.said
    assert list(written.yaml["modalities"]) == ["sound", "frames"]
    assert written.column("path")["dog/deeper/more"] == "dog/deeper/more.mkv"
    assert "split" not in written.rows[0]
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 7


def test_folders_of_splits(tree, manifest):
    for split in ("train", "valid", "test"):
        clips(tree, f"{split}/")
    written = manifest("folder", tree.root)
    assert "splits: train 6, val 6, test 6" in written.said
    assert written.yaml["classes"] == ["cat", "dog"]
    assert written.column("split")["valid/cat/clip 0"] == "val"


def test_classes_called_like_splits_are_classes(tree, manifest):
    clips(tree, classes=("train", "test", "bus"))
    assert manifest("folder", tree.root).yaml["classes"] == ["bus", "test", "train"]


@pytest.mark.parametrize(
    ("ending", "kinds"), [(".wav", ["sound"]), (".JPG", ["image"]), (".webm", ["sound", "frames"])]
)
def test_the_modalities_are_those_of_the_files(ending, kinds, tree, manifest):
    clips(tree, ending=ending)
    assert list(manifest("folder", tree.root).yaml["modalities"]) == kinds


def test_a_class_list_fixes_the_indices(tree, manifest, refused):
    clips(tree)
    tree.text("classes.txt", ["dog", "owl", "cat"])
    written = manifest("folder", tree.root, "--classes", str(tree.root / "classes.txt"))
    assert written.yaml["classes"] == ["dog", "owl", "cat"]
    assert "warning: 1 of 3 classes have no clip left, such as owl" in written.said
    tree.path("cta/x.mp4").touch()
    message = refused("folder", tree.root, "--classes", str(tree.root / "classes.txt"), out="again")
    assert "'cta' is not among the classes; did you mean 'cat'?" in message


def test_links_are_followed_and_loops_are_named(tree, manifest, refused, tmp_path):
    clips(tree, classes=("cat",))
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.mp4").touch()
    (tree.root / "dog").symlink_to(tmp_path / "far")
    assert len(manifest("folder", tree.root).rows) == 4
    (tree.root / "cat" / "loop").symlink_to(tree.root)
    assert f"cat/loop: the link leads back to {tree.root}" in refused("folder", tree.root, out="again")


def test_names_that_a_manifest_cannot_hold_are_counted(tree, manifest):
    clips(tree)
    (tree.root / "cat" / os.fsdecode(b"caf\xe9.mp4")).touch()
    (tree.root / "cat" / "a, \"b\" 'c'\n#d.mp4").touch()
    written = manifest("folder", tree.root)
    assert "  the name is not UTF-8: 1, such as cat/caf\\xe9" in written.said
    assert "cat/a, \"b\" 'c'\n#d.mp4" in written.column("path").values()
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 7


def test_a_class_that_is_not_utf8_is_refused_by_name(tree, refused):
    clips(tree)
    folder = tree.root / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "a.mp4").touch()
    assert "caf\\xe9: the name is not UTF-8; rename it" in refused("folder", tree.root)


def test_mistakes(tree, refused):
    assert "no folder in it" in refused("folder", tree.root)
    tree.path("cat/readme.txt").touch()
    tree.path("dog/readme.txt").touch()
    assert "nothing is left of 2 clips (folder): no video, sound or picture: 2" in refused("folder", tree.root)
    tree.path("cat/a.mp4").touch()
    tree.path("dog/a.png").touch()
    assert "videos and single pictures side by side" in refused("folder", tree.root)
    assert "is no folder" in refused("folder", tree.root / "cat" / "a.mp4")
