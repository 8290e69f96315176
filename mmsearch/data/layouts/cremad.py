"""CREMA-D: 7,442 clips of 91 actors saying 12 sentences in six emotions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmsearch.data.layouts import Layout, Listing
from mmsearch.data.layouts._lists import Entry, find_list, read_list
from mmsearch.data.layouts._places import Place, add_rows, find_place
from mmsearch.errors import MMSearchError
from mmsearch.knobs import knob

CLASSES = ["NEU", "HAP", "SAD", "FEA", "DIS", "ANG"]
"""In the order of the class indices of OGM-GE, InfoReg, PMR and BalanceBenchmark."""

ACTORS = tuple(str(number) for number in range(1001, 1092))
"""All of them, so that the drawing of test actors does not depend on whose clips are on disk."""

TEST_ACTORS = 9
"""Drawn for the speaker-disjoint split: about a tenth, as in the published one."""

SOUND = ("AudioWAV/{name}.wav", "Audio/{name}.wav", "audio/{name}.pt", "*Audio*/{name}.pkl", "audio/{name}.pkl")
FRAMES = ("Image-*-FPS/{name}", "visual/{name}", "Image-*-FPS-SE/{name}", "VideoFlash/{name}.flv")


@dataclasses.dataclass
class CremaD(Layout):
    """V1: wav and `Image-<fps>-FPS`. V2 and V3: `audio/*.pt` and `visual`. V4: `*.pkl` and `Image-<fps>-FPS`.

    V2 numbers the classes in alphabetical order, the others as NEU HAP SAD FEA DIS ANG: a checkpoint of the one is
    no checkpoint of the other.
    """

    name: ClassVar[str] = "cremad"
    summary: ClassVar[str] = "CREMA-D as OGM-GE, MMPareto, Diagnosing & Re-learning, BalanceBenchmark or PMR have it"
    expects: ClassVar[str] = (
        "AudioWAV/<id>.wav, audio/<id>.pt or Audio*/<id>.pkl;\n"
        "Image-<fps>-FPS/<id>/*.jpg, visual/<id>/*.jpg or VideoFlash/<id>.flv;\n"
        "train.csv and test.csv in the folder itself, in data/CREMAD, in cremad or in --lists\n"
        "(--split speaker does without them and takes what is in AudioWAV)"
    )

    variant: str = knob("auto", "which copy it is", choices=("auto", "v1", "v2", "v3", "v4"), search=False)
    split: str = knob(
        "published",
        "test part: the published one, which has all 91 actors in train and test, or nine actors drawn once",
        choices=("published", "speaker"),
        search=False,
    )
    lists: str = knob("", "folder of train.csv and test.csv, where they are not beside the clips", search=False)
    sound: str = knob("", "where the sound is, as in 'AudioWAV/{name}.wav'", search=False)
    frames: str = knob("", "where the frames are, as in 'Image-02-FPS/{name}'", search=False)

    def read(self, root: Path) -> Listing:
        """See :meth:`Layout.read`."""
        entries = self._entries(root)
        sound = find_place(root, (self.sound,) if self.sound else SOUND, entries, "sound")
        frames = find_place(root, (self.frames,) if self.frames else FRAMES, entries, "frames")
        variant = self._variant(sound)
        classes = sorted(CLASSES) if variant == "v2" else CLASSES
        listing = Listing(root, "crema-d", classes)
        listing.modalities = {
            "sound": sound.modality("sound", "sound", rate=22050, seconds=5.5),
            "frames": frames.modality("frames", "frames", frames=3, size=224, codec="jpeg"),
        }
        listing.notes = [
            f"Variant {variant}. Sound: encoder spectrogram with front ogm_code (257 x 188, the released code of",
            "OGM-GE) or ogm_paper (257 x 299, its text); spectrograms computed beforehand: encoder map.",
            "Frames a clip: OGM-GE 1, MMPareto and Diagnosing & Re-learning 2, InfoReg and PMR 3.",
        ]
        if self.variant == "auto" and variant == "v2":
            listing.notes.append("BalanceBenchmark has the same files and another order of the classes: --variant v3.")
        if self.split == "published":
            listing.warnings.append(
                "the published split has the same actors in train and test, so that its accuracy says nothing of "
                "unseen speakers; --split speaker keeps nine actors for test alone"
            )
        add_rows(listing, entries, {"sound": sound, "frames": frames}, group=actor)
        return listing

    def _variant(self, sound: Place) -> str:
        if self.variant != "auto":
            return self.variant
        return {".wav": "v1", ".pt": "v2", ".pkl": "v4"}.get(sound.ending, "v1")

    def _entries(self, root: Path) -> list[Entry]:
        entries = self._listed(root)
        for entry in entries:
            _check(entry)
        if self.split == "published":
            return entries
        test = drawn_actors()
        return [dataclasses.replace(e, split="test" if actor(e.name) in test else "train") for e in entries]

    def _listed(self, root: Path) -> list[Entry]:
        folders = [Path(self.lists)] if self.lists else [root, root / "data" / "CREMAD", root / "cremad"]
        found = {name: find_list(folders, [f"{name}.csv"]) for name in ("train", "my_train", "val", "test")}
        train = found["train"] or found["my_train"]
        if train is None or found["test"] is None:
            if self.split == "speaker" and not self.lists and (root / "AudioWAV").is_dir():
                return unlisted(root / "AudioWAV")
            missing = [f"{name}.csv" for name, path in (("train", train), ("test", found["test"])) if path is None]
            raise MMSearchError(
                f"{root}: no {' and no '.join(missing)}; looked in {', '.join(map(str, folders))}; "
                "name their folder with --lists, or use --split speaker with AudioWAV"
            )
        parts = {"train": train, "val": None if found["train"] else found["val"], "test": found["test"]}
        labels = {name: name for name in CLASSES}
        return [entry for split, path in parts.items() if path for entry in read_list(path, labels, split)]


def unlisted(folder: Path) -> list[Entry]:
    """The clips of a folder of sound files, labelled by their names."""
    names = sorted(path.stem for path in folder.glob("*.wav"))
    return [Entry(name, label_of(name), "", f"{folder / name}.wav") for name in names]


def _check(entry: Entry) -> None:
    parts = entry.name.split("_")
    if len(parts) != 4 or parts[0] not in ACTORS or label_of(entry.name) not in CLASSES:
        raise MMSearchError(f"{entry.where}: {entry.name!r} is no clip of CREMA-D, as 1001_DFA_ANG_XX is")
    if label_of(entry.name) != entry.label:
        raise MMSearchError(
            f"{entry.where}: {entry.name} is labelled {entry.label}, but its name says {label_of(entry.name)}"
        )


def label_of(name: str) -> str:
    """The emotion in a clip's name; empty where there is none."""
    return "".join(name.split("_")[2:3])


def actor(name: str) -> str:
    """The four digits at the beginning of a clip's name."""
    return name.partition("_")[0]


def drawn_actors() -> Sequence[str]:
    """The actors of the speaker-disjoint test part, the same everywhere."""
    order = np.random.RandomState(0).permutation(len(ACTORS))
    return [ACTORS[i] for i in order[:TEST_ACTORS]]
