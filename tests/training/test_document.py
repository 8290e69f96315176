"""Trial documents: canonical form, identity, errors."""

from __future__ import annotations

import pytest

from mmsearch.batch import Modality
from mmsearch.errors import MMSearchError
from mmsearch.training import resolve, trial_id

MODALITIES = {
    "sound": Modality("sound", "sound", (16000,), 16000),
    "frames": Modality("frames", "frames", (8, 64, 64, 3)),
}


def test_defaults_written_out_or_left_out_are_the_same_trial() -> None:
    short = resolve({"method": {"name": "ogm"}}, MODALITIES)
    assert resolve(short, MODALITIES) == short
    assert trial_id(short) == trial_id(resolve({"method": {"name": "ogm", "alpha": 0.3}, "seed": 0}, MODALITIES))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"epochs": 16}, {"precision": "bf16"}, {"batch_size": 64}, {"fold": 1}, {"data": "x"},
        {"fold": None}, {"until": 4},
    ],
)  # fmt: skip
def test_identity_includes(change: dict) -> None:
    assert trial_id(resolve(change, MODALITIES)) != trial_id(resolve({}, MODALITIES))


def test_knobs_without_effect_are_not_part_of_the_identity() -> None:
    a = {"method": {"name": "mla", "projection": False, "alpha0": 0.1}}
    b = {"method": {"name": "mla", "projection": False, "alpha0": 0.7}}
    assert trial_id(resolve(a, MODALITIES)) == trial_id(resolve(b, MODALITIES))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"methods": {}}, "unknown key 'methods'; did you mean 'method'"),
        ({"method": {"name": "ogmm"}}, "unknown method 'ogmm'; did you mean 'ogm'"),
        ({"method": {"name": "ogm", "alfa": 1}}, "unknown knob 'alfa'; did you mean 'alpha'"),
        ({"method": {"name": "ogm", "alpha": 30}}, "alpha is 30; allowed: 0.05 to 3"),
        ({"method": {"name": "ogm", "ge": 1}}, "ge is 1"),
        ({"method": {"name": "unimodal", "modality": "sond"}}, "unknown modality 'sond'; did you mean 'sound'"),
        ({"fusion": {"name": "konkat"}}, "unknown fusion 'konkat'; did you mean 'concat'"),
        ({"method": {"name": "mla"}, "fusion": {"name": "sum"}}, "brings its own fusion"),
        ({"method": {"name": "unimodal_teacher"}}, "needs a teacher for each of"),
        ({"encoders": {"sound": {"name": "frames"}}}, "frames reads frames, the modality is sound"),
        ({"encoders": {"smell": {"name": "frames"}}}, "unknown modality 'smell'"),
        ({"epochs": 4, "until": 5}, r"until must be a whole number from 1 to epochs \(4\), not 5"),
        ({"fold": -1}, "fold must be a whole number of at least 0"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"optimizer": {"name": "sgd", "lr": float("nan")}}, "lr is nan"),
    ],
)
def test_mistakes_are_named(document: dict, message: str) -> None:
    with pytest.raises(MMSearchError, match=message):
        resolve(document, MODALITIES)


def test_ending_with_the_last_planned_epoch_is_ending_as_ever() -> None:
    assert resolve({"epochs": 4, "until": 4}, MODALITIES) == resolve({"epochs": 4}, MODALITIES)
