"""VGGSound: about 200,000 clips of ten seconds in 309 classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing
from mmsearch.data.layouts._lists import Entry, find_list, read_cells, split_of
from mmsearch.data.layouts._places import add_rows, find_place
from mmsearch.errors import MMSearchError
from mmsearch.knobs import knob

SOUND = (
    "{split}-audios/{split}-set/{name}.wav", "audio/{split}/{name}.wav", "{split}/audio/{name}.wav",
    "audio/{split}/{name}.npy", "{split}/audio/{name}.npy", "audio/{name}.npy", "audio/{name}.wav",
    "video/{name}.mp4", "videos/{name}.mp4",
)  # fmt: skip
FRAMES = (
    "{split}-videos/{split}-set-img/Image-*-FPS/{name}.mp4", "visual/{split}/{name}", "{split}/visual/{name}",
    "visual/{name}", "frames/{split}/{name}", "frames/{name}", "video/{name}.mp4", "videos/{name}.mp4",
)  # fmt: skip
LEAST_FRAMES = 4
"""The protocols leave out a clip whose folder has fewer pictures."""


@dataclasses.dataclass
class VGGSound(Layout):
    """G1: `<split>-audios` and `<split>-videos`. G2: filter banks and frames. G3: start padded to six digits.

    The classes are all labels of the whole list in alphabetical order, whatever part of it is on disk.
    """

    name: ClassVar[str] = "vggsound"
    summary: ClassVar[str] = "VGGSound as OGM-GE or BalanceBenchmark have it, or as one mp4 a clip"
    expects: ClassVar[str] = (
        "vggsound.csv (id, start, label, split; header or none); start padded to six digits or not:\n"
        "<split>-audios/<split>-set/<id>_<start>.wav or audio/<split>/<id>_<start>.npy;\n"
        "<split>-videos/<split>-set-img/Image-<fps>-FPS/<id>_<start>.mp4/*.jpg or visual/<split>/<id>_<start>/*.jpg;\n"
        "or video/<id>_<start>.mp4 for both"
    )

    lists: str = knob("", "folder of vggsound.csv, or the file, where it is not beside the clips", search=False)
    sound: str = knob("", "where the sound is, as in 'audio/{split}/{name}.npy'", search=False)
    frames: str = knob("", "where the frames are, as in 'visual/{split}/{name}'", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        given = Path(self.lists or root)
        path = given if given.is_file() else find_list([given, given / "data"], ["vggsound.csv"])
        if path is None:
            raise MMSearchError(f"{given}: no vggsound.csv here; name its folder with --lists")
        entries = read_vggsound(path)
        sound = find_place(root, (self.sound,) if self.sound else SOUND, entries, "sound", names)
        frames = find_place(
            root, (self.frames,) if self.frames else FRAMES, entries, "frames", names, least=LEAST_FRAMES
        )
        listing = Listing(root, "vggsound", sorted({entry.label for entry in entries}))
        listing.modalities = {
            "sound": sound.modality("sound", "sound", rate=16000, seconds=10.0),
            "frames": frames.modality("frames", "frames", frames=10, size=224, codec="jpeg"),
        }
        listing.notes = [
            "Sound: OGM-GE cuts 5 s at random, at test time too; filter banks computed beforehand: encoder map.",
            "Frames a clip: 3.",
        ]
        add_rows(listing, entries, {"sound": sound, "frames": frames}, group=video, names=names)
        return listing


def read_vggsound(path: Path) -> list[Entry]:
    """The clips of `vggsound.csv`, named `<id>_<start>` with the start as it is written.

    Raises:
        MMSearchError: a row that has not four cells, a start that is no number, an unknown split.
    """
    entries = []
    rows = [(number, cells) for number, cells in read_cells(path, ",") if not cells[0].startswith("#")]
    if rows and len(rows[0][1]) == 4 and not rows[0][1][1].isdigit() and rows[0][1][3] not in ("train", "test"):
        rows = rows[1:]
    for number, cells in rows:
        where = f"{path}:{number}"
        if len(cells) != 4:
            raise MMSearchError(f"{where}: needs id, start, label and split, found {len(cells)} cells")
        name, start, label, split = cells
        if not start.isdigit():
            raise MMSearchError(f"{where}: start is {start!r}; it must be whole seconds")
        if not label:
            raise MMSearchError(f"{where}: label is empty")
        entries.append(Entry(f"{name}_{int(start)}", label, split_of(split, where), where))
    return entries


def names(entry: Entry) -> Sequence[str]:
    """On disk the start is plain or padded to six digits."""
    name, _, start = entry.name.rpartition("_")
    return (entry.name, f"{name}_{int(start):06d}")


def video(name: str) -> str:
    """The source video's id on YouTube."""
    return name.rpartition("_")[0]
