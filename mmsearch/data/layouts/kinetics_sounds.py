"""Kinetics-Sounds: 31 classes of Kinetics that can be seen and heard."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

from mmsearch.data.layouts import Layout, Listing
from mmsearch.data.layouts._lists import Entry, find_list, numbered, read_list, split_of
from mmsearch.data.layouts._places import add_rows, find_place
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import knob

CLASSES = [
    "blowing_nose", "blowing_out_candles", "bowling", "chopping_wood", "dribbling_basketball", "laughing",
    "mowing_lawn", "playing_accordion", "playing_bagpipes", "playing_bass_guitar", "playing_clarinet",
    "playing_drums", "playing_guitar", "playing_harmonica", "playing_keyboard", "playing_organ", "playing_piano",
    "playing_saxophone", "playing_trombone", "playing_trumpet", "playing_violin", "playing_xylophone",
    "ripping_paper", "shoveling_snow", "shuffling_cards", "singing", "stomping_grapes", "tap_dancing",
    "tapping_guitar", "tapping_pen", "tickling",
]  # fmt: skip
"""In the order of the numbers in the lists."""

LISTS = {
    part: (
        f"ks_{part}_overlap.txt", f"ks_{part}.txt", f"{part}_1fps_path.txt", f"my_{part}.txt", f"{part}.txt",
        f"ks_{part}.csv", f"{part}.csv",
    )
    for part in ("train", "val", "test")
}  # fmt: skip
FOLDERS = (".", "ks_audio", "lists", "data", "data/KineticSound", "data/kinetics_sounds")
DATABASES = ("KS.json", "kinetics_sounds.json", "ks.json")

SOUND = (
    "ks_audio/{split}/{name}.npy", "audio/{split}/{name}.npy", "audio/{name}.npy", "audio/{name}.wav",
    "audio/{name}.pkl", "all_spec/{name}.pkl", "spec/{name}.pkl", "fbank/{name}.npy",
)  # fmt: skip
FRAMES = (
    "ks_visual/{split}/{name}", "visual/{split}/{name}", "visual/{name}", "frames/{name}", "Image-*-FPS/{name}",
    "visual/{name}.hdf5", "all_frame/{name}.hdf5", "frames/{name}.hdf5",
)  # fmt: skip
LEAST_FRAMES = 4
"""The protocols leave out a clip whose folder has fewer pictures."""


@dataclasses.dataclass
class KineticsSounds(Layout):
    """K1: a JSON with `.pkl` and `.hdf5` a clip. K2: lists, one folder a modality. K3: the same, a folder a split."""

    name: ClassVar[str] = "kinetics_sounds"
    summary: ClassVar[str] = "Kinetics-Sounds as BML-OGM, BalanceBenchmark, InfoReg or modality valuation have it"
    expects: ClassVar[str] = (
        "KS.json, or lists such as ks_train.txt and ks_test.txt (name, anything, class number);\n"
        "audio/<name>.npy, ks_audio/<split>/<name>.npy, audio/<name>.wav or audio/<name>.pkl;\n"
        "visual/<name>/*.jpg, ks_visual/<split>/<name>/*.jpg or visual/<name>.hdf5"
    )

    lists: str = knob("", "folder of the lists, or the JSON, where they are not beside the clips", search=False)
    sound: str = knob("", "where the sound is, as in 'audio/{split}/{name}.npy'", search=False)
    frames: str = knob("", "where the frames are, as in 'visual/{name}'", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        classes, entries = self._entries(root)
        sound = find_place(root, (self.sound,) if self.sound else SOUND, entries, "sound")
        frames = find_place(root, (self.frames,) if self.frames else FRAMES, entries, "frames", least=LEAST_FRAMES)
        listing = Listing(root, "kinetics-sounds", classes)
        listing.modalities = {
            "sound": sound.modality("sound", "sound", rate=16000, seconds=10.0),
            "frames": frames.modality(
                "frames", "frames", frames=3 if frames.ending == ".hdf5" else 9, size=224, codec="jpeg"
            ),
        }
        listing.notes = [
            "Sound: encoder spectrogram with front fbank (1024 x 128); filter banks computed beforehand: encoder map.",
            "Frames a clip: 3.",
        ]
        add_rows(listing, entries, {"sound": sound, "frames": frames}, group=video)
        return listing

    def _entries(self, root: Path) -> tuple[list[str], list[Entry]]:
        given = Path(self.lists) if self.lists else None
        if given and given.is_file():
            return read_database(given)
        folders = [given] if given else [root / folder for folder in FOLDERS]
        database = find_list(folders, DATABASES)
        if database:
            return read_database(database)
        found = {part: find_list(folders, names) for part, names in LISTS.items()}
        if not found["train"] or not found["test"]:
            missing = " and ".join(LISTS[part][1] for part in ("train", "test") if not found[part])
            raise MMSearchError(
                f"{root}: no {missing} and no {DATABASES[0]} here; looked for "
                f"{', '.join((*LISTS['train'], *LISTS['test'], *DATABASES))}; name their folder with --lists"
            )
        labels = numbered(CLASSES)
        return CLASSES, [e for part, path in found.items() if path for e in read_list(path, labels, part)]


def read_database(path: Path) -> tuple[list[str], list[Entry]]:
    """Classes and clips of BML's JSON: `{"labels": [...], "database": {id: {"subset": ..., "label": ...}}}`.

    Raises:
        MMSearchError: it is not of this form, or has an unknown label or subset.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8-sig"))
        classes = [str(name) for name in held["labels"]]
        clips = [(str(name), str(clip["label"]), str(clip["subset"])) for name, clip in held["database"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MMSearchError(
            f'{path}: needs {{"labels": [...], "database": {{id: {{"subset": ..., "label": ...}}}}}}: {error!r}'
        ) from None
    entries = []
    for name, label, subset in clips:
        where = f"{path}: {name}"
        if label not in classes:
            raise MMSearchError(f"{where}: label {label!r} is not among the labels{nearest(label, classes)}")
        entries.append(Entry(name, label, split_of(subset, where), where))
    return classes, entries


def video(name: str) -> str:
    """The eleven characters of the source video's id on YouTube."""
    return name[:11]
