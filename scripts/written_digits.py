"""Writes spoken-with-written digits: pairs of a picture (png) and a sound (wav), with a manifest and a dataset YAML.

    python scripts/written_digits.py digits
    python -m mmsearch.sweep --dataset digits/digits.yaml

The pictures are scikit-learn's handwritten digits, 8 by 8 pixels of real handwriting, enlarged and grainy. The speech
is NOT recorded: it is the demo's synthetic speaker, formant synthesis of rough English digit words in noise, for
recordings of speakers cannot be shipped. What a sweep finds here holds for this speaker, not for people.

A group is a picture: where there are more clips than pictures (1797), clips that share one stay in one part. Every
clip has a speaker of its own. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np
from PIL import Image

from mmsearch.data._demo_sound import RATE, WORDS, noise, speech
from mmsearch.errors import MMSearchError

SIZE = 32
SECONDS = 1.0
SNR_DB = -7.0
GRAIN = 220.0
COLUMNS = ("clip_id", "image", "sound", "label", "group")
YAML = f"""name: written_digits
manifest: manifest.csv
modalities:
  sound: {{kind: sound, column: sound, rate: {RATE}, seconds: {SECONDS:g}}}
  image: {{kind: image, column: image, size: {SIZE}}}
"""


def cast(clips: int, seed: int) -> list[tuple[int, int]]:
    """Per clip its digit and its picture (row of scikit-learn's digits); the pictures of a digit are used in turn."""
    from sklearn.datasets import load_digits

    target = load_digits().target
    rng = np.random.default_rng([seed, 0])
    order = [rng.permutation(np.flatnonzero(target == digit)) for digit in range(10)]
    return [(i % 10, int(order[i % 10][i // 10 % len(order[i % 10])])) for i in range(clips)]


def write_image(path: Path, pixels: np.ndarray, rng: np.random.Generator) -> None:
    """A digit `[8, 8]` in 0 to 16 as a grey picture on a dark ground, with grain over it, without which it is easy."""
    picture = Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8))
    grey = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float64)
    grainy = grey + GRAIN * rng.standard_normal(grey.shape)
    Image.fromarray(grainy.clip(0, 255).round().astype(np.uint8)).save(path)


def write_sound(path: Path, digit: int, rng: np.random.Generator) -> None:
    """A synthetic speaker says the digit somewhere in a noisy second; mono, 16 bits."""
    said = speech(digit, SECONDS, 1.0, rng)
    sound = said + noise(said, SNR_DB, rng)
    sound *= min(1.0, 0.99 / float(np.abs(sound).max()))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


def write(out: Path, clips: int, seed: int) -> Path:
    """Writes the set, all or nothing: it is built beside `out` and renamed.

    Returns:
        The path of digits.yaml.

    Raises:
        MMSearchError: the folder is there already and not empty, or the place cannot be written to.
    """
    if os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise MMSearchError(f"{out}: is there already; choose another folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            building.chmod(0o755)
            _build(building, clips, seed)
            building.replace(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    except OSError as e:
        raise MMSearchError(f"{out}: cannot be written: {e.strerror or e}") from e
    return out / "digits.yaml"


def _build(folder: Path, clips: int, seed: int) -> None:
    from sklearn.datasets import load_digits

    images = load_digits().images
    (folder / "image").mkdir()
    (folder / "sound").mkdir()
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        manifest = csv.writer(file, lineterminator="\n")
        manifest.writerow(COLUMNS)
        for i, (digit, source) in enumerate(cast(clips, seed)):
            name = f"digit-{i:05d}"
            row = [name, f"image/{name}.png", f"sound/{name}.wav", WORDS[digit], f"picture-{source:04d}"]
            write_image(folder / row[1], images[source], np.random.default_rng([seed, 2, i]))
            write_sound(folder / row[2], digit, np.random.default_rng([seed, 1, i]))
            manifest.writerow(row)
    (folder / "digits.yaml").write_text(YAML, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to write; missing or empty")
    parser.add_argument("--clips", type=int, default=1500, help="pairs (default: 1500)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another set")
    args = parser.parse_args(arguments)
    if args.clips < 20 or args.seed < 0:
        parser.error("--clips is 20 or more (two a digit), --seed 0 or more")
    try:
        path = write(args.out, args.clips, args.seed)
    except MMSearchError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(f"{args.clips} clips written; next: python -m mmsearch.sweep --dataset {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
