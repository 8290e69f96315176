"""What the diagnosis says, and where it is silent."""

from __future__ import annotations

from typing import Any

import pytest

from mmsearch.recommend.diagnosis_words import cost, sentences


def model(**changes: Any) -> dict[str, Any]:
    """A model of which every figure is inside the noise."""
    modality = {
        "probe": 0.6, "alone": 0.64, "gap": 0.04, "gap_ci95": [-0.03, 0.11], "same_encoder": True,
        "gaps": [{"seed": 1000, "gap": 0.04}], "over_joint": None,
        "same_weights": False, "shapley": 0.3, "gradient_agreement": 0.1, "gradient_agreements": [0.3, -0.1, 0.2, 0.1],
    }  # fmt: skip
    return {
        "label": "uniform · concat",
        "accuracy": 0.9,
        "without_any": 0.1,
        "modalities": {"sound": dict(modality), "frames": {**modality, "shapley": 0.5}},
        "leads": [{"a": "frames", "b": "sound", "mean": 0.2, "ci95": [-0.01, 0.41]}],
        "overconfidence": {"mean": 0.02, "ci95": [-0.01, 0.05]},
        "ece": 0.04,
        "robustness": {"sound/snr_db": [curve(None, 0.9), curve(10.0, 0.88, [-0.01, 0.05])]},
        "missing": {"sound": 0.6, "frames": 0.4},
        **changes,
    }


def curve(level: float | None, accuracy: float, drop: list[float] | None = None) -> dict[str, Any]:
    fall = None if drop is None else {"mean": 0.9 - accuracy, "ci95": drop}
    return {"level": level, "accuracy": accuracy, "drop": fall}


def said(about: str, *models: dict[str, Any], **rest: Any) -> list[str]:
    nothing = {"ume_umt": None, "clips": {"fixed": [], "broken": [], "of": 0, "seed": None, "change": None}}
    roles = dict(zip(("joint", "chosen"), models, strict=False))
    return [s["text"] for s in sentences({**nothing, **rest, "models": roles}) if s["about"] == about]


@pytest.mark.parametrize(
    "about", ["Under-training", "Reliance", "Agreement", "Together", "Confidence", "Robustness", "Clips"]
)
def test_inside_the_noise_nothing_is_said(about: str) -> None:
    assert said(about, model()) == []


def test_without_models_nothing_is_said() -> None:
    assert sentences({"models": {}, "ume_umt": None, "clips": {"change": None}}) == []


def with_gap(gap: float, ci: list[float], **changes: Any) -> dict[str, Any]:
    m = model()
    of_seeds = [{"seed": 1000, "gap": gap}]
    m["modalities"]["frames"] |= {
        "gap": gap, "gap_ci95": ci, "gaps": of_seeds, "probe": 0.5, "alone": 0.5 + gap, **changes
    }  # fmt: skip
    return m


def test_a_starved_encoder_is_named_with_its_number_and_interval() -> None:
    assert said("Under-training", with_gap(0.14, [0.06, 0.22])) == [
        "Inside uniform · concat the frames encoder learned 14.0 points less than it can alone (95 % over clips: 6.0 "
        "to 22.0; one seed): a linear probe of it reaches 50.0%, of the one trained alone 64.0%."
    ]


def test_a_gap_is_told_with_those_of_the_other_seeds_and_not_where_one_turns_it_round() -> None:
    seeds = [{"seed": i, "gap": g} for i, g in enumerate((0.14, 0.09, 0.2))]
    (text,) = said("Under-training", with_gap(0.14, [0.06, 0.22], gaps=seeds))
    assert "(95 % over clips: 6.0 to 22.0; 9.0 to 20.0 over 3 seeds)" in text
    (text,) = said(
        "Under-training", with_gap(-0.14, [-0.22, -0.06], gaps=[{"seed": 1, "gap": -0.2}, {"seed": 2, "gap": -0.1}])
    )
    assert "14.0 points more" in text and "10.0 to 20.0 over 2 seeds" in text
    assert said("Under-training", with_gap(0.14, [0.06, 0.22], gaps=[*seeds, {"seed": 3, "gap": -0.01}])) == []


def test_an_encoder_that_learned_more_is_named_too_and_another_shape_is_said() -> None:
    (text,) = said("Under-training", with_gap(-0.14, [-0.22, -0.06], same_encoder=False))
    assert "learned 14.0 points more than it can alone, of another shape (95 % over clips: 6.0 to 22.0;" in text


def test_that_nothing_was_lost_is_said_only_where_the_intervals_are_narrow() -> None:
    m = model()
    for u in m["modalities"].values():
        u |= {"gap_ci95": [-0.02, 0.03], "gaps": [{"seed": 1, "gap": 0.01}, {"seed": 2, "gap": 0.02}]}
    assert said("Under-training", m) == [
        "Inside uniform · concat no encoder falls more than 3.0 points short of what it can learn alone (95 % "
        "over clips, and on every seed)."
    ]
    m["modalities"]["sound"]["gaps"].append({"seed": 3, "gap": 0.08})
    assert said("Under-training", m) == [], "another seed lost more"
    m["modalities"]["sound"]["gaps"].pop()
    for u in m["modalities"].values():
        u["same_weights"] = True
    assert said("Under-training", m) == [], "an encoder that was trained alone"
    for u in m["modalities"].values():
        u |= {"gap": None, "gap_ci95": [None, None]}
    assert said("Under-training", m) == []


def test_what_the_chosen_model_wins_back_is_told_where_every_seed_wins_it() -> None:
    joint, chosen = model(label="joint · concat"), model()
    gain = {"mean": 0.186, "ci95": [0.1, 0.27], "seeds": [{"seed": 1, "gain": 0.186}, {"seed": 2, "gain": 0.22}]}
    chosen["modalities"]["frames"]["over_joint"] = gain
    assert said("Under-training", joint, chosen) == [
        "Inside uniform · concat the frames encoder learned 18.6 points more than inside joint · concat on the same "
        "seed (95 % over clips: 10.0 to 27.0; 18.6 to 22.0 over 2 seeds)."
    ]
    gain["seeds"].append({"seed": 3, "gain": -0.01})
    assert said("Under-training", joint, chosen) == []
    chosen["modalities"]["frames"]["over_joint"] = {
        "mean": -0.1,
        "ci95": [-0.2, -0.02],
        "seeds": [{"seed": 1, "gain": -0.1}],
    }
    (text,) = said("Under-training", joint, chosen)
    assert "10.0 points less than inside joint · concat" in text and "2.0 to 20.0; one seed" in text
    chosen["modalities"]["frames"]["same_weights"] = True
    assert said("Under-training", joint, chosen) == [], "an encoder that was trained alone, of which the gap tells"


def test_shares_that_are_told_apart_are_told() -> None:
    m = model(leads=[{"a": "frames", "b": "sound", "mean": 0.2, "ci95": [0.1, 0.3]}])
    assert said("Reliance", m) == [
        "uniform · concat is right in 90.0%, and would be in 10.0% without any modality; the points between are 50.0 "
        "from the frames and 30.0 from the sound (Shapley shares; 95 %: frames over sound 10.0 to 30.0)."
    ]


def test_a_conflict_is_one_in_every_batch() -> None:
    m = model()
    m["modalities"]["sound"] |= {"gradient_agreement": -0.2, "gradient_agreements": [-0.3, -0.1, -0.2, -0.2]}
    (text,) = said("Agreement", m)
    assert "the sound encoder" in text and "cosine −0.20" in text and "all of 4 batches" in text


def rule(probe: float, ume: float, ci: list[float]) -> dict[str, Any]:
    return {"acc_probe": probe, "acc_ume": ume, "lead": {"mean": probe - ume, "ci95": ci}}


def test_features_that_occur_together_matter_or_do_not_or_it_is_open() -> None:
    (umt,) = said("Together", ume_umt=rule(0.8, 0.7, [0.04, 0.16]))
    (ume,) = said("Together", ume_umt=rule(0.7, 0.8, [-0.16, -0.04]))
    assert "say something together" in umt and "80.0% against 70.0%" in umt and "+4.0 to +16.0 points" in umt
    assert "add up rather than interact" in ume and "−16.0 to −4.0 points" in ume
    assert said("Together", ume_umt=rule(0.75, 0.7, [-0.01, 0.11])) == []


@pytest.mark.parametrize("mean, ci, word", [(0.06, [0.02, 0.1], "more"), (-0.06, [-0.1, -0.02], "less")])
def test_a_boast_and_a_doubt(mean: float, ci: list[float], word: str) -> None:
    (text,) = said("Confidence", model(overconfidence={"mean": mean, "ci95": ci}))
    assert f"is {word} sure than it is right" in text and f"{100 * (0.9 + mean):.1f}%" in text and "4.0%" in text


@pytest.mark.parametrize(
    "dial, level, words",
    [
        ("sound/snr_db", -10.0, "noise on the sound (−10 dB signal to noise)"),
        ("frames/severity", 3.0, "blur and noise on the frames (level 3 of 5)"),
        ("text/dropped", 0.25, "25.0% of the words of the text lost"),
    ],
)
def test_the_mildest_level_that_costs_something_is_named(dial: str, level: float, words: str) -> None:
    points = [
        curve(None, 0.9),
        curve(0.1, 0.87, [0.01, 0.05]),
        curve(level, 0.7, [0.1, 0.3]),
        curve(99.0, 0.2, [0.6, 0.8]),
    ]
    assert said("Robustness", model(robustness={dial: points})) == [
        f"uniform · concat falls from 90.0% to 70.0% with {words}."
    ]


def test_what_is_left_without_a_modality() -> None:
    assert said("Missing", model()) == [
        "uniform · concat gets 60.0% without the sound and 40.0% without the frames, and 90.0% with everything."
    ]
    assert said("Missing", model(missing={"sound": 0.1})) == [], "of one there is nothing left"


def test_clips_won_and_lost_are_counted_where_it_is_beyond_the_noise() -> None:
    clips = {"fixed": ["a", "b"], "broken": [], "of": 50, "seed": 1000, "change": {"mean": 0.04, "ci95": [0.01, 0.08]}}
    (text,) = said("Clips", model(label="joint · concat"), model(), clips=clips)
    assert text == (
        "On seed 1000, uniform · concat gets 2 clips right that joint · concat gets wrong, and 0 the other way "
        "round, of 50."
    )


def test_its_cost_is_said_beside_that_of_the_sweep() -> None:
    spent = {"clips": 156, "robustness_clips": 100, "train_clips": 938, "seconds": 12.0, "trial_seconds": 1200.0}
    assert cost(spent) == (
        "Measured on 156 clips of select, 100 of them made worse, with probes fitted to 938 of train, in 12 s beside "
        "20 min 00 s of training (1.0%). The test part was not touched."
    )
    assert "beside" not in cost({**spent, "trial_seconds": 0.0})
