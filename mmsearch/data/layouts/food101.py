"""UPMC FOOD-101: pictures of 101 dishes with the title of the page that they come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing, Row
from mmsearch.data.layouts._files import is_file
from mmsearch.data.layouts._lists import read_cells
from mmsearch.errors import MMSearchError

COLUMNS = ("image_path", "text", "label")
SPLITS = ("train", "test")


@dataclasses.dataclass
class Food101(Layout):
    """Titles in two CSV files, pictures in a folder a class; the classes are all labels of both files, sorted."""

    name: ClassVar[str] = "food101"
    summary: ClassVar[str] = "UPMC FOOD-101: pictures and titles"
    expects: ClassVar[str] = (
        "texts/train_titles.csv and texts/test_titles.csv (Image_path, text, label; header or none);\n"
        "images/<train|test>/<label>/<Image_path>"
    )

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        paths = {split: root / "texts" / f"{split}_titles.csv" for split in SPLITS}
        lost = [f"texts/{path.name}" for path in paths.values() if not path.is_file()]
        if lost:
            raise MMSearchError(f"{root}: no {' and no '.join(lost)} here")
        titles = {split: read_titles(path) for split, path in paths.items()}
        listing = Listing(root, "food101", sorted({label for part in titles.values() for _, _, label in part}))
        listing.modalities = {
            "image": {"kind": "image", "column": "image", "size": 224, "codec": "jpeg"},
            "text": {"kind": "text", "column": "text", "inline": True},
        }
        listing.notes = ["Text: the papers read 40 tokens of BERT."]
        for split, part in titles.items():
            for file, text, label in part:
                cell = f"images/{split}/{label}/{file}"
                if is_file(root / cell):
                    clip_id = f"{split}_{label}_{Path(file).stem}"
                    listing.rows.append(Row(clip_id, label, {"image": cell}, split, texts={"text": text}))
                else:
                    listing.missing.add("no picture", file)
        return listing


def read_titles(path: Path) -> list[tuple[str, str, str]]:
    """Picture, title (white space runs as one space) and label of every row.

    Raises:
        MMSearchError: a row that has not three cells, or an empty picture or label.
    """
    rows = read_cells(path, ",")
    columns = [cell.lower() for cell in rows[0][1]]
    header = set(COLUMNS) <= set(columns)
    at = [columns.index(name) for name in COLUMNS] if header else [0, 1, 2]
    titles = []
    for number, cells in rows[1:] if header else rows:
        if len(cells) != len(columns) or len(cells) < len(COLUMNS):
            raise MMSearchError(f"{path}:{number}: needs Image_path, text and label, found {len(cells)} cells")
        file, text, label = (cells[i] for i in at)
        if not file or not label:
            raise MMSearchError(f"{path}:{number}: {'Image_path' if not file else 'label'} is empty")
        titles.append((file, " ".join(text.split()), label))
    return titles
