"""The diagnosis of really trained small models whose answer is known by how they were made."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from trained_run import choose, confirm, vectors

from mmsearch.data import ClipData
from mmsearch.diagnostics.clipwise import clip_mean
from mmsearch.diagnostics.probes import probe
from mmsearch.recommend import card, diagnosis, inside
from mmsearch.recommend.diagnosis import diagnose
from mmsearch.recommend.measure import read
from mmsearch.search.job import trial_dir, weights_dir
from mmsearch.training import Predictor, evaluate

FINALISTS = [
    {},
    {"method": {"name": "uniform"}},
    {"method": {"name": "mla"}},
    {"method": {"name": "unimodal_teacher", "teacher": "ume"}},
]
JOINT, UNIFORM, UME = "joint · concat", "uniform · concat", "unimodal_teacher (ume)"


@pytest.fixture(scope="module")
def data() -> ClipData:
    return vectors({"sound": 1.2, "frames": 0.5}, clips=400)


@pytest.fixture(scope="module")
def run(data: ClipData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run") / "run"
    return folder, confirm(folder, data, FINALISTS)


@pytest.fixture(scope="module")
def found(data: ClipData, run: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return diagnose(run[0], choose(run[1], UNIFORM), data)


def test_its_figures_are_those_of_an_independent_recomputation(
    data: ClipData, run: tuple[Path, dict[str, Any]], found: dict[str, Any]
) -> None:
    for model in found["models"].values():
        weights = weights_dir(run[0], model["trial_id"])
        there = evaluate(weights, data, "select")
        assert model["accuracy"] == there.accuracy
        assert {u: m["own"] for u, m in model["modalities"].items()} == there.unimodal
        assert np.trace(model["confusion"]) == there.accuracy * len(there.label)
        assert np.sum(model["confusion"], axis=1).tolist() == np.bincount(there.label, minlength=3).tolist()
        sure = there.probabilities.max(1)
        assert model["overconfidence"]["mean"] == pytest.approx(sure.mean() - there.accuracy, abs=1e-6)
        assert sum(b["clips"] for b in model["reliability"]) == len(there.label)
        total = sum(m["shapley"] for m in model["modalities"].values())
        assert total == pytest.approx(model["accuracy"] - model["without_any"])
        for u in data.modalities:
            for key, trial in (("probe", model["trial_id"]), ("alone", model["modalities"][u]["alone_trial_id"])):
                fit, held = (evaluate(weights_dir(run[0], trial), data, part) for part in ("fit", "select"))
                linear = probe(fit.output.features[u].numpy(), fit.label)
                guess = linear.predict(held.output.features[u].numpy())
                assert model["modalities"][u][key] == accuracy_score(held.label, guess)
            m = model["modalities"][u]
            assert m["gap"] == pytest.approx(m["alone"] - m["probe"])
            assert m["gap_ci95"][0] <= m["gap"] <= m["gap_ci95"][1]


def test_it_has_the_shape_that_the_report_reads(found: dict[str, Any]) -> None:
    json.dumps(found, allow_nan=False)
    assert found["part"] == "select" and set(found["models"]) == {"joint", "chosen"}
    assert (found["models"]["joint"]["label"], found["models"]["chosen"]["label"]) == (JOINT, UNIFORM)
    for model in found["models"].values():
        assert set(model) >= {
            "label", "trial_id", "accuracy", "modalities", "imbalance", "ece", "reliability", "robustness", "missing",
            "confusion", "valuation",
        }  # fmt: skip
        for m in model["modalities"].values():
            assert set(m) >= {
                "own", "probe", "alone", "gap", "gap_ci95", "shapley", "separability", "gradient_agreement",
            }  # fmt: skip
        assert set(model["robustness"]) == {"sound/snr_db", "frames/snr_db"}
        for curve in model["robustness"].values():
            assert all(set(point) == {"level", "accuracy", "drop"} for point in curve) and len(curve) == 5
    assert set(found["clips"]) >= {"fixed", "broken"}
    assert all(set(s) == {"about", "text"} for s in found["sentences"])


def test_the_strong_modality_has_the_larger_share(found: dict[str, Any]) -> None:
    for model in found["models"].values():
        sound, frames = model["modalities"]["sound"], model["modalities"]["frames"]
        assert sound["shapley"] > frames["shapley"] and sound["own"] > frames["own"]
        assert model["missing"]["sound"] < model["missing"]["frames"]
        assert model["valuation"]["sound"] > model["valuation"]["frames"]
    about = {s["about"] for s in found["sentences"]}
    assert {"Reliance", "Missing", "Robustness"} <= about


def test_what_the_chosen_model_wins_back_is_the_difference_of_the_probes(found: dict[str, Any]) -> None:
    joint, chosen = (found["models"][role]["modalities"] for role in ("joint", "chosen"))
    for u, m in chosen.items():
        assert m["over_joint"]["mean"] == pytest.approx(m["probe"] - joint[u]["probe"])
        assert m["over_joint"]["seeds"] == [{"seed": 1000, "gain": m["over_joint"]["mean"]}]
        assert m["over_joint"]["ci95"][0] <= m["over_joint"]["mean"] <= m["over_joint"]["ci95"][1]


def test_the_same_folder_gives_the_same_diagnosis(
    data: ClipData, run: tuple[Path, dict[str, Any]], found: dict[str, Any]
) -> None:
    again, same = diagnose(run[0], choose(run[1], UNIFORM), data), []
    for it in (again, copy.deepcopy(found)):
        it["cost"].pop("seconds")
        assert "The test part was not touched." in it["sentences"].pop()["text"]
        same.append(it)
    assert same[0] == same[1]


def test_fixed_and_broken_clips_are_those_of_the_kept_predictions(
    data: ClipData, run: tuple[Path, dict[str, Any]], found: dict[str, Any]
) -> None:
    kept = {}
    for role, model in found["models"].items():
        file = json.loads((trial_dir(run[0], model["trial_id"]) / "select.json").read_text())
        kept[role] = {i: p == y for i, p, y in zip(file["index"], file["predicted"], file["label"], strict=True)}
    fixed = {data.clip_ids[i] for i in kept["joint"] if kept["chosen"][i] and not kept["joint"][i]}
    broken = {data.clip_ids[i] for i in kept["joint"] if kept["joint"][i] and not kept["chosen"][i]}
    assert set(found["clips"]["fixed"]) == fixed and set(found["clips"]["broken"]) == broken
    gain = found["models"]["chosen"]["accuracy"] - found["models"]["joint"]["accuracy"]
    assert found["clips"]["change"]["mean"] == pytest.approx(gain)


def test_the_rule_has_both_numbers_of_the_modalities_own_models(
    data: ClipData, run: tuple[Path, dict[str, Any]], found: dict[str, Any]
) -> None:
    rule = found["ume_umt"]
    assert rule["seed"] == 1000 and set(rule["trial_ids"]) == {"sound", "frames"}
    p = sum(evaluate(weights_dir(run[0], t), data, "select").probabilities for t in rule["trial_ids"].values())
    assert rule["acc_ume"] == accuracy_score(
        evaluate(weights_dir(run[0], rule["trial_ids"]["sound"]), data, "select").label, p.argmax(1)
    )
    assert rule["rule"] == ("umt" if rule["acc_probe"] - rule["acc_ume"] > rule["se"] else "ume")


def test_an_ensemble_of_models_trained_alone_has_no_gap_and_no_words_of_one(
    data: ClipData, run: tuple[Path, dict[str, Any]]
) -> None:
    found = diagnose(run[0], choose(run[1], UME), data)
    for m in found["models"]["chosen"]["modalities"].values():
        assert (m["gap"], m["gap_ci95"], m["same_weights"]) == (0.0, [0.0, 0.0], True)
    assert not [s for s in found["sentences"] if s["about"] == "Under-training" and UME in s["text"]]
    assert found["models"]["chosen"]["accuracy"] == found["ume_umt"]["acc_ume"]


@pytest.mark.parametrize("label, modalities", [("frames alone", ["frames"]), ("mla", ["sound", "frames"])])
def test_a_single_modality_and_a_head_of_its_own_are_diagnosed(
    data: ClipData, run: tuple[Path, dict[str, Any]], label: str, modalities: list[str]
) -> None:
    found = diagnose(run[0], choose(run[1], label), data)
    model = found["models"]["chosen"]
    assert model["label"] == label and list(model["modalities"]) == modalities
    if len(modalities) == 1:
        m = model["modalities"]["frames"]
        assert m["alone"] is m["gap"] is m["over_joint"] is None and m["gradient_agreement"] == pytest.approx(1)
        assert m["shapley"] == pytest.approx(model["accuracy"] - model["without_any"])
        assert model["missing"] == {"frames": model["without_any"]}
        assert model["imbalance"] == 0 and model["leads"] == []
        assert found["ume_umt"] is not None, "the rule is about joint training then"


def test_where_joint_training_is_recommended_there_is_one_model(
    data: ClipData, run: tuple[Path, dict[str, Any]]
) -> None:
    found = diagnose(run[0], choose(run[1], JOINT), data)
    assert list(found["models"]) == ["joint"]
    assert found["clips"]["fixed"] == found["clips"]["broken"] == [] and found["clips"]["change"] is None


def test_an_encoder_that_joint_training_starved_is_named_with_its_number(tmp_path: Path) -> None:
    data = vectors({"sound": 1.0, "frames": 1.2}, clips=900)
    rec = confirm(tmp_path / "run", data, [{}])
    trial = rec["finalists"][[f["label"] for f in rec["finalists"]].index(JOINT)]["trial_ids"][0]
    place = weights_dir(tmp_path / "run", trial)
    starved = Predictor.load(place)
    for name, p in starved.model.encoders["frames"].named_parameters():
        if name.endswith("weight") and p.ndim == 2:
            p.data[:, 1:] = 0  # it sees one of its eight inputs alone
    starved.save(place)
    found = diagnose(tmp_path / "run", choose(rec, JOINT), data)
    m = found["models"]["joint"]["modalities"]["frames"]
    assert m["gap"] > 0.15 and m["gap_ci95"][0] > 0
    text = next(s["text"] for s in found["sentences"] if s["about"] == "Under-training")
    low, high = m["gap_ci95"]
    assert text.startswith(
        f"Inside {JOINT} the frames encoder learned {100 * m['gap']:.1f} points less than it can alone "
        f"(95 % over clips: {100 * low:.1f} to {100 * high:.1f}; one seed)"
    )


@pytest.mark.parametrize("signal, missing", [({"sound": 1.0}, 0.0), ({"a": 1.0, "b": 0.6, "c": 0.6}, 0.4)])
def test_one_and_three_modalities_also_where_clips_lack_one(
    tmp_path: Path, signal: dict[str, float], missing: float
) -> None:
    data = vectors(signal, missing=missing)
    finalists = [{}, {"method": {"name": "uniform"}}]
    rec = confirm(tmp_path / "run", data, finalists, alone=len(signal) > 1)
    found = diagnose(tmp_path / "run", choose(rec, UNIFORM), data)
    model = found["models"]["chosen"]
    assert list(model["modalities"]) == list(signal) and len(model["leads"]) == len(signal) * (len(signal) - 1) // 2
    assert (found["ume_umt"] is None) == (len(signal) == 1)
    if missing:
        place = weights_dir(tmp_path / "run", model["trial_id"])
        reading = read(Predictor.load(place), data, data.part("select", 1), 16)
        assert 0 < reading.present("c").sum() < len(reading.label)
        assert model["modalities"]["c"]["own"] == reading.own_hits("c").mean()


def test_models_that_are_gone_are_named_and_the_rest_is_told(
    data: ClipData, run: tuple[Path, dict[str, Any]], tmp_path: Path, found: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    shutil.rmtree(weights_dir(folder, found["models"]["chosen"]["trial_id"]))
    shutil.rmtree(weights_dir(folder, found["models"]["joint"]["modalities"]["frames"]["alone_trial_id"]))
    partial = diagnose(folder, choose(run[1], UNIFORM), data)
    assert list(partial["models"]) == ["joint"] and partial["ume_umt"] is None
    assert partial["models"]["joint"]["modalities"]["frames"]["gap"] is None
    assert partial["models"]["joint"]["modalities"]["sound"] == found["models"]["joint"]["modalities"]["sound"]
    assert {
        "about": "Diagnosis",
        "text": f"{UNIFORM} is not diagnosed: no confirmed model of it is left in the run's folder.",
    } in partial["sentences"]


def test_clips_of_one_speaker_are_drawn_together(tmp_path: Path) -> None:
    data = vectors({"sound": 1.0, "frames": 0.5}, clips=300, group=[i // 6 for i in range(300)])
    joint = diagnose(tmp_path, choose(confirm(tmp_path, data, [{}]), JOINT), data)["models"]["joint"]
    there = evaluate(weights_dir(tmp_path, joint["trial_id"]), data, "select")
    assert data.group is not None and len(np.unique(data.group[there.index])) < len(there.index) / 3
    d = there.probabilities.max(1) - (there.probabilities.argmax(1) == there.label)
    expected = clip_mean(d, data.group[there.index])
    assert expected is not None
    assert joint["overconfidence"]["ci95"] == pytest.approx([expected.low, expected.high], abs=1e-5)


def test_large_parts_are_sampled_and_it_says_how_many(
    data: ClipData, run: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "SELECT_CLIPS", 20)
    monkeypatch.setattr(inside, "TRAIN_CLIPS", 90)
    monkeypatch.setattr(inside, "ROBUSTNESS_CLIPS", 10)
    found = diagnose(run[0], choose(run[1], JOINT), data)
    model = found["models"]["joint"]
    assert (model["clips"], model["train_clips"], model["robustness_clips"]) == (20, 90, 10)
    assert model["select_clips"] == 40 and np.sum(model["confusion"]) == 20
    assert found["cost"]["clips"] == 20 and found["cost"]["seconds"] > 0


def test_the_median_seed_stands_for_a_model_and_the_gap_is_known_of_every_seed(tmp_path: Path, data: ClipData) -> None:
    folder = tmp_path / "run"
    rec = confirm(folder, data, [{}], seeds=3)
    joint = next(f for f in rec["finalists"] if f["label"] == JOINT)
    ranked = sorted(zip(joint["select"]["values"], joint["seeds"], joint["trial_ids"], strict=True))
    found = diagnose(folder, rec, data)["models"]["joint"]
    assert (found["seed"], found["trial_id"]) == ranked[1][1:]
    for m in found["modalities"].values():
        assert [g["seed"] for g in m["gaps"]] == [1000, 1001, 1002]
        assert next(g["gap"] for g in m["gaps"] if g["seed"] == found["seed"]) == pytest.approx(m["gap"])


def test_what_is_recorded_is_used_again_only_for_the_same_models(
    data: ClipData, run: tuple[Path, dict[str, Any]], tmp_path: Path, found: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    rec = choose(run[1], UNIFORM)
    assert diagnosis.recorded(folder, rec) is None
    diagnosis.write(folder, found)
    assert diagnosis.recorded(folder, rec) == json.loads(json.dumps(found))
    assert diagnosis.recorded(folder, choose(run[1], "mla")) is None
    (folder / diagnosis.FILE).write_text("{")
    assert diagnosis.recorded(folder, rec) is None


def test_a_failure_is_a_line_with_its_reason() -> None:
    line = diagnosis.failed("no room")
    assert line["models"] == {} and "no room" in line["sentences"][0]["text"]
    json.dumps(line, allow_nan=False)


def test_the_recommendation_carries_it_through_a_file(
    run: tuple[Path, dict[str, Any]], found: dict[str, Any], tmp_path: Path
) -> None:
    rec = {**run[1], "diagnosis": found}
    card.write(tmp_path, rec)
    assert card.read(tmp_path)["diagnosis"]["models"]["joint"]["label"] == JOINT
