"""Encoders in a search space: their knobs are searched like any other, and teachers keep to the recipe's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import optuna
import pytest

from mmsearch.batch import Modality
from mmsearch.encoders import ENCODERS, Encoder
from mmsearch.errors import MMSearchError
from mmsearch.knobs import knob
from mmsearch.search.finalists import finalists
from mmsearch.search.sources import Chain, ConfirmSource, SearchSource, TeacherSource
from mmsearch.search.space import Space, is_ensemble
from mmsearch.training import trial_id

MODALITIES = {
    "voice": Modality("voice", "sound", (16000,), 16000.0),
    "frames": Modality("frames", "frames", (4, 32, 32, 3), 2.0),
}
KNOBS = """
encoders:
  frames: {name: frames, train_frames: {low: 1, high: 4}, size: [48, 56, 64]}
  sound: {name: spectrogram, n_mels: {low: 20, high: 80}}
"""
STAGELESS = "mobilenetv3_small_050"


def load(tmp_path: Path, text: str) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return Space.load(path, MODALITIES, data="d1", seed=5)


def drawn(space: Space, method: str, n: int = 30) -> list[tuple[dict, dict]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [space.suggest(study.ask(), method) for _ in range(n)]
    for document, params in found:
        assert space.suggest(optuna.trial.FixedTrial(params), method)[0] == document
    return found


def test_knobs_are_searched_after_the_declared_setting(tmp_path: Path) -> None:
    space = load(tmp_path, KNOBS)
    first = space.paper_documents("joint")[0]["encoders"]
    assert (first["frames"]["train_frames"], first["frames"]["size"], first["voice"]["n_mels"]) == (1, 48, 40)
    encoders = [d["encoders"] for d, _ in drawn(space, "joint")]
    assert {e["frames"]["train_frames"] for e in encoders} == {1, 2, 3, 4}
    assert {e["frames"]["size"] for e in encoders} == {48, 56, 64}
    assert all(20 <= e["voice"]["n_mels"] <= 80 for e in encoders) and len({e["voice"]["n_mels"] for e in encoders}) > 9
    assert all(e["frames"]["eval_frames"] == first["frames"]["eval_frames"] for e in encoders)
    assert {p for _, params in drawn(space, "joint") for p in params if p.startswith("encoder.")} == {
        "encoder.frames.frames.train_frames",
        "encoder.frames.frames.size",
        "encoder.voice.spectrogram.n_mels",
    }


def test_a_fixed_encoder_adds_no_parameter(tmp_path: Path) -> None:
    space = load(tmp_path, "encoders:\n  frames: {name: frames, size: 56}\n")
    assert not [p for m in space.methods for point in space.paper_points(m) for p in point if p.startswith("encoder.")]
    assert not [p for _, params in drawn(space, "ogm") for p in params if p.startswith("encoder.")]


def test_unimodal_turns_the_knobs_of_its_own_encoder_alone(tmp_path: Path) -> None:
    space = load(tmp_path, KNOBS)
    for document, params in drawn(space, "unimodal"):
        mine = document["method"]["modality"]
        (other,) = set(MODALITIES) - {mine}
        assert {p.split(".")[1] for p in params if p.startswith("encoder.")} == {mine}
        assert document["encoders"][other] == space.teacher(mine)["encoders"][other]


def test_what_needs_teachers_keeps_their_encoders(tmp_path: Path) -> None:
    space = load(tmp_path, KNOBS)
    encoders = space.teacher("voice")["encoders"]
    assert encoders == space.teacher("frames")["encoders"] == space.paper_documents("joint")[0]["encoders"]
    for method in ("unimodal_teacher", "g2d", "frozen_probe"):
        assert all(d["encoders"] == encoders for d, _ in drawn(space, method, 5))
    reconboost = drawn(space, "reconboost")
    assert all((d["encoders"] == encoders) >= bool(d["teachers"]) for d, _ in reconboost)
    assert any(d["encoders"] != encoders for d, _ in reconboost), "from scratch it needs no teachers"


def test_every_teacher_of_a_sweep_has_its_students_encoders(
    make_study: Callable, simulate: Callable, driver: object
) -> None:
    text = driver.SPACE + "encoders:\n  vector: {{name: vector, width: {{low: 32, high: 96}}}}\n"  # type: ignore[attr-defined]
    study = make_study(text=text)
    sources = {"teachers": TeacherSource(study), "search": SearchSource(study, trials=24)}
    simulate(study, Chain({**sources, "confirm": ConfirmSource(study, finalists, seeds=2)}), slots=2)
    documents = {r.trial_id: r.document for r in study.records.values()}
    students = [d for d in documents.values() if d["teachers"]]
    assert {d["seed"] for d in students} > {0}
    for document in students:
        for u, teacher in document["teachers"].items():
            assert documents[teacher]["encoders"][u] == document["encoders"][u]
    widths = {d["encoders"]["sound"]["width"] for d in documents.values() if d["method"]["name"] == "joint"}
    assert len(widths) > 2


def test_a_finalist_keeps_its_encoders_on_other_seeds(tmp_path: Path) -> None:
    space = load(tmp_path, KNOBS)
    for document, _ in [*drawn(space, "joint", 3), *drawn(space, "unimodal_teacher", 3)]:
        moved = space.moved(document, seed=9, fold=2)
        assert moved["encoders"] == document["encoders"] and moved["seed"] == 9
        assert all(t == trial_id(space.teacher(u, seed=9, fold=2, held=document["held"]))
                   for u, t in moved["teachers"].items())  # fmt: skip


def test_only_fusions_that_go_with_every_encoder_are_tried(tmp_path: Path) -> None:
    text = f"encoders:\n  frames: {{name: frames, backbone: [small, {STAGELESS}]}}\n"
    space = load(tmp_path, text)
    assert "greedy" not in space.methods, "its one fusion needs stages"
    for method in ("joint", "unimodal_teacher", "reconboost"):
        assert all(d["fusion"]["name"] != "mmtm" for d, _ in drawn(space, method, 12))
    assert "mmtm" in {d["fusion"]["name"] for d in load(tmp_path, KNOBS).paper_documents("joint")}
    with pytest.raises(MMSearchError, match=r"space.yaml:7: fusion mmtm: the encoder frames of frames has no stages"):
        load(tmp_path, text + "fusions:\n  mmtm:\n  concat:\nmethods:\n  greedy:\n")


@dataclasses.dataclass
class Loudness(Encoder):
    """A second encoder of sound, with a knob that it declares as searched."""

    name: ClassVar[str] = "loudness"
    kind: ClassVar[str] = "sound"
    summary: ClassVar[str] = "for tests"
    default: ClassVar[bool] = False

    n_mels: int = knob(4, "bands", low=1, high=8, search=False)
    seconds: float = knob(1.0, "length", low=0.1, high=3.0)


@pytest.fixture
def loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound encoder beside `spectrogram`."""
    monkeypatch.setitem(ENCODERS._scan(), "loudness", Loudness)


@pytest.mark.usefixtures("loudness")
def test_several_encoders_are_a_choice_and_the_first_is_the_recipes(tmp_path: Path) -> None:
    space = load(tmp_path, "encoders:\n  voice:\n    - {name: spectrogram, n_mels: [24, 32]}\n    - loudness\n")
    assert space.teacher("voice")["encoders"]["voice"]["name"] == "spectrogram"
    assert space.paper_points("joint")[0]["encoder.voice"] == "spectrogram"
    found = drawn(space, "joint")
    assert {d["encoders"]["voice"]["name"] for d, _ in found} == {"spectrogram", "loudness"}
    for document, params in found:
        name = document["encoders"]["voice"]["name"]
        assert params["encoder.voice"] == name
        assert ("encoder.voice.spectrogram.n_mels" in params) == (name == "spectrogram")
        assert ("encoder.voice.loudness.seconds" in params) == (name == "loudness")
    assert all(is_ensemble(d) or d["encoders"]["voice"]["name"] == "spectrogram"
               for d, _ in drawn(space, "unimodal_teacher", 8))  # fmt: skip


def test_a_modalitys_own_entry_comes_before_that_of_its_kind(tmp_path: Path) -> None:
    text = "encoders:\n  sound: {name: spectrogram, n_mels: 24}\n"
    assert load(tmp_path, text).recipe()["encoders"]["voice"]["n_mels"] == 24
    both = load(tmp_path, text + "  voice: {name: spectrogram, n_mels: 32}\n")
    assert both.recipe()["encoders"]["voice"]["n_mels"] == 32


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("encoders:\n  frames:\n    name: frames\n    siez: 56\n", 4, "unknown knob 'siez'; did you mean 'size'"),
        ("encoders:\n  frames:\n    name: frames\n    size: 9999\n", 4, "size is 9999; allowed: 0 to 512"),
        ("encoders:\n  frames:\n    name: frames\n    size: [56, big]\n", 4, "size must be a number, not 'big'"),
        ("encoders:\n  frames:\n    name: frames\n    size: []\n", 4, "size has no values to choose from"),
        ("encoders:\n  frames:\n    name: frames\n    train_frames: {low: 0}\n", 4, "allowed: 1 to 32"),
        ("encoders:\n  frames:\n    name: frames\n    train_frames: {low: 4, high: 2}\n", 4, "low must be below high"),
        ("encoders:\n  frames:\n    name: frames\n    train_frames:\n      hihg: 2\n", 5, "did you mean 'high'"),
        ("encoders:\n  frames:\n    name: frames\n    backbone: {low: 1, high: 2}\n", 4, "backbone has no range"),
        ("encoders:\n  frames:\n    size: 56\n", 2, "write `frames: encoder` or"),
        ("encoders:\n  frames: {name: [frames]}\n", 2, "or a list of such encoders"),
        ("encoders:\n  frames: frame\n", 2, "unknown encoder 'frame'; did you mean 'frames'"),
        ("encoders:\n  frames: []\n", 2, "frames has no encoders to choose from"),
        ("encoders:\n  frames: [frames, {name: frames, size: 56}]\n", 2, "encoder frames is given twice"),
        ("encoders:\n  frames: [frames, spectrogram]\n", 2, "encoder spectrogram reads sound, frames is frames"),
    ],
)
def test_errors_name_file_line_and_nearest(tmp_path: Path, text: str, line: int, message: str) -> None:
    with pytest.raises(MMSearchError) as error:
        load(tmp_path, text)
    assert f"space.yaml:{line}:" in str(error.value)
    assert message in str(error.value)
