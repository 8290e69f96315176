from __future__ import annotations

import base64
import io
import wave
from pathlib import Path

import numpy as np
import pytest
from explained_run import CLIPS, RATE, clips, explained
from PIL import Image

from mmsearch.batch import Modality
from mmsearch.cli import main
from mmsearch.data import ClipData
from mmsearch.recommend import media, report


def content(uri: str | None, kind: str) -> io.BytesIO:
    assert uri is not None and uri.startswith(f"data:{kind};base64,")
    return io.BytesIO(base64.b64decode(uri.partition(",")[2]))


def test_a_picture_is_frames_side_by_side_in_order() -> None:
    with Image.open(content(media.picture(clips(), 0), "image/jpeg")) as strip:
        assert strip.size == (3 * 128, media.HEIGHT)
        shades = [float(np.asarray(strip)[48, x, 0]) for x in (64, 192, 320)]
    assert shades == sorted(shades) and shades[2] - shades[0] > 100


def test_a_sound_is_the_clips_own() -> None:
    with wave.open(content(media.sound(clips(), 0), "audio/wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert np.array_equal(heard, clips().stored("sound", 0))


def test_long_sounds_are_cut_and_what_is_missing_is_none() -> None:
    with wave.open(content(media.sound(clips(2, seconds=60), 0), "audio/wav")) as file:
        assert file.getnframes() == media.SECONDS * RATE
    assert media.picture(clips(), 1) is None, "this clip has no frames"
    kind = {"a": Modality("a", "vector", (3,))}
    vectors = ClipData.from_arrays({"a": np.zeros((2, 3), np.float32)}, [0, 1], modalities=kind)
    assert media.picture(vectors, 0) is None and media.sound(vectors, 0) is None


def test_the_report_shows_people_only_on_request(tmp_path: Path) -> None:
    rec, events = explained(tmp_path / "run", seeds=2, trials=1)
    plain = report.html(rec, events, tmp_path / "run")
    assert "<img" not in plain and "<audio" not in plain and "data:image" not in plain
    shown = report.html(rec, events, tmp_path / "run", clips(CLIPS))
    assert 0 < shown.count("<img") <= 2 * 12 and shown.count("<audio") >= shown.count("<img")
    assert "seen and heard" in shown


def test_the_flag_belongs_to_the_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rest in (["--watch"], ["--markdown", "x.md"]):
        assert main(["report", str(tmp_path), "--media", *rest]) == 2
        assert "--media: belongs to the HTML file" in capsys.readouterr().err
