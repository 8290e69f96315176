"""What finished sweeps say about a dataset that has had none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmsearch.batch import Modality
from mmsearch.data import ClipData
from mmsearch.errors import MMSearchError
from mmsearch.recommend import advice, knowledge
from mmsearch.recommend.knowledge import LEAST_CASES, Case, Descriptors, Gain, Knowledge
from mmsearch.recommend.survey import survey
from mmsearch.search.space import Space

DESCRIPTORS = Descriptors(
    classes=10,
    clips=1000,
    missing=0.0,
    alone={"sound": 0.8, "frames": 0.6},
    joint=0.85,
    ensemble=0.9,
    gap={"sound": 0.0, "frames": 0.2},
)


def case(number: int, ensemble: float, **gains: float) -> Case:
    described = dataclasses.replace(DESCRIPTORS, ensemble=ensemble)
    return Case(f"set {number}", f"{number:04x}", "test", described, {m: Gain(g, 0.005) for m, g in gains.items()})


@pytest.fixture
def cases() -> list[Case]:
    """The more the ensemble is ahead of joint training, the more `uniform` gains; `ogm` never does."""
    return [
        case(i, ensemble=float(e), uniform=float(e - 0.85), ogm=-0.02)
        for i, e in enumerate(np.linspace(0.75, 0.95, 21))
    ]


def test_gains_follow_the_descriptors(cases: list[Case]) -> None:
    known = Knowledge(cases)
    for_it = known.advise(dataclasses.replace(DESCRIPTORS, ensemble=0.935))
    against = known.advise(dataclasses.replace(DESCRIPTORS, ensemble=0.765))
    assert for_it.unsure is None and for_it.best.label == "uniform"
    assert for_it.best.gain == pytest.approx(0.085, abs=0.01)
    assert for_it.best.p_best > 0.95
    assert against.best.label == "joint" and against.best.gain == 0
    assert "Inside joint training the frames encoder learned 20.0 points less than alone." in advice.sentences(
        for_it, DESCRIPTORS
    )


def test_chances_add_up_and_the_order_is_by_gain(cases: list[Case]) -> None:
    found = Knowledge(cases).advise(DESCRIPTORS)
    assert sum(e.p_best for e in found.order) == pytest.approx(1)
    gains = [e.gain for e in found.order]
    assert gains == sorted(gains, reverse=True)


def test_far_from_every_case_it_says_so_and_falls_back_to_the_fixed_order(cases: list[Case]) -> None:
    unlike = dataclasses.replace(DESCRIPTORS, classes=1000, missing=0.5, joint=0.1)
    found = Knowledge(cases).advise(unlike)
    assert found.unsure is not None and "resembles" in found.unsure
    assert [e.label for e in found.order] == ["joint", "uniform", "ogm"]  # mean gains 0, 0 and -0.02
    assert found.order[1].gain == pytest.approx(np.mean([c.gains["uniform"].mean for c in cases]))
    assert "too little" in advice.headline(found, unlike)


def test_with_too_few_cases_it_says_so(cases: list[Case]) -> None:
    found = Knowledge(cases[: LEAST_CASES - 1]).advise(DESCRIPTORS)
    assert found.unsure == f"{LEAST_CASES - 1} cases are known, and {LEAST_CASES} are needed"


def test_only_the_methods_that_may_be_chosen_are_named(cases: list[Case]) -> None:
    found = Knowledge(cases).advise(DESCRIPTORS, {"ogm"})
    assert {e.label for e in found.order} == {"joint", "ogm"}


def test_a_dataset_of_its_own_is_left_out_and_a_later_case_replaces_an_earlier_one(cases: list[Case]) -> None:
    again = dataclasses.replace(cases[3], origin="later")
    known = Knowledge([*cases, again])
    assert len(known.cases) == len(cases)
    assert [c.origin for c in known.cases if c.digest == again.digest] == ["later"]
    assert all(c.digest != again.digest for c in known.without(again.digest).cases)


def test_what_is_remembered_is_loaded(cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMSEARCH_KNOWLEDGE", str(tmp_path / "knowledge"))
    shipped = len(Knowledge.load().cases)
    mine = dataclasses.replace(cases[0], gains={"uniform": Gain(0.1, 0.01, 1.2, {"sgd.lr": 0.1})})
    path = knowledge.remember(mine)
    loaded = Knowledge.load()
    assert len(loaded.cases) == shipped + 1 and loaded.cases[-1] == mine
    path.write_text("{}")
    with pytest.raises(MMSearchError, match=rf"{path}.*cannot be read"):
        Knowledge.load()


def test_regression_is_as_sure_as_its_values(cases: list[Case]) -> None:
    x = np.linspace(-1, 1, 15)[:, None]
    at = np.array([0.3])
    exact = knowledge.regress(x, 0.1 * x[:, 0], np.full(15, 0.001), at)
    noisy = knowledge.regress(x, 0.1 * x[:, 0], np.full(15, 0.2), at)
    assert exact[0] == pytest.approx(0.03, abs=0.005)
    assert exact[1] < noisy[1]


def test_survey_measures_what_each_modality_can_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(360) % 3
    inputs = {
        u: (np.eye(3)[label] + noise * rng.normal(size=(360, 3))).astype("float32")
        for u, noise in (("sound", 0.3), ("frames", 3.0))
    }
    there = np.arange(360) % 4 > 0
    data = ClipData.from_arrays(
        inputs, label, modalities={u: Modality(u, "vector", (3,)) for u in inputs}, present={"frames": there}
    )
    (tmp_path / "space.yaml").write_text("epochs: 6\nmethods:\n  joint:\nfusions:\n  concat:\noptimizers:\n  sgd:\n")
    space = Space.load(tmp_path / "space.yaml", data.modalities, data=data.digest)
    told: list[str] = []
    found = survey(data, space, device="cpu", progress=lambda what, epoch, of: told.append(what))
    assert found == survey(data, space, device="cpu")
    assert found.alone["sound"] > found.alone["frames"] + 0.2
    assert found.joint > 0.7
    assert found.missing == pytest.approx(0.25, abs=0.05)
    assert found.clips == sum(len(data.part(p)) for p in ("train", "val", "select"))
    assert set(told) == {"joint", "sound alone", "frames alone"}
    assert np.isfinite(found.vector()).all()


def test_start_of_a_sweep_has_the_order_and_the_settings_that_fit(cases: list[Case], tmp_path: Path) -> None:
    modalities = {u: Modality(u, "vector", (3,)) for u in ("sound", "frames")}
    (tmp_path / "space.yaml").write_text(
        "epochs: 6\nmethods:\n  joint:\n  uniform:\n  ogm:\nfusions:\n  concat:\n"
        "optimizers:\n  sgd: {lr: {low: 0.01, high: 0.2, log: true}, weight_decay: 0.0001}\n"
    )
    space = Space.load(tmp_path / "space.yaml", modalities, data="x")
    fits = {**space.paper_points("uniform")[0], "sgd.lr": 0.05}
    params = {"uniform": fits, "ogm": {"sgd.lr": 0.7}}
    told = [
        dataclasses.replace(c, gains={m: dataclasses.replace(g, params=params[m]) for m, g in c.gains.items()})
        for c in cases
    ]
    found = Knowledge(told).advise(dataclasses.replace(DESCRIPTORS, ensemble=0.935))
    start = advice.start_of(found, space)
    assert next(iter(start)) == "uniform"
    assert start["uniform"] == [fits] and start["ogm"] == []
    assert json.dumps(advice.as_json(found, DESCRIPTORS))
