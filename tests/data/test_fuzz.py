"""Mutated files for a bounded time: nothing crashes, nothing hangs, and what is said is said as it should be.

`$MMSEARCH_FUZZ_SECONDS` (default 6) is shared by the subjects. A subject is run in a process of its own, one case
after the other, each a function of its number alone: `python tests/data/test_fuzz.py SUBJECT FOLDER FIRST SECONDS`.
A case that kills the process is noted and the next one goes on in a new process, as the decode pipeline does with a
clip that kills its decoder; that may happen inside FFmpeg only.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

SECONDS = float(os.environ.get("MMSEARCH_FUZZ_SECONDS", "6"))
CASE_SECONDS = 60.0
"""Longer than any case takes on a machine that is busy; a case usually takes milliseconds."""


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """A few random edits of random sorts."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        if not data:
            break
        at, length = int(random.integers(len(data))), int(random.integers(1, 65))
        match random.integers(7):
            case 0:
                for i in random.integers(len(data), size=length):
                    data[i] = random.integers(256)
            case 1:
                data[at] ^= 1 << int(random.integers(8))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = random.bytes(length)
            case 5:
                data[at:at] = data[at : at + 50 * length]
            case _:
                data[at : at + 4] = random.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x01"]
                )
    return bytes(data)


def media(folder: Path, random: np.random.Generator) -> None:
    """Films, sounds and pictures: decoded, or a reason."""
    from mmsearch.data.decode import LAYOUT, DecodeError, decode_clip

    seed = sorted((folder / "media").iterdir())[random.integers(len(list((folder / "media").iterdir())))]
    path = folder / f"case{seed.suffix}"
    path.write_bytes(mutate(seed.read_bytes(), random))
    start, end = [(None, None), (0.2, None), (0.3, 0.7), (5.0, 6.0)][random.integers(4)]
    sources = {
        "sound": ("sound", str(path), {"rate": 8000, "seconds": 2.0}),
        "frames": ("frames", str(path), {"frames": 3, "size": 16}),
    }
    for name in sources:
        try:
            arrays = decode_clip({name: sources[name]}, start, end)
        except DecodeError as error:
            assert str(error).startswith(f"{name}: ") or str(error) == f"no {name} in it", error
        else:
            dtype, axes = LAYOUT[name]
            assert arrays[name].dtype == np.dtype(dtype) and arrays[name].ndim == axes and arrays[name].size


def arrays(folder: Path, random: np.random.Generator) -> None:
    """Arrays of numbers, pictures given as such, and texts."""
    from mmsearch.data.decode import DecodeError, decode_clip

    name = ["vector.npy", "series.npy", "image.npy", "text.txt"][random.integers(4)]
    kind = name.partition(".")[0]
    path = folder / f"case-{name}"
    path.write_bytes(mutate((folder / "arrays" / name).read_bytes(), random))
    settings = {"vector": {}, "series": {"steps": 5}, "image": {"size": 16}, "text": {"bytes": 20}}[kind]
    if kind != "text" and random.integers(2):
        settings = settings | {"row": int(random.integers(4))}
    try:
        array = decode_clip({kind: (kind, str(path), settings)})[kind]
        assert array.size and np.isfinite(array).all()
    except DecodeError:
        pass


def manifest(folder: Path, random: np.random.Generator) -> None:
    """A dataset's files: a dataset, or one line for people."""
    from mmsearch.data.dataset import Dataset
    from mmsearch.errors import MMSearchError

    for name in ("manifest.csv", "manifest.parquet", "dataset.yaml"):
        shutil.copy(folder / "dataset" / name, folder / name)
    name = ["manifest.csv", "manifest.parquet", "dataset.yaml"][random.integers(3)]
    (folder / name).write_bytes(mutate((folder / "dataset" / name).read_bytes(), random))
    if name == "manifest.parquet":
        text = (folder / "dataset.yaml").read_text().replace("manifest.csv", "manifest.parquet")
        (folder / "dataset.yaml").write_text(text)
    try:
        dataset = Dataset.load(folder / "dataset.yaml")
        assert all(dataset.sources(clip) for clip in dataset.clips)
    except MMSearchError as error:
        assert str(folder) in str(error), error
        str(error).encode()


def store(folder: Path, random: np.random.Generator) -> None:
    """A file of a store: what is read is what was written, or is refused, or is named by `verify`."""
    from mmsearch.data.store import Store
    from mmsearch.data.upkeep import verify
    from mmsearch.errors import MMSearchError

    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "store", copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    path = files[random.integers(len(files))]
    path.write_bytes(mutate(path.read_bytes(), random))
    try:
        opened = Store.open(copy)
        damaged = verify(opened, lambda done, total: None)
    except MMSearchError:
        return
    for i in range(4):
        truth = np.load(folder / f"truth{i}.npy")
        try:
            array = opened.read(f"{i:032}", "v")
            assert array is not None and (damaged or np.array_equal(array, truth)), f"clip {i} is not what was written"
            opened.read(f"{i:032}", "f")
        except MMSearchError:
            pass


SUBJECTS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "media": media,
    "arrays": arrays,
    "manifest": manifest,
    "store": store,
}


def prepare_media(folder: Path, make_clip) -> None:
    from PIL import Image

    make_clip(folder / "film.mp4")
    make_clip(folder / "sound.mp4", picture=False)
    make_clip(folder / "film.mkv", seconds=0.5)
    make_clip(folder / "film.ts", seconds=0.5)
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(24, 32, 3)).astype(np.uint8))
    for name in ("x.png", "x.jpg", "x.gif", "x.webp"):
        picture.save(folder / name)


def prepare_subject(name: str, folder: Path, make_clip) -> None:
    """What the cases of a subject are mutations of."""
    if name == "media":
        (folder / "media").mkdir()
        prepare_media(folder / "media", make_clip)
    elif name == "arrays":
        (folder / "arrays").mkdir()
        for kind, shape in (("vector", (4, 6)), ("series", (4, 7, 3)), ("image", (4, 9, 9))):
            np.save(folder / "arrays" / f"{kind}.npy", np.random.default_rng(0).random(shape, np.float32))
        (folder / "arrays" / "text.txt").write_text("some wörds of a text\n" * 3)
    elif name == "manifest":
        import pyarrow as pa
        import pyarrow.parquet as pq

        (folder / "dataset").mkdir()
        columns = {
            "clip_id": [f"clip{i}" for i in range(6)],
            "path": [f"{i}.mp4" for i in range(6)],
            "words": ["a, b", 'say "no"', "", "d", "é", "f"],
            "label": list("aabbcc"),
            "split": ["train", "", "val", "train", "test", "train"],
            "start": [0.0, 1.5, None, 0.0, 2.0, 0.0],
        }
        for path in columns["path"]:
            (folder / str(path)).write_bytes(b"x")
        table = pa.table(columns)
        pq.write_table(table, folder / "dataset" / "manifest.parquet")
        table.to_pandas().to_csv(folder / "dataset" / "manifest.csv", index=False)
        (folder / "dataset" / "dataset.yaml").write_text(
            "name: fuzz\nmanifest: manifest.csv\nroot: .\nlabel: label\nclasses: [a, b, c]\nmodalities:\n"
            "  sound: {rate: 8000, seconds: 2.5}\n  frames: {frames: 4, size: 16, codec: jpeg}\n"
            "  words: {kind: text, inline: true, column: words, bytes: 20}\n"
        )
    else:
        from mmsearch.data.store import ShardWriter

        random = np.random.default_rng(0)
        layouts = {"v": ("<f4", 1), "f": ("|u1", 4)}
        for shard in range(2):
            with ShardWriter(folder / "store", layouts, {"f": 90}) as writer:
                for i in (2 * shard, 2 * shard + 1):
                    vector = random.random(9, np.float32)
                    np.save(folder / f"truth{i}.npy", vector)
                    pictures = random.integers(256, size=(2, 16, 16, 3)).astype(np.uint8)
                    writer.add(f"{i:032}", {"v": vector, "f": pictures})
                writer.commit()


class Cases:
    """The cases of a subject in a process of their own, from one number on."""

    def __init__(self, subject: str, folder: Path, first: int, seconds: float) -> None:
        command = [sys.executable, __file__, subject, str(folder), str(first), str(seconds)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=lambda: self.said.append(self.process.stderr.read()), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self) -> str | None:
        """The number of the case that begins now, None at the end.

        Raises:
            queue.Empty: the last one has not ended in time.
        """
        return self._lines.get(timeout=CASE_SECONDS)

    def end(self) -> int:
        self.process.kill() if self.process.poll() is None and not self._lines.empty() else None
        code = self.process.wait(CASE_SECONDS)
        for thread in self._threads:
            thread.join(CASE_SECONDS)
        return code


@pytest.mark.parametrize("subject", SUBJECTS)
def test_mutated_files_neither_crash_nor_hang(subject, tmp_path, make_clip):
    prepare_subject(subject, tmp_path, make_clip)
    until = time.monotonic() + SECONDS / len(SUBJECTS)
    number, crashes = -1, []
    while True:
        cases = Cases(subject, tmp_path, number + 1, max(0.1, until - time.monotonic()))
        try:
            while (line := cases.next()) is not None:
                number = int(line)
        except queue.Empty:
            cases.process.kill()
            pytest.fail(f"{subject}: case {number} hangs")
        code = cases.end()
        if code == 0:
            break
        assert code < 0 and subject == "media", f"{subject}: case {number}: {''.join(cases.said)}"
        crashes.append(number)
        if time.monotonic() > until:
            break
    assert number >= 0, "no case was run"
    if crashes:
        warnings.warn(f"{subject}: cases {crashes} of {number + 1} killed FFmpeg", stacklevel=1)


def run(subject: str, folder: Path, first: int, seconds: float) -> None:
    """Cases from `first` on until the time is over, at least one; the number of each is printed before it."""
    import av  # so that the time is that of the cases

    av.logging.set_level(None)
    case, ends = first, None
    while ends is None or time.monotonic() < ends:
        print(case, flush=True)
        SUBJECTS[subject](folder, np.random.default_rng(case))
        ends = ends or time.monotonic() + seconds
        case += 1


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
