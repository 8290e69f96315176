"""AVE: 4,143 events in ten-second clips, 28 classes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing
from mmsearch.data.layouts._lists import Entry, find_list, read_cells
from mmsearch.data.layouts._places import add_rows, find_place
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import knob

LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
ANNOTATIONS = ("Annotations.txt", "annotations.txt")

SOUND = ("AVE/{name}.mp4", "wave_files/{name}.wav", "Audio-1004-SE/{name}.pkl", "Audio/{name}.wav", "audio/{name}.wav")
FRAMES = ("AVE/{name}.mp4", "Image-*-FPS-SE/{name}", "Image-*-FPS/{name}", "visual/{name}")


@dataclasses.dataclass
class AVE(Layout):
    """The published videos and lists, or what people extract from them.

    The whole clip of ten seconds is classified, as in OGM-GE and PMR: of a video with several events the first in
    its list counts. The classes are those of Annotations.txt in alphabetical order.
    """

    name: ClassVar[str] = "ave"
    summary: ClassVar[str] = "AVE (audio-visual events) as published, or with extracted frames and sound"
    expects: ClassVar[str] = (
        "Annotations.txt, trainSet.txt, valSet.txt, testSet.txt (Category&VideoID&Quality&StartTime&EndTime);\n"
        "AVE/<id>.mp4; or wave_files/<id>.wav or Audio-1004-SE/<id>.pkl with Image-<fps>-FPS/<id>/*.jpg"
    )

    lists: str = knob("", "folder of the four lists, where they are not beside the clips", search=False)
    sound: str = knob("", "where the sound is, as in 'wave_files/{name}.wav'", search=False)
    frames: str = knob("", "where the frames are, as in 'Image-01-FPS/{name}'", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        folders = [Path(self.lists)] if self.lists else [root, root / "data" / "AVE", root / "data"]
        paths = {split: find_list(folders, [name]) for split, name in LISTS.items()}
        lost = [LISTS[split] for split, path in paths.items() if path is None]
        if lost:
            raise MMSearchError(f"{folders[0]}: no {' and no '.join(lost)} here; name their folder with --lists")
        events = {split: read_events(path, split) for split, path in paths.items() if path}
        annotations = find_list(folders, ANNOTATIONS)
        listed = read_events(annotations, "") if annotations else [e for part in events.values() for e in part]
        classes = sorted({event.label for event in listed})
        entries = [event for part in events.values() for event in part]
        for event in entries:
            if event.label not in classes:
                raise MMSearchError(
                    f"{event.where}: {event.label!r} is not among the classes of {annotations}"
                    f"{nearest(event.label, classes)}"
                )
        sound = find_place(root, (self.sound,) if self.sound else SOUND, entries, "sound")
        frames = find_place(root, (self.frames,) if self.frames else FRAMES, entries, "frames")
        listing = Listing(root, "ave", classes)
        listing.modalities = {
            "sound": sound.modality("sound", "sound", rate=16000, seconds=10.0),
            "frames": frames.modality("frames", "frames", frames=10, size=224, codec="jpeg"),
        }
        listing.notes = ["Sound: encoder spectrogram with front ogm_code or ogm_paper; .pkl spectrograms: encoder map."]
        if not annotations:
            listing.warnings.append("no Annotations.txt: the classes are those of the three lists")
        add_rows(listing, entries, {"sound": sound, "frames": frames}, group=str)
        return listing


def read_events(path: Path, split: str) -> list[Entry]:
    """The events of a list of `Category&VideoID&Quality&StartTime&EndTime`, one a line.

    Raises:
        MMSearchError: a line that has not five cells.
    """
    entries = []
    for number, cells in read_cells(path, "&"):
        if cells[0] == "Category":
            continue
        if len(cells) != 5:
            raise MMSearchError(f"{path}:{number}: needs Category&VideoID&Quality&StartTime&EndTime")
        entries.append(Entry(cells[1], cells[0], split, f"{path}:{number}"))
    return entries
