"""UPMC FOOD-101."""

from __future__ import annotations

import pytest

from mmsearch.data import Dataset

CLASSES = ["apple_pie", "baby_back_ribs"]
TITLES = {
    split: [
        (f"{c}_{i + 10 * (split == 'test')}.jpg", f'The "best" {c},\n  number {i}', c)
        for c in CLASSES
        for i in range(2)
    ]
    for split in ("train", "test")
}


def quoted(cells) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)


def dishes(tree, header: str = "Image_path,text,label\r\n") -> None:
    for split, titles in TITLES.items():
        tree.text(f"texts/{split}_titles.csv", header + "".join(f"{quoted(t)}\r\n" for t in titles))
        for file, _, label in titles:
            tree.picture(f"images/{split}/{label}/{file}")


@pytest.mark.parametrize("header", ["Image_path,text,label\r\n", "\ufeffImage_path,text,label\n", ""])
def test_pictures_and_titles(header, tree, manifest):
    dishes(tree, header)
    written = manifest("food101", tree.root)
    assert "food101: 8 clips listed, 8 kept, 0 missing" in written.said and "train 4, test 4" in written.said
    assert written.yaml["modalities"]["text"] == {"kind": "text", "column": "text", "inline": True}
    row = written.rows[0]
    assert row["text"] == 'The "best" apple_pie, number 0'
    assert row["image"] == "images/train/apple_pie/apple_pie_0.jpg"
    dataset = Dataset.load(written.folder / "dataset.yaml")
    assert dataset.clips[0].texts == {"text": row["text"]}


def test_columns_in_another_order(tree, manifest):
    dishes(tree)
    rows = [quoted((label, text, file)) for file, text, label in TITLES["train"]]
    tree.text("texts/train_titles.csv", ["label,text,Image_path", *rows])
    assert len(manifest("food101", tree.root).rows) == 8


def test_a_missing_picture_is_counted_and_an_empty_title_is_a_missing_text(tree, manifest):
    dishes(tree)
    (tree.root / "images/test/apple_pie/apple_pie_10.jpg").unlink()
    with (tree.root / "texts/train_titles.csv").open("a") as file:
        file.write("apple_pie_7.jpg,,apple_pie\n")
    tree.picture("images/train/apple_pie/apple_pie_7.jpg")
    written = manifest("food101", tree.root)
    assert "  no picture: 1, such as apple_pie_10.jpg" in written.said
    assert written.column("text")["train_apple_pie_apple_pie_7"] == ""


def test_mistakes(tree, refused):
    assert "no texts/train_titles.csv and no texts/test_titles.csv here" in refused("food101", tree.root)
    for split in ("train", "test"):
        tree.text(f"texts/{split}_titles.csv", ["Image_path,text,label", "a.jpg,a pie,apple_pie"])
    assert "nothing is left of 2 clips (food101): no picture: 2" in refused("food101", tree.root)
    tree.text("texts/test_titles.csv", ["Image_path,text,label", "a.jpg,a pie"])
    assert "test_titles.csv:2: needs Image_path, text and label, found 2 cells" in refused("food101", tree.root)
    tree.text("texts/test_titles.csv", ["Image_path,text,label", "a.jpg,a pie,"])
    assert "test_titles.csv:2: label is empty" in refused("food101", tree.root)
