"""`scripts/written_digits.py`: spoken-with-written digits as a dataset."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmsearch.cli import main

CLIPS = 120


@pytest.fixture(scope="module")
def script(load_script: Any) -> Any:
    return load_script("written_digits")


@pytest.fixture
def digits(script: Any, real_clips: Path, tmp_path: Path) -> Path:
    """The dataset YAML of some clips."""
    return script.write(real_clips, tmp_path / "digits", CLIPS, 0)


def content(yaml: Path) -> dict[str, bytes]:
    return {str(p.relative_to(yaml.parent)): p.read_bytes() for p in sorted(yaml.parent.rglob("*")) if p.is_file()}


def test_validate_accepts_it(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(digits)]) == 0
    out = capsys.readouterr().out
    assert f"written_digits: {CLIPS} clips, 10 classes" in out
    assert f"modality image: kind image, column image, {CLIPS} files; size 48" in out


def test_what_is_said_is_what_is_written(script: Any, real_clips: Path) -> None:
    with np.load(real_clips / "digits" / "mnist10k.npz") as arrays:
        written = arrays["y"]
    pairs = script.cast(real_clips / "digits" / "spoken", written, None, 0)
    assert len(pairs) == 3000 and len({p.recording for p in pairs}) == 3000 and len({p.picture for p in pairs}) == 3000
    assert all(p.recording.name.startswith(f"{p.digit}_{p.speaker}_") and written[p.picture] == p.digit for p in pairs)
    assert sum(p.split == "test" for p in pairs) == 300
    assert all((int(p.recording.stem.split("_")[2]) < 5) == (p.split == "test") for p in pairs)


def test_the_digit_is_whole_on_its_ground(script: Any) -> None:
    images = np.zeros((3, 28, 28), np.uint8)
    images[1, 4:24, 10:18] = 255
    picture = script.cluttered(images, 1, np.random.default_rng(0))
    assert picture.shape == (48, 48) and int((picture == 255).sum()) >= 160


def test_the_seed_decides_the_content(digits: Path, script: Any, real_clips: Path, tmp_path: Path) -> None:
    same = script.write(real_clips, tmp_path / "same", CLIPS, 0)
    other = script.write(real_clips, tmp_path / "other", CLIPS, 1)
    assert content(same) == content(digits)
    assert content(other) != content(digits)
    with (digits.parent / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["clip_id"] for r in rows] == [f"digit-{i:05d}" for i in range(CLIPS)]
    assert Image.open(digits.parent / rows[0]["image"]).size == (48, 48)


def test_nothing_is_left_of_a_set_that_failed(
    script: Any, real_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script.shutil, "copyfile", full)
    assert script.main([str(tmp_path / "out")]) == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMSEARCH_CLIPS", str(tmp_path))
    (tmp_path / "thesis.tex").touch()
    assert script.main([str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_folder_of_clips_is_asked_for(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MMSEARCH_CLIPS", raising=False)
    assert script.main([str(tmp_path / "out")]) == 2
    assert "MMSEARCH_CLIPS is not set" in capsys.readouterr().err
    monkeypatch.setenv("MMSEARCH_CLIPS", str(tmp_path / "nowhere"))
    assert script.main([str(tmp_path / "out")]) == 2
    assert "no pictures there" in capsys.readouterr().err
