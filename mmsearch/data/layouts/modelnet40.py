"""ModelNet40: 12,311 objects of 40 classes, seen from twelve sides; two of them are the modalities."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing, Row
from mmsearch.data.layouts._files import subfolders
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import knob

CLASSES = [
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup", "curtain",
    "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop", "mantel",
    "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa", "stairs", "stool",
    "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
]  # fmt: skip

VIEW = re.compile(r"(?P<object>.+?)(?:\.(?:obj|off))?(?:[._]shaded)?(?:_\d{3})?[._]v?(?P<view>\d{3})\.png")
"""A rendered view: `airplane_0001.obj.shaded_v001.png`, `airplane_0001_v001.png`, or `airplane_0001_000_001.png`."""

SPLITS = ("train", "test")
SIDES = 12


@dataclasses.dataclass
class ModelNet40(Layout):
    """The twelve rendered views of MVCNN; each chosen view is a modality of kind image.

    Views 1 and 7 are opposite sides: the front and the back view of BalanceBenchmark.
    """

    name: ClassVar[str] = "modelnet40"
    summary: ClassVar[str] = "ModelNet40 as rendered views (MVCNN), two of them as modalities"
    expects: ClassVar[str] = (
        "<class>/<train|test>/<object>.obj.shaded_v001.png to _v012.png\n"
        "(also <object>_v001.png, <object>_001.png, <object>_<angle>_001.png), perhaps in modelnet40_images_new_12x"
    )

    views: str = knob("1,7", "numbers of the views, from 1 to 12; each is a modality", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        views = self._numbers()
        inner = root / "modelnet40_images_new_12x"
        folder = inner if inner.is_dir() else root
        listing = Listing(folder, "modelnet40", CLASSES)
        listing.modalities = {f"view{v}": {"kind": "image", "column": f"view{v}", "size": 224} for v in views}
        there = [path.name for path in subfolders(folder)]
        if not set(there) & set(CLASSES):
            raise MMSearchError(f"{folder}: no class folder here; looked for {', '.join(CLASSES[:5])} and 35 more")
        for name in there:
            if name not in CLASSES:
                listing.warnings.append(f"folder {name} is no class of ModelNet40{nearest(name, CLASSES)}")
        for label in CLASSES:
            for split in SPLITS:
                self._add(listing, folder, label, split, views)
        return listing

    def _numbers(self) -> list[int]:
        texts = [text.strip() for text in self.views.split(",")]
        good = all(text.isdigit() and 1 <= int(text) <= SIDES for text in texts)
        if not good or len(set(map(int, texts))) < len(texts):
            raise MMSearchError(f"--views is {self.views!r}; it must be different numbers from 1 to {SIDES}, as in 1,7")
        return [int(text) for text in texts]

    def _add(self, listing: Listing, folder: Path, label: str, split: str, views: list[int]) -> None:
        objects: dict[str, dict[int, str]] = {}
        for path in sorted((folder / label / split).glob("*.png")):
            found = VIEW.fullmatch(path.name)
            if found:
                objects.setdefault(found["object"], {})[int(found["view"])] = f"{label}/{split}/{path.name}"
            else:
                listing.missing.add("not named as a view", path.name)
        for name, sides in objects.items():
            lost = [str(view) for view in views if view not in sides]
            if lost:
                listing.missing.add(f"no view {' and '.join(lost)}", name)
            else:
                cells = {f"view{view}": sides[view] for view in views}
                listing.rows.append(Row(name, label, cells, split))
