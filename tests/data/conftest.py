"""Tiny real clips, made with PyAV, and the decode pipeline without Ray."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmsearch.data import pipeline

RATE = 16000


def write_clip(
    path: Path, *, level: int = 128, tone: float = 440.0, seconds: float = 1.0, sound: bool = True, picture: bool = True
) -> Path:
    """A 40x32 mp4 whose picture brightens from `level` by 4 a frame (8 a second), with a tone."""
    with av.open(str(path), "w") as container:
        video = (
            container.add_stream("libx264", rate=8, options={"preset": "ultrafast", "crf": "10"}) if picture else None
        )
        audio = container.add_stream("aac", rate=RATE, layout="mono") if sound else None
        if video:
            video.width, video.height, video.pix_fmt, video.thread_count = 40, 32, "yuv420p", 1
            for i in range(round(8 * seconds)):
                image = np.full((32, 40, 3), min(255, level + 4 * i), np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 8)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio:
            times = np.arange(round(RATE * seconds)) / RATE
            wave = (0.5 * np.sin(2 * np.pi * tone * times)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            frame.rate, frame.pts = RATE, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def write_manifest(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Path]:
    return write_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """Sixteen clips in two classes, `a` dark and low, `b` bright and high; read-only for tests."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for i in range(16):
        label = "ab"[i % 2]
        write_clip(folder / f"c{i:02}.mp4", level=20 + 8 * i, tone=300 + 40 * i)
        rows.append({"clip_id": f"c{i:02}", "path": f"c{i:02}.mp4", "label": label, "half": "lr"[i // 8]})
    write_manifest(folder / "manifest.csv", rows)
    return folder


@pytest.fixture
def dataset_file(tmp_path) -> Callable[..., Path]:
    """Writes rows (or text) and a dataset YAML around them, in the test's own folder."""

    def write(rows: list[dict[str, object]] | str | None = None, yaml: str = "", files: tuple[str, ...] = ()) -> Path:
        for name in files:
            (tmp_path / name).write_bytes(name.encode())
        if isinstance(rows, str):
            (tmp_path / "manifest.csv").write_bytes(rows.encode())
        elif rows is not None:
            write_manifest(tmp_path / "manifest.csv", rows)
        path = tmp_path / "dataset.yaml"
        path.write_text(
            yaml if "manifest:" in yaml else f"name: test\nmanifest: manifest.csv\n{yaml}", encoding="utf-8"
        )
        return path

    return write


@pytest.fixture
def inline(monkeypatch) -> list[int]:
    """Runs decode tasks in this process; the list gets the number of clips of every task."""
    tasks: list[int] = []

    def run(items, shard_clips, folder, kinds):
        for i in range(0, len(items), shard_clips):
            tasks.append(len(items[i : i + shard_clips]))
            yield pipeline.decode_shard(items[i : i + shard_clips], folder, kinds)

    monkeypatch.setattr(pipeline, "_run", run)
    monkeypatch.setattr(pipeline, "_ray", lambda: contextlib.nullcontext(1))
    return tasks
