from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from mmsearch.data.dataset import Dataset
from mmsearch.data.demo import CONDITIONS, DemoConfig, _cast, cached_demo, encode, render, write_demo
from mmsearch.errors import MMSearchError

SMALL = DemoConfig(n_clips=66)


def decode(path: Path) -> tuple[np.ndarray | None, np.ndarray | None]:
    with av.open(str(path)) as f:
        has_video, has_audio = bool(f.streams.video), bool(f.streams.audio)
    frames = sound = None
    if has_video:
        with av.open(str(path)) as f:
            frames = np.stack([x.to_ndarray(format="rgb24") for x in f.decode(video=0)])
    if has_audio:
        with av.open(str(path)) as f:
            sound = np.concatenate([x.to_ndarray()[0] for x in f.decode(audio=0)])
    return frames, sound


def manifest(dataset: Path) -> list[dict[str, str]]:
    with (dataset.parent / "manifest.csv").open(newline="") as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "out", SMALL, workers=1)


def test_files_decode_to_what_was_rendered(small: Path) -> None:
    rows = manifest(small)
    assert len(rows) == 66 and len({r["clip_id"] for r in rows}) == 66
    assert sum(r["split"] == "test" for r in rows) == SMALL.n_test == 16
    frames, sound = decode(small.parent / rows[0]["path"])
    clip = render(SMALL, "train", 0)
    assert frames is not None and frames.shape == (8, 64, 64, 3)
    assert sound is not None and 16_000 <= len(sound) < 19_000
    assert np.abs(frames.astype(float) - clip.frames).mean() < 10
    wave = clip.speech + clip.noise
    best = max(np.corrcoef(wave[:14_000], sound[lag : lag + 14_000])[0, 1] for lag in range(1, 1100, 1))
    assert max(best, np.corrcoef(wave[:14_000], sound[:14_000])[0, 1]) > 0.9


def test_dataset_loads(small: Path) -> None:
    dataset = Dataset.load(small)
    assert {u: m.kind for u, m in dataset.modalities.items()} == {"sound": "sound", "frames": "frames"}
    assert dataset.classes == SMALL.classes
    assert len(dataset.clips) == 66 and sum(c.split == "test" for c in dataset.clips) == 16
    assert all(p.is_file() for c in dataset.clips for p in c.paths.values())
    groups = {s: {c.group for c in dataset.clips if c.split == s} for s in ("train", "test")}
    assert not groups["train"] & groups["test"]


def test_same_seed_same_content_whatever_the_workers(small: Path, tmp_path: Path) -> None:
    again = write_demo(tmp_path / "again", SMALL, workers=2)
    assert (again.parent / "manifest.csv").read_text() == (small.parent / "manifest.csv").read_text()
    assert again.read_text() == small.read_text()
    for row in manifest(small)[::9]:
        for a, b in zip(decode(small.parent / row["path"]), decode(again.parent / row["path"]), strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_seed_another_content() -> None:
    a, b = render(SMALL, "train", 3), render(dataclasses.replace(SMALL, seed=1), "train", 3)
    assert not np.array_equal(a.frames, b.frames) and not np.array_equal(a.speech, b.speech)
    assert not np.array_equal(a.noise, render(SMALL, "test", 3).noise)


def test_a_worker_needs_neither_torch_nor_ray() -> None:
    code = """if True:
        import sys
        from mmsearch.data.demo import DemoConfig, render
        render(DemoConfig(), "train", 0)
        print([m for m in ("torch", "ray") if m in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("condition", sorted(CONDITIONS))
def test_source_images_keep_to_one_part(condition: str) -> None:
    config = CONDITIONS[condition]
    n = {"train": config.n_clips - config.n_test, "test": config.n_test}
    assert n == {"train": 1250, "test": 400}
    sources = {split: [_cast(config, split, i)[2] for i in range(n[split])] for split in n}
    assert not set(sources["train"]) & set(sources["test"])
    if not config.pair:
        assert len(set(sources["train"])) == 1250


def measured_snr(config: DemoConfig, i: int) -> float:
    clip = render(config, "train", i)
    return float(10 * np.log10(np.mean(clip.speech.astype(float) ** 2) / np.mean(clip.noise.astype(float) ** 2)))


@pytest.mark.parametrize("snr_db", [-30.0, -4.0, 10.0])
def test_snr(snr_db: float) -> None:
    even = dataclasses.replace(SMALL, snr_db=snr_db, snr_spread=0.0, p_missing_frames=1.0)
    assert measured_snr(even, 7) == pytest.approx(snr_db, abs=0.01)
    spread = [measured_snr(dataclasses.replace(even, snr_spread=6.0), i) for i in range(40)]
    assert snr_db - 6.01 < min(spread) < snr_db - 3 and snr_db + 3 < max(spread) < snr_db + 6.01


def test_a_dial_of_one_modality_leaves_the_other_alone() -> None:
    base = render(SMALL, "train", 5)
    noisy = render(dataclasses.replace(SMALL, snr_db=-20.0), "train", 5)
    np.testing.assert_array_equal(noisy.frames, base.frames)
    np.testing.assert_array_equal(noisy.speech, base.speech)
    plain = render(dataclasses.replace(SMALL, clutter=0, pix_noise=0.0), "train", 5)
    np.testing.assert_array_equal(plain.speech + plain.noise, base.speech + base.noise)
    assert not np.array_equal(plain.frames, base.frames)


def test_picture_dials() -> None:
    def frames(**dials: float) -> np.ndarray:
        still = {"clutter": 0, "pix_noise": 0.0, "jitter": 0.0, "motion": 0.0, "room": 0.0}
        config = dataclasses.replace(SMALL, **{**still, **dials})
        return render(config, "train", 8).frames.astype(float)

    def area(x: np.ndarray) -> float:
        return float((np.abs(x - frames(contrast=0.0)) > 40).mean())

    assert area(frames(contrast=0.0)) == 0
    assert area(frames(digit_px=48)) > 1.6 * area(frames(digit_px=32)) > 0
    assert (
        np.abs(frames(contrast=0.9) - frames(contrast=0.0)).mean()
        > np.abs(frames(contrast=0.4) - frames(contrast=0.0)).mean()
    )
    assert np.abs(np.diff(frames(motion=20), axis=0)).mean() > 2 * np.abs(np.diff(frames(), axis=0)).mean()
    assert np.diff(frames(pix_noise=0.2), axis=0).std() > 40 > np.diff(frames(pix_noise=0.04), axis=0).std()
    assert area(frames(clutter=6)) > area(frames())
    centre = np.abs(frames() - frames(contrast=0.0)).sum((0, 3))
    moved = np.abs(frames(room=1.0) - frames(contrast=0.0)).sum((0, 3))
    assert np.abs(np.subtract(np.unravel_index(centre.argmax(), centre.shape), (32, 32))).max() < 17
    assert not np.allclose(centre, moved)


def test_tempo_varies_with_time_var() -> None:
    def lengths(time_var: float) -> float:
        config = dataclasses.replace(SMALL, time_var=time_var, p_missing_frames=1.0)
        spoken = [np.flatnonzero(np.abs(render(config, "train", 10 * i).speech) > 1e-4) for i in range(12)]
        return float(np.std([x[-1] - x[0] for x in spoken]))

    assert lengths(1.5) > lengths(0.3)


def test_pair_caps_each_modality() -> None:
    config = DemoConfig(n_clips=300, pair=True, n_classes=9, clutter=0, p_missing_sound=1.0)
    assert len(config.classes) == 9 and config.classes[5] == "six+7"
    from sklearn.datasets import load_digits

    target = load_digits().target
    clips = [render(config, "train", i) for i in range(90)]
    for clip in clips:
        assert target[clip.source] == int(clip.label.split("+")[1])
    by_digit = {d: {c.label.split("+")[0] for c in clips if c.label.endswith(d)} for d in "047"}
    assert all(words == {"one", "six", "eight"} for words in by_digit.values())
    assert len({c.source for c in clips}) == 90


def test_missing_tracks_are_missing(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, p_missing_sound=0.4, p_missing_frames=0.3)
    path = write_demo(tmp_path / "gaps", config, workers=1)
    tracks = [decode(path.parent / r["path"]) for r in manifest(path)]
    no_frames, no_sound = (sum(t[k] is None for t in tracks) for k in (0, 1))
    assert 8 <= no_frames <= 32 and 14 <= no_sound <= 40
    assert not any(f is None and s is None for f, s in tracks)


def test_label_noise_spares_the_test_part() -> None:
    config = dataclasses.replace(SMALL, label_noise=0.5, clutter=0, p_missing_sound=1.0)
    wrong = sum(render(config, "train", i).label != config.classes[i % 10] for i in range(100))
    assert 35 <= wrong <= 65
    assert all(render(config, "test", i).label == config.classes[i % 10] for i in range(30))


def test_loud_noise_does_not_clip(tmp_path: Path) -> None:
    encode(render(CONDITIONS["sound_useless"], "train", 0), tmp_path / "a.mp4")
    _, sound = decode(tmp_path / "a.mp4")
    assert 0.5 < np.abs(sound).max() < 1.2


def test_reuse_and_refusal(tmp_path: Path) -> None:
    config = DemoConfig(n_clips=4, n_classes=2)
    out = tmp_path / "a" / "out"
    seen: list[tuple[int, int]] = []
    first = write_demo(out, config, workers=1, on_progress=lambda *x: seen.append(x))
    assert seen[-1] == (4, 4)
    stamp = first.stat().st_mtime_ns
    assert write_demo(out, config) == first and first.stat().st_mtime_ns == stamp
    with pytest.raises(MMSearchError, match=r"snr_db is -7\.0, not 0\.0"):
        write_demo(out, dataclasses.replace(config, snr_db=0.0))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").touch()
    with pytest.raises(MMSearchError, match="something else"):
        write_demo(tmp_path / "b", config)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["out"]


def test_nothing_is_left_of_a_build_that_failed(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "out", DemoConfig(n_clips=4, n_classes=2), workers=1, on_progress=stop)
    assert not list(tmp_path.iterdir())


def test_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path))
    config = DemoConfig(n_clips=4, n_classes=2)
    path = cached_demo(config, workers=1)
    assert path.is_relative_to(tmp_path) and cached_demo(config) == path
    assert cached_demo(dataclasses.replace(config, seed=1), workers=1) != path
    monkeypatch.setattr("mmsearch.data.demo.GENERATOR", 999)
    assert cached_demo(config, workers=1) != path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"condition": "sound_dominate"}, "did you mean 'sound_dominates'"),
        ({"snr": 3}, "did you mean 'snr_db'"),
        ({"snr_db": "loud"}, "must be a number"),
        ({"contrast": 1.5}, "0 to 1"),
        ({"clutter": 2.5}, "whole number"),
        ({"n_clips": -5}, "n_clips"),
        ({"pair": True}, "4 or 9"),
        ({"pair": True, "n_classes": 5}, "4 or 9"),
        ({"p_missing_sound": 0.6, "p_missing_frames": 0.6}, "more than 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(MMSearchError, match=message):
        DemoConfig.of(**{"condition": "sound_dominates", **arguments})


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    from mmsearch.cli import demo

    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    out = tmp_path / "out"
    arguments = [
        str(out),
        "--condition",
        "balanced",
        "--clips",
        "12",
        "--seed",
        "3",
        "--clutter",
        "0",
        "--snr-db",
        "-2",
    ]
    assert demo.run(parser.parse_args(arguments)) == 0
    assert str(out / "dataset.yaml") in capsys.readouterr().out
    wanted = dataclasses.replace(CONDITIONS["balanced"], n_clips=12, seed=3, clutter=0, snr_db=-2.0)
    assert write_demo(out, wanted) == out / "dataset.yaml"
