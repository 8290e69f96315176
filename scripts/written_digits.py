"""Pairs spoken with written digits: a sound (wav) and a picture (png) a clip, with a manifest and a dataset YAML.

    MMSEARCH_CLIPS=clips python scripts/written_digits.py digits
    python -m mmsearch.sweep --dataset digits/digits.yaml

The recordings are those of the Free Spoken Digit Dataset (`digits/spoken/<digit>_<speaker>_<index>.wav`), every one
used once; its published test part (index 0 to 4) is the test part. The pictures are handwritten digits of MNIST
(`digits/mnist10k.npz`), every one used at most once, somewhere on a ground cluttered with pieces of other digits: the
picture says as much as the sound, but is learned more slowly. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmsearch.errors import MMSearchError

SIDE = 48
PIECES = 6
PIECE = 9
TEST_INDEX = 5
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLUMNS = ("clip_id", "image", "sound", "label", "split", "speaker")
YAML = f"""name: written_digits
manifest: manifest.csv
classes: [{", ".join(WORDS)}]
modalities:
  sound: {{kind: sound, column: sound, rate: 8000, seconds: 1.0}}
  image: {{kind: image, column: image, size: {SIDE}}}
"""


class Pair(NamedTuple):
    """A clip: its recording, what is said, by whom, the row of its picture, and its part."""

    recording: Path
    digit: int
    speaker: str
    picture: int
    split: str


def cast(spoken: Path, written: np.ndarray, clips: int | None, seed: int) -> list[Pair]:
    """The pairs, shuffled.

    Args:
        spoken: folder of the recordings.
        written: digit of every picture, `[N]`.
        clips: how many of the pairs; None: all.
        seed: of the shuffle and of which picture goes with which recording.

    Raises:
        MMSearchError: there are no recordings, or a digit has fewer pictures than recordings.
    """
    rng = np.random.default_rng([seed, 0])
    found = [(p, m) for p in sorted(spoken.glob("*.wav")) if (m := re.fullmatch(r"(\d)_(\w+)_(\d+)", p.stem))]
    if not found:
        raise MMSearchError(f"{spoken}: no recordings named <digit>_<speaker>_<index>.wav")
    pictures = [list(rng.permutation(np.flatnonzero(written == digit))) for digit in range(10)]
    pairs = []
    for i in rng.permutation(len(found))[:clips]:
        path, match = found[i]
        digit = int(match[1])
        if not pictures[digit]:
            raise MMSearchError(f"{spoken}: more recordings of {digit} than pictures of it")
        split = "test" if int(match[3]) < TEST_INDEX else "train"
        pairs.append(Pair(path, digit, match[2], int(pictures[digit].pop()), split))
    return pairs


def cluttered(images: np.ndarray, row: int, rng: np.random.Generator) -> np.ndarray:
    """A digit of `images` (uint8 `[N, 28, 28]`) on a ground of pieces of others, uint8 `[48, 48]`."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    for other in rng.integers(len(images), size=PIECES):
        y, x = rng.integers(images.shape[1] - PIECE, size=2)
        _stamp(canvas, images[other, y : y + PIECE, x : x + PIECE], rng)
    _stamp(canvas, images[row], rng)
    return canvas


def _stamp(canvas: np.ndarray, picture: np.ndarray, rng: np.random.Generator) -> None:
    y, x = rng.integers(SIDE - len(picture) + 1, size=2)
    place = canvas[y : y + len(picture), x : x + len(picture)]
    np.maximum(place, picture, out=place)


def write(clips_folder: Path, out: Path, clips: int | None, seed: int) -> Path:
    """Writes the set, all or nothing: it is built beside `out` and renamed.

    Returns:
        The path of digits.yaml.

    Raises:
        MMSearchError: recordings or pictures are not there, the folder is there already and not empty, or the place
            cannot be written to.
    """
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise MMSearchError(f"{out}: is there already; choose another folder")
    try:
        with np.load(clips_folder / "digits" / "mnist10k.npz") as arrays:
            images, digits = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError) as e:
        raise MMSearchError(f"{clips_folder}: no pictures there ({e}); see MMSEARCH_CLIPS") from None
    pairs = cast(clips_folder / "digits" / "spoken", digits, clips, seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            building.chmod(0o755)
            _build(building, pairs, images, seed)
            building.replace(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as e:
        raise MMSearchError(f"{out}: cannot be written: {e.strerror or e}") from e
    return out / "digits.yaml"


def _build(folder: Path, pairs: list[Pair], images: np.ndarray, seed: int) -> None:
    (folder / "image").mkdir()
    (folder / "sound").mkdir()
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        manifest = csv.writer(file, lineterminator="\n")
        manifest.writerow(COLUMNS)
        for i, pair in enumerate(pairs):
            name = f"digit-{i:05d}"
            row = [name, f"image/{name}.png", f"sound/{name}.wav", WORDS[pair.digit], pair.split, pair.speaker]
            picture = cluttered(images, pair.picture, np.random.default_rng([seed, 1, i]))
            Image.fromarray(picture).save(folder / row[1])
            shutil.copyfile(pair.recording, folder / row[2])
            manifest.writerow(row)
    (folder / "digits.yaml").write_text(YAML, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to write; missing or empty")
    parser.add_argument("--clips", type=int, help="pairs (default: one a recording)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other pairs")
    args = parser.parse_args(arguments)
    if (args.clips is not None and args.clips < 20) or args.seed < 0:
        parser.error("--clips is 20 or more, --seed 0 or more")
    source = os.environ.get("MMSEARCH_CLIPS")
    try:
        if not source:
            raise MMSearchError("MMSEARCH_CLIPS is not set; it must be the folder that has digits/spoken")
        path = write(Path(source), args.out, args.clips, args.seed)
    except MMSearchError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(f"clips written; next: python -m mmsearch.sweep --dataset {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
