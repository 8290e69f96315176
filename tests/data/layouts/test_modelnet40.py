"""ModelNet40 as rendered views."""

from __future__ import annotations

import shutil

import pytest

from mmsearch.data import Dataset
from mmsearch.data.layouts.modelnet40 import CLASSES

STYLES = ["{0}.obj.shaded_v{1:03d}.png", "{0}_v{1:03d}.png", "{0}_{1:03d}.png", "{0}_{2:03d}_{1:03d}.png"]


def views(tree, style: str = STYLES[0], folder: str = "", sides=(1, 7)) -> None:
    tree.picture("one.png")
    for label in CLASSES:
        for split, number in (("train", 1), ("train", 2), ("test", 627)):
            for side in sides:
                file = style.format(f"{label}_{number:04d}", side, 30 * (side - 1))
                shutil.copy(tree.root / "one.png", tree.path(f"{folder}{label}/{split}/{file}"))


@pytest.mark.parametrize("style", STYLES)
def test_two_views_are_two_modalities(style, tree, manifest):
    views(tree, style)
    written = manifest("modelnet40", tree.root)
    assert "modelnet40: 120 clips listed, 120 kept, 0 missing" in written.said
    assert "splits: train 80, test 40" in written.said
    assert written.yaml["classes"] == CLASSES and len(CLASSES) == 40 and sorted(CLASSES) == CLASSES
    assert {m: c["kind"] for m, c in written.yaml["modalities"].items()} == {"view1": "image", "view7": "image"}
    row = next(r for r in written.rows if r["clip_id"] == "night_stand_0627")
    assert row["view1"] == "night_stand/test/" + style.format("night_stand_0627", 1, 0)
    assert row["view7"] == "night_stand/test/" + style.format("night_stand_0627", 7, 180)
    assert len(Dataset.load(written.folder / "dataset.yaml").clips) == 120


def test_other_views_and_a_folder_above(tree, manifest):
    views(tree, folder="modelnet40_images_new_12x/", sides=(1, 2, 3))
    (tree.root / "modelnet40_images_new_12x/vase/test/vase_0627.obj.shaded_v003.png").unlink()
    written = manifest("modelnet40", tree.root, "--views", "1,2,3")
    assert list(written.yaml["modalities"]) == ["view1", "view2", "view3"]
    assert "  no view 3: 1, such as vase_0627" in written.said
    assert written.yaml["root"].endswith("modelnet40_images_new_12x")


@pytest.mark.parametrize("text", ["1,1", "0,7", "13", "one", "", "1;7"])
def test_views_are_different_numbers_of_sides(text, tree, refused):
    assert "it must be different numbers from 1 to 12" in refused("modelnet40", tree.root, "--views", text)


def test_mistakes(tree, refused, manifest):
    assert "no class folder here; looked for airplane, bathtub" in refused("modelnet40", tree.root)
    views(tree, sides=(2,))
    assert "nothing is left of 120 clips (modelnet40): no view 1 and 7: 120" in refused("modelnet40", tree.root)
    views(tree)
    tree.picture("vaze/train/vaze_0001.obj.shaded_v001.png")
    tree.picture("vase/train/thumbnail.png")
    said = manifest("modelnet40", tree.root).said
    assert "warning: folder vaze is no class of ModelNet40; did you mean 'vase'?" in said
    assert "  not named as a view: 1, such as thumbnail.png" in said
