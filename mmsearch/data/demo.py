"""The embedded demo: talking digits as real mp4 files, and dials that decide which modality wins.

The picture is one of scikit-learn's handwritten digits drifting over a cluttered ground, the sound a synthetic
speaker in noise. Four conditions differ by dials alone; see :data:`CONDITIONS`.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import numpy as np
import yaml

from mmsearch.data import _demo_picture, _demo_sound
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import check_knobs, knob, knobs_of

if TYPE_CHECKING:
    from mmsearch.data.dataset import ModalityConfig

GENERATOR = 1
"""Version of the generator; to be raised whenever the same configuration gives other clips."""

SECONDS = 1.0
_MARK = "demo.json"
_TEST_SHARE = 8 / 33
_SOURCE_SEED = 1234
_TEST_SOURCES = 0.2
_PAIR_WORDS, _PAIR_DIGITS = (1, 6, 8), (0, 4, 7)
_CLIPS_PER_TASK = 32


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """The dials of a demo set; declared like knobs, so that range, text and command line come from one place.

    With `pair` the sound says one of k words, the picture shows one of k digits and the class is the pair, so that
    neither modality alone gets above 1/k; `n_classes` is then 4 or 9. Of `n_clips`, 8 in 33 are the test part.

    Raises:
        MMSearchError: a dial out of range, or dials that contradict each other.
    """

    n_clips: int = knob(1650, "clips in all; 8 in 33 are the test part", low=4, high=1_000_000)
    n_classes: int = knob(10, "classes (with pair: 4 or 9)", low=2, high=10)
    seed: int = knob(0, "another seed, another set", low=0, high=2**32 - 1)
    snr_db: float = knob(-7.0, "speech over noise, dB, over the whole second", low=-60.0, high=60.0)
    snr_spread: float = knob(8.0, "snr_db varies from clip to clip by up to so many dB", low=0.0, high=30.0)
    time_var: float = knob(1.0, "variation of tempo and of segment lengths", low=0.0, high=3.0)
    clutter: int = knob(6, "fragments of other digits on the ground", low=0, high=50)
    contrast: float = knob(0.9, "opacity of the digit", low=0.0, high=1.0)
    room: float = knob(0.5, "share of the canvas in which the digit starts", low=0.0, high=1.0)
    jitter: float = knob(1.0, "variation of size, rotation and path of the digit", low=0.0, high=3.0)
    motion: float = knob(8.0, "drift of the digit over the clip, pixels (standard deviation)", low=0.0, high=64.0)
    digit_px: float = knob(32.0, "size of the digit, pixels of 64", low=8.0, high=64.0)
    pix_noise: float = knob(0.04, "noise of every pixel (standard deviation; white is 1)", low=0.0, high=1.0)
    pair: bool = knob(False, "the class is the pair of spoken word and shown digit")
    p_missing_sound: float = knob(0.0, "share of clips without a sound track", low=0.0, high=1.0)
    p_missing_frames: float = knob(0.0, "share of clips without a picture track", low=0.0, high=1.0)
    label_noise: float = knob(0.0, "share of development clips with a wrong label", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        for name, value in check_knobs(DemoConfig, dataclasses.asdict(self), "demo").items():
            object.__setattr__(self, name, value)
        if self.pair and self.n_classes not in (4, 9):
            raise MMSearchError(
                f"demo: with pair, n_classes is 4 or 9 (2 or 3 words by as many digits), not {self.n_classes}"
            )
        if self.p_missing_sound + self.p_missing_frames > 1:
            raise MMSearchError("demo: p_missing_sound and p_missing_frames add up to more than 1; no clip loses both")

    @classmethod
    def of(cls, condition: str, **dials: Any) -> DemoConfig:
        """A condition with some dials changed.

        Raises:
            MMSearchError: unknown condition or dial (with the nearest name), or a value out of range.
        """
        if condition not in CONDITIONS:
            raise MMSearchError(f"demo: unknown condition {condition!r}{nearest(condition, CONDITIONS)}")
        known = knobs_of(cls)
        for name in dials:
            if name not in known:
                raise MMSearchError(f"demo: unknown dial {name!r}{nearest(name, known)}")
        return dataclasses.replace(CONDITIONS[condition], **dials)

    @property
    def n_test(self) -> int:
        """Clips of the test part."""
        return max(1, round(self.n_clips * _TEST_SHARE))

    @property
    def classes(self) -> list[str]:
        """Names of the classes: words such as `three`, or pairs such as `one+4`."""
        if self.pair:
            words, digits = _pairs(self)
            return [f"{_demo_sound.WORDS[w]}+{d}" for w in words for d in digits]
        return list(_demo_sound.WORDS[: self.n_classes])


CONDITIONS: dict[str, DemoConfig] = {
    "sound_dominates": DemoConfig(),
    "picture_dominates": DemoConfig(
        clutter=0, contrast=0.4, room=0.1, jitter=0.3, motion=4, digit_px=40, pix_noise=0.2, time_var=1.5
    ),
    "balanced": DemoConfig(pair=True, n_classes=9),
    "sound_useless": DemoConfig(snr_db=-30),
}
"""Dials by condition: the sound is learned first and starves the picture; the reverse; both are needed and nothing
helps; and the sound says nothing, so that the picture alone is best."""


class Clip(NamedTuple):
    """One clip before encoding.

    Attributes:
        clip_id: `dev-0007` or `test-0007`.
        split: `train` (the whole development part) or `test`.
        label: class name; with `label_noise` it may be wrong.
        source: index of the shown image among scikit-learn's digits.
        frames: uint8 `[8, 64, 64, 3]`, None where the track is missing.
        speech, noise: float32 `[16000]`, None where the track is missing. Their sum is the sound.
    """

    clip_id: str
    split: str
    label: str
    source: int
    frames: np.ndarray | None
    speech: np.ndarray | None
    noise: np.ndarray | None


def _pairs(config: DemoConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    k = {4: 2, 9: 3}[config.n_classes]
    return _PAIR_WORDS[:k], _PAIR_DIGITS[:k]


@functools.cache
def _sources() -> tuple[np.ndarray, dict[str, list[np.ndarray]]]:
    """scikit-learn's digits `[1797, 8, 8]` in 0 to 1, and per split and digit the indices of its own images."""
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    rng = np.random.default_rng(_SOURCE_SEED)
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for digit in range(10):
        order = rng.permutation(np.flatnonzero(target == digit))
        cut = round(len(order) * (1 - _TEST_SOURCES))
        parts["train"].append(order[:cut])
        parts["test"].append(order[cut:])
    return (images / 16).reshape(-1, 8, 8), parts


def _cast(config: DemoConfig, split: str, i: int) -> tuple[int, int, int]:
    """The true class of clip `i` of a split, the digit that is spoken, and the source image that is shown.

    Every digit's images are used in turn, also where several classes show the same digit.
    """
    label, turn = i % config.n_classes, i // config.n_classes
    word, shown = label, label
    if config.pair:
        words, digits = _pairs(config)
        word, shown = words[label // len(digits)], digits[label % len(digits)]
        turn = turn * len(words) + label // len(digits)
    own = _sources()[1][split][shown]
    return label, word, int(own[turn % len(own)])


def render(config: DemoConfig, split: str, i: int) -> Clip:
    """Clip `i` of a split, a pure function of its arguments.

    Picture, sound, noise and mishaps are drawn from streams of their own: a dial of one changes nothing of the others.
    """
    images, parts = _sources()
    key = [config.seed, ("train", "test").index(split), i]
    for_picture, for_sound, for_noise, for_mishaps = (np.random.default_rng([*key, k]) for k in range(4))
    label, word, source = _cast(config, split, i)
    lost, wrong, other = for_mishaps.uniform(size=3)
    if split == "train" and wrong < config.label_noise:
        label = (label + 1 + int(other * (config.n_classes - 1))) % config.n_classes

    frames = speech = noise = None
    if lost <= 1 - config.p_missing_frames:
        pool = images[np.concatenate(parts[split])]
        frames = _demo_picture.picture(images[source], pool, config, for_picture)
    if lost >= config.p_missing_sound:
        speech = _demo_sound.speech(word, SECONDS, config.time_var, for_sound)
        snr_db = config.snr_db + config.snr_spread * for_noise.uniform(-1, 1)
        noise = _demo_sound.noise(speech, snr_db, for_noise)
    name = {"train": "dev", "test": "test"}[split]
    return Clip(f"{name}-{i:04d}", split, config.classes[label], source, frames, speech, noise)


def encode(clip: Clip, path: Path) -> None:
    """Writes a clip as mp4 (H.264 and AAC), missing tracks left out; a sound over full scale is turned down."""
    with av.open(str(path), "w") as container:
        video = audio = None
        if clip.frames is not None:
            options = {"preset": "ultrafast", "crf": "28", "threads": "1"}
            video = container.add_stream("libx264", rate=_demo_picture.FRAMES, options=options)
            video.height, video.width = clip.frames.shape[1:3]
            video.pix_fmt = "yuv420p"
        if clip.speech is not None:
            audio = container.add_stream("aac", rate=_demo_sound.RATE, layout="mono")
            audio.bit_rate = 48_000
        if video is not None and clip.frames is not None:
            for number, image in enumerate(clip.frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, _demo_picture.FRAMES)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if audio is not None and clip.speech is not None and clip.noise is not None:
            wave = clip.speech + clip.noise
            wave = wave * min(1.0, 0.95 / float(np.abs(wave).max()))
            sound = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = _demo_sound.RATE, 0, Fraction(1, _demo_sound.RATE)
            container.mux(audio.encode(sound))
            container.mux(audio.encode())


def _write_clips(config: DemoConfig, folder: Path, split: str, rows: range) -> list[dict[str, str]]:
    """Renders and encodes clips into `folder`/clips; their manifest rows."""
    manifest = []
    for i in rows:
        clip = render(config, split, i)
        path = f"clips/{clip.clip_id}.mp4"
        encode(clip, folder / path)
        group = f"digit-{clip.source:04d}"
        manifest.append({"clip_id": clip.clip_id, "path": path, "label": clip.label, "split": split, "group": group})
    return manifest


def _tasks(config: DemoConfig) -> Iterator[tuple[str, range]]:
    for split, n in (("train", config.n_clips - config.n_test), ("test", config.n_test)):
        for start in range(0, n, _CLIPS_PER_TASK):
            yield split, range(start, min(start + _CLIPS_PER_TASK, n))


def _description(config: DemoConfig) -> dict[str, Any]:
    """What dataset.yaml says."""
    return {
        "name": "talking-digits",
        "manifest": "manifest.csv",
        "label": "label",
        "classes": config.classes,
        "modalities": {
            "sound": {"kind": "sound", "column": "path", "rate": _demo_sound.RATE, "seconds": SECONDS},
            "frames": {"kind": "frames", "column": "path", "frames": _demo_picture.FRAMES, "size": _demo_picture.SIZE},
        },
    }


def demo_modalities(config: DemoConfig) -> dict[str, ModalityConfig]:
    """The modalities of a demo set, known before its clips are made."""
    from mmsearch.data.dataset import SETTINGS, ModalityConfig  # with torch, which those who make clips do without

    return {
        name: ModalityConfig(given["kind"], given["column"], {k: v for k, v in given.items() if k in SETTINGS[name]})
        for name, given in _description(config)["modalities"].items()
    }


def _mark(config: DemoConfig) -> dict[str, Any]:
    return {"generator": GENERATOR, **dataclasses.asdict(config)}


def _finished(out: Path, config: DemoConfig) -> bool:
    """Whether `out` already holds this very set.

    Raises:
        MMSearchError: it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = json.loads((out / _MARK).read_text())
    except (OSError, ValueError):
        raise MMSearchError(f"{out}: there is something else here; name a new or an empty folder") from None
    wanted = _mark(config)
    changed = [f"{k} is {found.get(k)!r}, not {wanted.get(k)!r}" for k in wanted if found.get(k) != wanted[k]]
    if changed:
        raise MMSearchError(f"{out}: holds a demo of other settings ({'; '.join(changed)}); name another folder")
    return True


def write_demo(
    out: Path,
    config: DemoConfig,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes a demo set: clips/*.mp4, manifest.csv, dataset.yaml.

    All or nothing: the set is built beside `out` and renamed. A finished set of the same configuration is reused.
    The workers are spawned, so a script that calls this needs the usual `if __name__ == "__main__"`.

    Args:
        out: the folder to write; missing or empty.
        config: the dials.
        workers: processes; None is one a core.
        on_progress: called with clips done and clips in all.

    Returns:
        The path of dataset.yaml.

    Raises:
        MMSearchError: the folder holds something else, or cannot be written.
    """
    out = Path(out)
    if _finished(out, config):
        return out / "dataset.yaml"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise MMSearchError(f"{out}: cannot be written: {error.strerror}") from error
    try:
        building.chmod(0o755)
        _build(building, config, workers or os.cpu_count() or 1, on_progress)
        try:
            building.replace(out)
        except OSError:
            if not _finished(out, config):
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out / "dataset.yaml"


def _build(folder: Path, config: DemoConfig, workers: int, on_progress: Callable[[int, int], None] | None) -> None:
    (folder / "clips").mkdir()
    tasks = list(_tasks(config))
    rows: list[dict[str, str]] = []

    def collect(parts: Iterator[list[dict[str, str]]]) -> None:
        for part in parts:
            rows.extend(part)
            if on_progress:
                on_progress(len(rows), config.n_clips)

    write = functools.partial(_write_clips, config, folder)
    splits, ranges = zip(*tasks, strict=True)
    workers = min(workers, len(tasks))
    if workers == 1:
        collect(map(write, splits, ranges))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            collect(pool.map(write, splits, ranges))
    with (folder / "manifest.csv").open("w", newline="") as f:
        table = csv.DictWriter(f, ["clip_id", "path", "label", "split", "group"], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(_description(config), sort_keys=False))
    (folder / _MARK).write_text(json.dumps(_mark(config), indent=1) + "\n")


def cached_demo(config: DemoConfig, **kwargs: Any) -> Path:
    """The demo set of a configuration, written once to $MMSEARCH_CACHE or ~/.cache/mmsearch.

    Args:
        config: the dials.
        kwargs: `workers` and `on_progress` of :func:`write_demo`.

    Returns:
        The path of its dataset.yaml.
    """
    root = Path(os.environ.get("MMSEARCH_CACHE") or Path.home() / ".cache" / "mmsearch")
    key = hashlib.sha256(json.dumps(_mark(config), sort_keys=True).encode()).hexdigest()[:12]
    return write_demo(root / "demo" / key, config, **kwargs)
