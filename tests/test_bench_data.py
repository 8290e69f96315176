"""The tables and verdicts of `scripts/bench_data.py`, and the clips it makes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmsearch.data.decode import decode_clip
from mmsearch.errors import MMSearchError


@pytest.fixture(scope="module")
def bench(load_script: Any) -> Any:
    return load_script("bench_data")


@pytest.mark.parametrize(
    ("most", "low", "high", "verdict"),
    [
        (True, 1.0, 1.5, "held"),
        (True, 1.4, 1.6, "not settled"),
        (True, 1.51, 1.6, "missed"),
        (False, 1.5, 1.6, "held"),
        (False, 1.4, 1.6, "not settled"),
        (False, 1.0, 1.49, "missed"),
    ],
)
def test_a_bound_is_missed_where_all_of_the_interval_is_beyond_it(
    bench: Any, most: bool, low: float, high: float, verdict: str
) -> None:
    assert bench.Bound(1.5, most).verdict(low, high) == verdict


def test_a_ratio_is_that_of_the_rounds_and_not_of_what_else_the_machine_does(bench: Any) -> None:
    load = np.array([1.0, 7.0, 2.0, 30.0, 1.5])
    assert bench.compare(1.2 * load, load) == pytest.approx((1.2, 1.2, 1.2))


def test_a_ratio_that_swings_has_an_interval(bench: Any) -> None:
    ratio, low, high = bench.compare([1.0, 2.0] * 10 + [1.5], [1.0] * 21)
    assert low < ratio == 1.5 < high


def test_decoding_has_a_bound_and_torchcodec_none(bench: Any) -> None:
    table = bench.decode_table({bench.PLAIN: [10.0] * 5, "mmsearch": [14.0] * 5, "mmsearch, torchcodec": [20.0] * 5})
    assert str(table).splitlines() == [
        "| decode | CPU-ms a clip | over PyAV (95 %) | bound |",
        "| --- | --- | --- | --- |",
        "| PyAV, frames thrown away | 10.00 | 1.00 (1.00 to 1.00) |  |",
        "| mmsearch | 14.00 | 1.40 (1.40 to 1.40) | at most 1.33: missed |",
        "| mmsearch, torchcodec | 20.00 | 2.00 (2.00 to 2.00) |  |",
    ]
    assert table.missed == ["decode, mmsearch: 1.40 (1.40 to 1.40), at most 1.33"]


def test_a_rate_begins_when_every_process_has_done_a_shard(bench: Any) -> None:
    progress = bench.Progress([(0.0, 0), (0.5, 0), (9.0, 10), (10.0, 20), (14.0, 60)], 20.0)
    assert progress.rate(20) == 10
    assert progress.start == 9


def test_too_few_clips_for_a_rate_are_named(bench: Any) -> None:
    with pytest.raises(MMSearchError, match="give more --clips"):
        bench.Progress([(1.0, 10), (2.0, 20)], 2.0).rate(20)


@pytest.mark.parametrize(("clips", "bound"), [(1000, "at least 0.85: missed"), (999, "")])
def test_the_route_is_judged_from_a_thousand_clips_on(bench: Any, clips: int, bound: str) -> None:
    def run(seconds: float, start: float) -> Any:
        return bench.Progress([(0.0, 0), (start, 100), (start + seconds, clips)], start + seconds + 1)

    table = bench.route_table({bench.PROCESSES: [run(8, 2)] * 3, "Ray Data": [run(10, 7)] * 3}, 100)
    _, _, processes, ray = str(table).splitlines()
    assert processes.endswith("| 1.00 (1.00 to 1.00) |  | 2.0 | 11.0 |")
    assert ray.endswith(f"| 0.80 (0.80 to 0.80) | {bound} | 7.0 | 18.0 |")
    assert bool(table.missed) == bool(bound)


def test_reading_is_compared_at_the_same_number_of_processes(bench: Any) -> None:
    rates = {bench.MAPPED: {1: 1000.0, 3: 2000.0}, bench.RAW: {1: 600.0, 3: 900.0}, "mmsearch, JPEG": {1: 9.0, 3: 9.0}}
    turns = {(name, n): [bench.Reading(rate, 0.1)] * 4 for name, own in rates.items() for n, rate in own.items()}
    table = bench.read_table(turns, dict.fromkeys(rates, 600.0))
    assert [line.split(" | ")[1:5] for line in str(table).splitlines()[4:6]] == [
        ["1", "600", "0.60 (0.60 to 0.60)", "at least 0.50: held"],
        ["3", "900", "0.45 (0.45 to 0.45)", "at least 0.50: missed"],
    ]
    assert table.missed == ["read, mmsearch, raw, processes: 3: 0.45 (0.45 to 0.45), at least 0.50"]


def test_what_readers_share_is_told_from_what_is_their_own(bench: Any) -> None:
    before = [{"RSS": 300.0, "PSS": 200.0, "private": 190.0}] * 3
    after = [{"RSS": 1000.0, "PSS": 450.0, "private": 240.0}] * 3
    text = bench.memory_table(before, after, 600)
    assert "| 3 | 300 → 1000 | 200 → 450 | 190 → 240 |" in text
    assert text.endswith("To what they share an epoch of all adds 600 MB; the store has 600 MB.")


def test_the_memory_of_this_process_is_known(bench: Any) -> None:
    held = bench.memory()
    assert 0 < held["private"] <= held["PSS"] <= held["RSS"]


def test_everybody_is_the_first_once(bench: Any) -> None:
    assert [bench.rotated("abc", i) for i in range(3)] == [list("abc"), list("bca"), list("cab")]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=8, options={"preset": "ultrafast", "bf": "2"})
        video.width, video.height, video.pix_fmt, video.thread_count = 40, 32, "yuv420p", 1
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for i in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((32, 40, 3), 30 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 8)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = np.sin(np.arange(16000) / 5).astype(np.float32)
        heard = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        heard.sample_rate, heard.pts = 16000, 0
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    return path


def test_a_remuxed_clip_is_another_file_with_the_same_arrays(bench: Any, clip: Path, tmp_path: Path) -> None:
    copies = [tmp_path / f"copy-{i}.mp4" for i in range(2)]
    for i, copy in enumerate(copies):
        bench.remux(clip, copy, f"copy {i}")
    assert copies[0].read_bytes() != copies[1].read_bytes()

    def arrays(path: Path) -> dict[str, np.ndarray]:
        sound, frames = {"rate": 16000, "seconds": 2.0}, {"frames": 4, "size": 16}
        return decode_clip({"sound": ("sound", str(path), sound), "frames": ("frames", str(path), frames)})

    wanted = arrays(clip)
    for copy in copies:
        found = arrays(copy)
        assert all(np.array_equal(wanted[u], found[u]) for u in wanted)


@pytest.fixture
def dataset(bench: Any, clip: Path, tmp_path: Path) -> Any:
    files = [(tmp_path / f"{label}{i}.mp4", label) for label in "ab" for i in range(2)]
    for path, _ in files:
        bench.remux(clip, path, path.stem)
    return bench.open_dataset("raw", files, tmp_path)


def test_every_round_of_decoding_times_both(bench: Any, dataset: Any, tmp_path: Path) -> None:
    times = bench.decode_part({"mmsearch": dataset}, tmp_path, 2)
    assert [len(own) for own in times.values()] == [2, 2] and min(map(min, times.values())) > 0
    assert not list(tmp_path.glob("tmp*"))


def test_clips_that_are_not_there_are_named(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMSEARCH_CLIPS", str(tmp_path / "nowhere"))
    assert bench.main(["--work", str(tmp_path / "work")]) == 2
    assert "nowhere/grid/labels.csv: No such file or directory; see MMSEARCH_CLIPS" in capsys.readouterr().err


def test_without_clips_it_runs_on_the_demos(
    bench: Any, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MMSEARCH_CLIPS", raising=False)
    monkeypatch.setattr("mmsearch.data.demo.write_demo", lambda folder, config: dataset.path)
    arguments = ["--work", str(tmp_path), "--only", "decode", "--clips", "4", "--rounds", "1"]
    assert bench.main(arguments) in (0, 1)
    out, err = capsys.readouterr()
    assert "MMSEARCH_CLIPS is not set" in err
    assert out.startswith("4 clips (the demo's), ")
    assert [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")][2:4] == [
        "PyAV, frames thrown away",
        "mmsearch",
    ]
