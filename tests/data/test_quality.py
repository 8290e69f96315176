"""Quality dials: what they do to a clip, to which clips, and that nothing but seed, clip and dial decides it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.batch import Modality
from mmsearch.data import _corrupt
from mmsearch.data.dataset import ModalityConfig
from mmsearch.data.document import Document
from mmsearch.data.quality import (
    Applied,
    FeatureDials,
    LabelNoise,
    PictureDials,
    Quality,
    SoundDials,
    TextDials,
)
from mmsearch.errors import MMSearchError

KEY = np.array([3, 7], np.uint64)
CLASSES = ["a", "b", "c", "d"]
MODALITIES = {
    "sound": Modality("sound", "sound", (400,), 100.0),
    "frames": Modality("frames", "frames", (5, 16, 16, 3)),
    "move": Modality("move", "flow", (3, 8, 8, 2)),
    "words": Modality("words", "text", (80,)),
    "steps": Modality("steps", "series", (30, 4)),
    "vector": Modality("vector", "vector", (6,)),
}
KINDS = {name: ModalityConfig(m.kind, name, {}) for name, m in MODALITIES.items()}
EVERYTHING = Quality(
    seed=5,
    mismatch=0.3,
    labels=LabelNoise(noise=0.3),
    modalities={
        "sound": SoundDials(snr_db=0, spread=8, desync=0.5, missing=0.2, noise="pink"),
        "frames": PictureDials(severity=2.5, spread=2, missing=0.1),
        "move": PictureDials(severity=1),
        "words": TextDials(dropped=0.4, spread=0.3),
        "steps": FeatureDials(snr_db=3, spread=3),
        "vector": FeatureDials(snr_db=3),
    },
)


@dataclasses.dataclass
class Stored:
    """Clips made from their ids, so that two datasets with the same id hold the same clip."""

    kind: str
    clip_ids: list[str]
    present: np.ndarray

    def read(self, i: int) -> np.ndarray:
        assert self.present[i]
        rng = np.random.default_rng([len(self.kind), *self.clip_ids[i].encode()])
        return {
            "sound": lambda: rng.integers(-3000, 3000, 300).astype("<i2"),
            "frames": lambda: rng.integers(0, 256, (5, 16, 16, 3)).astype(np.uint8),
            "flow": lambda: rng.integers(0, 256, (3, 8, 8, 2)).astype(np.uint8),
            "text": lambda: np.frombuffer(f"ein größeres {self.clip_ids[i]} Wort und noch eins".encode(), np.uint8),
            "series": lambda: rng.normal(size=(30, 4)).astype("<f4"),
            "vector": lambda: rng.normal(size=6).astype("<f4"),
        }[self.kind]()

    def take(self, i: int, picks: np.ndarray) -> np.ndarray:
        return self.read(i)[picks]


@dataclasses.dataclass
class Clips:
    """A dataset of `n` clips, a quarter of them test; classes in turn."""

    n: int = 400
    names: tuple[str, ...] = ("sound", "frames")
    label: np.ndarray | None = None
    absent: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.label = np.arange(self.n) % 4 if self.label is None else self.label
        self.test = np.arange(self.n) // 4 % 4 == 3
        self.clip_ids = [f"clip-{i}" for i in range(self.n)]
        self.sources = {
            name: Stored(MODALITIES[name].kind, self.clip_ids, ~self.absent.get(name, np.zeros(self.n, bool)))
            for name in self.names
        }

    def at(self, quality: Quality) -> Applied:
        modalities = {name: MODALITIES[name] for name in self.names}
        return quality.apply(self.sources, modalities, self.label, self.test, self.clip_ids, CLASSES)


def reads(applied: Applied, i: int) -> dict[str, bytes]:
    return {name: source.read(i).tobytes() for name, source in applied.sources.items() if source.present[i]}


def fingerprint(applied: Applied) -> str:
    content = hashlib.blake2b(applied.label.tobytes())
    for i in reversed(range(len(applied.rows))):
        for name, array in reads(applied, i).items():
            content.update(name.encode() + array)
    return content.hexdigest()


def snr(clean: np.ndarray, noisy: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Of a mixture that was not turned down, dB."""
    clean, noisy = clean.astype(np.float64), noisy.astype(np.float64)
    return 10 * np.log10(np.mean(clean**2, axis) / np.mean((noisy - clean) ** 2, axis))


# ---------------------------------------------------------------- the same for every trial


def test_another_process_in_another_order_sees_the_same_clips():
    clips = Clips(40, tuple(MODALITIES))
    applied = clips.at(EVERYTHING)
    for i in range(len(applied.rows)):
        reads(applied, i)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_quality import Clips, MODALITIES, EVERYTHING, fingerprint\n"
        "print(fingerprint(Clips(40, tuple(MODALITIES)).at(EVERYTHING)))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert other.stdout.strip() == fingerprint(applied)
    assert fingerprint(clips.at(dataclasses.replace(EVERYTHING, seed=6))) != fingerprint(applied)


def test_more_clips_change_no_other_clip():
    quality = dataclasses.replace(EVERYTHING, mismatch=0)
    few, many = Clips(60, tuple(MODALITIES)).at(quality), Clips(100, tuple(MODALITIES)).at(quality)
    assert (few.label == many.label[:60]).all()
    assert all(reads(few, i) == reads(many, i) for i in range(60))
    partners = dataclasses.replace(EVERYTHING, mismatch=1.0, labels=LabelNoise(), modalities={})
    few, many = Clips(1000).at(partners), Clips(1010).at(partners)
    assert np.mean([reads(few, i) == reads(many, i) for i in range(1000)]) > 0.95


def test_a_dial_leaves_the_draws_of_the_others_alone():
    clips = Clips()
    one = clips.at(Quality(modalities={"sound": SoundDials(snr_db=0, spread=5)}))
    more = clips.at(
        Quality(
            labels=LabelNoise(noise=0.5),
            modalities={"sound": SoundDials(snr_db=0, spread=5), "frames": PictureDials(severity=3, missing=0.5)},
        )
    )
    assert all(reads(one, i)["sound"] == reads(more, i)["sound"] for i in range(20))


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(MODALITIES)),
    i=st.integers(0, 39),
    picks=st.lists(st.integers(0, 2), min_size=1, max_size=6),
)
def test_frames_taken_alone_are_those_of_the_whole_clip(name, i, picks):
    applied = Clips(40, tuple(MODALITIES)).at(EVERYTHING)
    source = applied.sources[name]
    if source.present[i]:
        whole = source.read(i)
        assert np.array_equal(source.take(i, np.array(picks)), whole[np.array(picks)])


def test_clips_stay_of_their_type_and_clean_ones_are_as_stored():
    clips = Clips(40, tuple(MODALITIES))
    worse, clean = clips.at(EVERYTHING), clips.at(Quality())
    for name, source in clips.sources.items():
        assert (clean.sources[name].present == source.present).all()
        for i in range(40):
            assert np.array_equal(clean.sources[name].read(i), source.read(i))
            if worse.sources[name].present[i]:
                array = worse.sources[name].read(i)
                assert array.dtype == source.read(i).dtype
                assert array.ndim == source.read(i).ndim and (name == "words" or array.shape == source.read(i).shape)


# ---------------------------------------------------------------- noise


@settings(max_examples=40, deadline=None)
@given(level=st.floats(-25, 30), pink=st.booleans(), loud=st.floats(0.05, 1), length=st.integers(2000, 30000))
def test_the_snr_of_a_sound_is_what_was_asked_even_at_full_scale(level, pink, loud, length):
    times = np.arange(length) / 16000
    wave = np.rint(32767 * loud * np.sin(2 * np.pi * 440 * times) * np.hanning(length)).astype(np.int16)
    noisy = _corrupt.noisy_sound(wave, level, KEY, pink)
    soft = (wave / 2**30).astype(np.float32)
    soft_noisy = _corrupt.noisy_sound(soft, level, KEY, pink).astype(np.float64)
    assert snr(soft, soft_noisy) == pytest.approx(level, abs=0.01)
    assert noisy.dtype == np.int16 and np.abs(noisy.astype(int)).max() <= 32767
    turned_down = min(2**30, 32767 / np.abs(soft_noisy).max())
    assert noisy == pytest.approx(soft_noisy * turned_down, abs=1), "the mixture as a whole"


def test_noise_is_gaussian_and_white_or_falling():
    wave = np.full(1 << 16, 0.001, np.float32)
    white = _corrupt.noisy_sound(wave, -20, KEY) - wave
    pink = _corrupt.noisy_sound(wave, -20, KEY, pink=True) - wave
    assert abs(white.mean()) < 1e-4 and white.std() == pytest.approx(0.01, rel=0.01)
    assert np.mean(np.abs(white) > 0.02) == pytest.approx(0.0455, abs=0.004)

    def octave(x, k):
        return np.sum(np.abs(np.fft.rfft(x)[2**k : 2 ** (k + 1)]) ** 2)

    assert octave(white, 14) / octave(white, 10) == pytest.approx(16, rel=0.2)
    assert octave(pink, 14) / octave(pink, 10) == pytest.approx(1, rel=0.2)
    assert np.array_equal(_corrupt.noisy_sound(np.zeros(50, np.int16), 0, KEY), np.zeros(50))


def test_spread_varies_the_snr_around_the_dial_and_the_truth_says_by_how_much():
    clips = Clips()
    applied = clips.at(Quality(modalities={"sound": SoundDials(snr_db=2, spread=8)}))
    level = applied.truth["sound/snr_db"]
    assert level.min() >= -6 and level.max() <= 10 and level.std() == pytest.approx(16 / 12**0.5, rel=0.1)
    for i in range(0, 40, 5):
        assert snr(clips.sources["sound"].read(i), applied.sources["sound"].read(i)) == pytest.approx(level[i], abs=0.1)
    edge = clips.at(Quality(modalities={"frames": PictureDials(severity=4.5, spread=1)})).truth["frames/severity"]
    assert edge.max() == 5 and edge.min() >= 3.5


def test_a_severer_picture_is_further_from_the_clean_one():
    shade = np.linspace(40, 215, 48)
    picture = shade[None, :, None, None] * np.ones((2, 1, 48, 3))
    picture[:, :, ::6] = 255 - picture[:, :, ::6]
    picture = picture.astype(np.uint8)
    errors = [
        np.mean((_corrupt.noisy_pictures(picture, level, KEY, range(2)) - picture.astype(float)) ** 2)
        for level in np.linspace(0, 5, 21)
    ]
    assert errors[0] == 0 and (np.diff(errors) > 0).all()
    grey = np.full((1, 224, 224, 3), 128, np.uint8)
    for level in range(1, 6):
        noisy = _corrupt.noisy_pictures(grey, level, KEY, [0]).astype(float)
        if level < 4:  # from 4 on the noise leaves full scale
            assert noisy.std() / 255 == pytest.approx(_corrupt.SEVERITY_NOISE[level], rel=0.02)
    line = np.zeros((1, 224, 224, 3), np.uint8)
    line[:, 112] = 255
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_corrupt, "SEVERITY_NOISE", (0.0,) * 6)
        blurred = _corrupt.noisy_pictures(line, 3, KEY, [0])[0, :, 0, 0].astype(float)
    width = np.sqrt((blurred * (np.arange(224) - 112) ** 2).sum() / blurred.sum())
    assert width == pytest.approx(3, rel=0.1)


def test_every_frame_has_noise_of_its_own_and_the_same_wherever_it_stands():
    grey = np.full((3, 8, 8, 3), 128, np.uint8)
    one, two, three = _corrupt.noisy_pictures(grey, 2, KEY, [0, 1, 2])
    assert not np.array_equal(one, two) and not np.array_equal(two, three)
    assert np.array_equal(_corrupt.noisy_pictures(grey, 2, KEY, [2, 0, 2]), np.stack([three, one, three]))


def test_features_get_noise_by_their_own_power():
    scale = np.array([1e-3, 1.0, 50.0, 0.0], np.float32)
    series = (np.random.default_rng(0).normal(size=(20000, 4)) * scale).astype(np.float32)
    noisy = _corrupt.noisy_features(series, 6, KEY)
    assert snr(series[:, :3], noisy[:, :3], axis=0) == pytest.approx(6, abs=0.15)
    assert (noisy[:, 3] == 0).all() and noisy.dtype == np.float32
    vector = np.random.default_rng(1).normal(size=20000).astype(np.float32)
    assert snr(vector, _corrupt.noisy_features(vector, -3, KEY), axis=0) == pytest.approx(-3, abs=0.15)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=60), share=st.floats(0, 1), key=st.integers(0, 2**64 - 1))
def test_words_are_lost_in_order_and_one_stays(text, share, key):
    stored = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    left = _corrupt.fewer_words(stored, share, np.array([key, 1], np.uint64)).tobytes()
    words = iter(stored.tobytes().split())
    assert all(word in words for word in left.split())
    assert bool(left.split()) == bool(stored.tobytes().split())
    left.decode("utf-8")


def test_the_share_of_words_is_lost():
    text = np.frombuffer(" ".join(f"w{i}" for i in range(5000)).encode(), np.uint8)
    assert len(_corrupt.fewer_words(text, 0.3, KEY).tobytes().split()) == pytest.approx(3500, abs=120)


def test_a_late_sound_keeps_all_it_had():
    clips = Clips()
    applied = clips.at(Quality(modalities={"sound": SoundDials(desync=0.5)}))
    late = applied.truth["sound/desync"]
    assert late.min() < -0.45 and late.max() > 0.45 and np.abs(late).max() <= 0.5
    assert np.isnan(applied.truth["sound/snr_db"]).all()
    for i in range(10):
        wave = clips.sources["sound"].read(i)
        assert np.array_equal(applied.sources["sound"].read(i), np.roll(wave, round(late[i] * 100)))


# ---------------------------------------------------------------- which clips


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0, 1), kind=st.sampled_from(["symmetric", "pair"]), seed=st.integers(0, 2**63 - 1))
def test_labels_are_wrong_at_the_share_and_never_in_test(share, kind, seed):
    clips = Clips(2000)
    applied = clips.at(Quality(seed=seed, labels=LabelNoise(noise=share, kind=kind)))
    wrong = applied.label != applied.truth["label"]
    assert (applied.truth["label"] == clips.label).all()
    assert not wrong[clips.test].any()
    assert wrong[~clips.test].mean() == pytest.approx(share, abs=0.06)
    steps = (applied.label - clips.label)[wrong] % 4
    if kind == "pair":
        assert (steps == 1).all()
    elif wrong.sum() > 500:
        assert np.bincount(steps, minlength=4)[1:] / wrong.sum() == pytest.approx(1 / 3, abs=0.1)


def test_labels_are_wrong_whatever_inputs_are_touched():
    assert (Clips().at(Quality(on="test", labels=LabelNoise(noise=0.5))).label != Clips().label).any()


@pytest.mark.parametrize("modality", ["", "frames"])
def test_a_mismatch_is_the_input_of_another_class_of_the_same_part(modality):
    clips = Clips(1200)
    applied = clips.at(Quality(mismatch=0.25, modality=modality))
    original = {name: {source.read(i).tobytes(): i for i in range(clips.n)} for name, source in clips.sources.items()}
    assert (applied.label == clips.label).all()
    moved = np.zeros(clips.n, int)
    for name, source in applied.sources.items():
        here = np.flatnonzero(applied.truth[f"{name}/mismatched"])
        moved[here] += 1
        for i in range(clips.n):
            donor = original[name][source.read(i).tobytes()]
            assert (donor != i) == (i in here)
            if donor != i:
                assert clips.label[donor] != clips.label[i] and clips.test[donor] == clips.test[i]
        assert len(here) == pytest.approx({"": 150, "frames": 300 * (name == "frames")}[modality], abs=40)
    assert moved.max() == 1 and (applied.truth["mismatched"] == (moved > 0)).all()


def test_only_a_clip_with_something_to_match_can_mismatch():
    absent = {"sound": np.arange(400) % 3 == 0}
    applied = Clips(absent=absent).at(Quality(mismatch=1.0))
    assert (applied.truth["mismatched"] == ~absent["sound"]).all()
    alone = Clips(names=("sound",)).at(Quality(mismatch=1.0))
    assert not alone.truth["mismatched"].any()


def test_a_dropped_clip_stands_in_for_nobody():
    clips = Clips(400)
    applied = clips.at(Quality(fraction=0.3, mismatch=1.0))
    original = {clips.sources["sound"].read(i).tobytes(): i for i in range(clips.n)}
    assert {original[applied.sources["sound"].read(i).tobytes()] for i in range(len(applied.rows))} <= set(applied.rows)


def test_modalities_are_missing_at_random_and_by_class():
    clips = Clips(4000, absent={"sound": np.arange(4000) % 8 == 4})
    quality = Quality(
        modalities={
            "sound": SoundDials(missing=0.2, snr_db=0),
            "frames": PictureDials(missing=0.5, missing_classes=("b", "d"), severity=1),
        }
    )
    applied = clips.at(quality)
    had = ~clips.absent["sound"]
    lost = applied.truth["sound/missing"]
    assert not lost[~had].any() and lost[had & (clips.label % 2 == 0)].mean() == pytest.approx(0.2, abs=0.03)
    assert (applied.sources["sound"].present == had & ~lost).all()
    gone = applied.truth["frames/missing"]
    assert not gone[clips.label % 2 == 0].any()
    # where both would go, sound stays: it has the smaller share
    assert gone[clips.label % 2 == 1].mean() == pytest.approx(0.5, abs=0.03)
    assert lost[clips.label % 2 == 1].mean() == pytest.approx(0.1, abs=0.03)
    assert np.array_equal(np.isnan(applied.truth["sound/snr_db"]), ~applied.sources["sound"].present)
    assert np.array_equal(np.isnan(applied.truth["frames/severity"]), gone)


@settings(max_examples=30, deadline=None)
@given(shares=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_no_clip_loses_all_of_its_modalities(shares, seed):
    names = ("sound", "frames", "vector")
    rng = np.random.default_rng(seed)
    absent = dict(zip(names, rng.random((3, 300)) < 0.4, strict=True))
    clips = Clips(300, names, absent=absent)
    dials = dict(zip(names, (SoundDials, PictureDials, FeatureDials), strict=True))
    quality = Quality(seed=seed, modalities={n: dials[n](missing=s) for n, s in zip(names, shares, strict=True)})
    left = np.stack([source.present for source in clips.at(quality).sources.values()])
    had = np.stack([~absent[n] for n in names])
    assert (left <= had).all()
    assert left.any(0)[had.sum(0) > 1].all()
    for name, share, there, before in zip(names, shares, left, had, strict=True):
        if share == 0:
            assert (there == before).all(), name
        if share == 1 and shares.count(1.0) == 1:
            assert not there.any(), name


def test_a_whole_modality_can_go_and_a_lone_one_too():
    applied = Clips().at(Quality(on="train", modalities={"sound": SoundDials(missing=1.0)}))
    assert (applied.sources["sound"].present == Clips().test).all() and applied.sources["frames"].present.all()
    assert (
        not Clips(names=("sound",))
        .at(Quality(modalities={"sound": SoundDials(missing=1)}))
        .sources["sound"]
        .present.any()
    )


@pytest.mark.parametrize("on", ["train", "test", "both"])
def test_only_the_part_named_is_touched(on):
    clips = Clips(200)
    applied = clips.at(dataclasses.replace(EVERYTHING, on=on, modalities={
        k: v for k, v in EVERYTHING.modalities.items() if k in clips.names
    }))  # fmt: skip
    touched = {"train": ~clips.test, "test": clips.test, "both": np.ones(200, bool)}[on]
    for key in ("sound/missing", "frames/missing", "mismatched"):
        assert applied.truth[key][touched].any() and not applied.truth[key][~touched].any()
    for key in ("sound/snr_db", "sound/desync", "frames/severity"):
        assert np.isnan(applied.truth[key][~touched]).all()
    for i in np.flatnonzero(~touched):
        assert np.array_equal(applied.sources["sound"].read(i), clips.sources["sound"].read(i))


def sizes(applied: Applied, clips: Clips) -> list[int]:
    development = ~clips.test[applied.rows]
    assert (np.isin(np.flatnonzero(clips.test), applied.rows)).all(), "test keeps its clips"
    assert (np.diff(applied.rows) > 0).all()
    return np.bincount(clips.label[applied.rows][development], minlength=4).tolist()


def test_imbalance_is_exponential_and_from_largest_to_smallest():
    clips = Clips(1600)
    assert sizes(clips.at(Quality(imbalance=8)), clips) == [300, 150, 75, 38]
    assert sizes(clips.at(Quality(imbalance=8, fraction=0.5)), clips) == [150, 75, 38, 19]
    assert sizes(clips.at(Quality(imbalance=1000)), clips) == [300, 30, 3, 1]
    uneven = Clips(1600, label=np.array([3] * 20 + [0] * 100 + [1] * 480 + [2] * 1000))
    before = np.bincount(uneven.label[~uneven.test], minlength=4)
    assert sizes(uneven.at(Quality(imbalance=4)), uneven)[3] == before[3], "a class smaller already keeps its clips"


@settings(max_examples=30, deadline=None)
@given(small=st.floats(0.001, 1), large=st.floats(0.001, 1), seed=st.integers(0, 9))
def test_fraction_is_by_class_and_a_smaller_one_is_part_of_a_larger(small, large, seed):
    small, large = sorted([small, large])
    clips = Clips(480)
    less, more = clips.at(Quality(seed=seed, fraction=small)), clips.at(Quality(seed=seed, fraction=large))
    assert sizes(less, clips) == [max(1, round(90 * small))] * 4
    assert set(less.rows) <= set(more.rows)
    for k, row in enumerate(less.rows[:5]):
        assert np.array_equal(less.sources["sound"].read(k), clips.sources["sound"].read(row))
        assert less.label[k] == clips.label[row]


# ---------------------------------------------------------------- as YAML, as Python, as JSON

SECTION = """\
name: x
quality:
  seed: 3
  on: train
  fraction: 0.5
  imbalance: 10
  labels: {noise: 0.2, kind: pair}
  mismatch: 0.1
  modality: sound
  modalities:
    sound: {snr_db: 0, spread: 8, missing: 0.2, missing_classes: [a, b], desync: 0.3}
    frames:
      severity: 2
    words: {dropped: 0.1}
    steps: {snr_db: .inf}
"""


def parsed(tmp_path: Path, text: str, classes: list[str] | None = None) -> Quality | None:
    path = tmp_path / "d.yaml"
    path.write_text(text)
    return Quality.parse(Document(path), KINDS, classes)


def test_the_section_of_a_dataset_yaml(tmp_path):
    quality = parsed(tmp_path, SECTION, CLASSES)
    assert quality == Quality(
        seed=3,
        on="train",
        fraction=0.5,
        imbalance=10,
        mismatch=0.1,
        modality="sound",
        labels=LabelNoise(noise=0.2, kind="pair"),
        modalities={
            "sound": SoundDials(snr_db=0, spread=8, missing=0.2, missing_classes=("a", "b"), desync=0.3),
            "frames": PictureDials(severity=2),
            "words": TextDials(dropped=0.1),
            "steps": FeatureDials(),
        },
    )
    assert parsed(tmp_path, "name: x\n") is None
    assert parsed(tmp_path, "quality:\n") == Quality()


def test_json_and_identity():
    for quality in (EVERYTHING, Quality(), Quality(modalities={"words": TextDials(missing_classes=("a",))})):
        document = json.loads(json.dumps(quality.to_dict(), allow_nan=False))
        assert Quality.from_dict(document) == quality
        assert Quality.from_dict(document).identity() == quality.identity()
    assert Quality().to_dict() == {}
    assert Quality(fraction=1).identity() == Quality().identity() != Quality(seed=1).identity()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "seed: x", "d.yaml:3: seed must be a number, not 'x'"),
        ("on: train", "on: trian", "d.yaml:4: on is 'trian'; did you mean 'train'?"),
        ("fraction: 0.5", "fraction: 0", "d.yaml:5: fraction is 0; allowed: 0.001 to 1"),
        ("fraction: 0.5", "fracton: 0.5", "d.yaml:5: unknown key 'fracton'; did you mean 'fraction'?"),
        ("kind: pair", "kind: pear", "d.yaml:7: kind is 'pear'; did you mean 'pair'?"),
        ("noise: 0.2", "nois: 0.2", "d.yaml:7: unknown key 'nois'; did you mean 'noise'?"),
        ("{noise: 0.2, kind: pair}", "0.2", "d.yaml:7: labels needs `dial: value` lines, not 0.2"),
        ("modality: sound", "modality: sond", "d.yaml:9: unknown modality 'sond'; did you mean 'sound'?"),
        ("frames:", "frame:", "d.yaml:12: unknown modality 'frame'; did you mean 'frames'?"),
        ("severity: 2", "severity: 7", "d.yaml:13: severity is 7; allowed: 0 to 5"),
        ("severity: 2", "snr_db: 2", "d.yaml:13: unknown key 'snr_db'"),
        ("snr_db: 0", "snr_db: .nan", "d.yaml:11: snr_db is nan; allowed: -60 to 60"),
        ("snr_db: 0, ", "", "d.yaml:11: quality: spread varies snr_db, which is not given"),
        ("[a, b]", "[a, e]", "d.yaml:11: unknown class 'e'; known: a, b, c, d"),
        ("[a, b]", "a", "d.yaml:11: missing_classes must be a list of class names, as in [a, b], not 'a'"),
        ("  seed: 3", "- seed", "d.yaml:2: quality needs `dial: value` lines, not ['seed']"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, old, new, message):
    text = SECTION.replace(old, new, 1) if new[0:1] != "-" else "name: x\nquality:\n- seed\n"
    with pytest.raises(MMSearchError) as error:
        parsed(tmp_path, text, CLASSES)
    assert str(error.value).startswith(f"{tmp_path}/{message}")


def test_a_mistake_from_python_is_named_too():
    with pytest.raises(MMSearchError, match="quality: snr_db is 99; allowed: -60 to 60"):
        SoundDials(snr_db=99)
    with pytest.raises(MMSearchError, match="quality: labels: noise is 2"):
        LabelNoise(noise=2)
    with pytest.raises(MMSearchError, match="unknown modality 'sond'; did you mean 'sound'"):
        Clips().at(Quality(modalities={"sond": SoundDials()}))
    with pytest.raises(MMSearchError, match="quality: sound: unknown class 'A'"):
        Clips().at(Quality(modalities={"sound": SoundDials(missing_classes=("A",))}))
    with pytest.raises(MMSearchError, match="quality: frames is of kind frames, which needs PictureDials"):
        Clips().at(Quality(modalities={"frames": SoundDials()}))
