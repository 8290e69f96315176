"""UCF-101: 13,320 clips of 101 actions, as RGB frames and optical flow."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path, PurePosixPath
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing
from mmsearch.data.layouts._lists import Entry, find_list, read_cells, read_classes
from mmsearch.data.layouts._places import add_rows, find_place
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import knob

FILMS = ("UCF-101/{label}/{name}.avi", "videos/{label}/{name}.avi", "{label}/{name}.avi")
FRAMES = ("visual/{name}", "jpegs_256/{name}", "rgb/{name}", "frames/{name}", *FILMS)
FLOW = ("tvl1_flow/{uv}/{name}", "flow/{uv}/{name}", "flow_{uv}/{name}", "{uv}/{name}", *FILMS)


@dataclasses.dataclass
class UCF101(Layout):
    """RGB frames in a folder a clip, horizontal and vertical flow in two more; or the films themselves.

    Clips of one class with the same number gNN are cut from one video: they are a group.
    """

    name: ClassVar[str] = "ucf101"
    summary: ClassVar[str] = "UCF-101 as RGB frames and optical flow (two-stream frames, BalanceBenchmark)"
    expects: ClassVar[str] = (
        "classInd.txt, trainlist01.txt, testlist01.txt, perhaps in ucfTrainTestlist;\n"
        "visual/<clip>/*.jpg or jpegs_256/<clip>/*.jpg;\n"
        "tvl1_flow/u/<clip>/*.jpg and tvl1_flow/v/<clip>/*.jpg, or flow/{u,v}, or flow_{u,v};\n"
        "or UCF-101/<Class>/<clip>.avi, from which the flow is computed (extra flow)"
    )

    fold: int = knob(1, "which of the three published splits", low=1, high=3, search=False)
    lists: str = knob("", "folder of classInd.txt and the lists, where they are not beside the clips", search=False)
    frames: str = knob("", "where the frames are, as in 'jpegs_256/{name}'", search=False)
    flow: str = knob("", "where the flow is, {uv} for u and v, as in 'tvl1_flow/{uv}/{name}'", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        given = Path(self.lists or root)
        folders = [given, given / "ucfTrainTestlist", given / "lists"]
        wanted = ["classInd.txt", f"trainlist{self.fold:02d}.txt", f"testlist{self.fold:02d}.txt"]
        paths = [find_list(folders, [name]) for name in wanted]
        if None in paths:
            lost = [name for name, path in zip(wanted, paths, strict=True) if path is None]
            raise MMSearchError(f"{given}: no {' and no '.join(lost)} here; name their folder with --lists")
        index, train, test = (path for path in paths if path)
        classes = read_classes(index)
        entries = [*read_clips(train, classes, "train"), *read_clips(test, classes, "test")]
        frames = find_place(root, (self.frames,) if self.frames else FRAMES, entries, "frames")
        flow = find_place(root, (self.flow,) if self.flow else FLOW, entries, "flow")
        listing = Listing(root, "ucf101", classes)
        listing.modalities = {
            "frames": frames.modality("frames", "frames", frames=6, size=224, codec="jpeg"),
            "flow": flow.modality("flow", "flow", frames=6, size=224, codec="jpeg"),
        }
        listing.notes = ["Frames and flow pictures a clip: 3."]
        if flow.ending:
            listing.notes.append("The flow is computed from the films: pip install 'mmsearch[flow]'.")
        add_rows(listing, entries, {"frames": frames, "flow": flow}, group=source)
        return listing


def read_clips(path: Path, classes: list[str], split: str) -> list[Entry]:
    """The clips of a list of `Class/v_Class_gNN_cNN.avi`, with or without the class number after it.

    Raises:
        MMSearchError: a line that is not of this form, or a class that is not in the class list.
    """
    entries = []
    for number, cells in read_cells(path, " "):
        where, clip = f"{path}:{number}", PurePosixPath(cells[0])
        if len(clip.parts) != 2:
            raise MMSearchError(f"{where}: needs Class/clip.avi, found {cells[0]!r}")
        if clip.parts[0] not in classes:
            raise MMSearchError(f"{where}: {clip.parts[0]!r} is not among the classes{nearest(clip.parts[0], classes)}")
        entries.append(Entry(clip.stem, clip.parts[0], split, where))
    return entries


def source(name: str) -> str:
    """The class and number of the video that a clip is cut from, as in `ApplyEyeMakeup_g08`."""
    found = re.fullmatch(r"v_(.+_g\d+)_c\d+", name)
    return found[1] if found else name
