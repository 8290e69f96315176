from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from mmsearch.errors import MMSearchError
from mmsearch.recommend.decision import Finalist, chances, decide


def finalist(
    who: str, values: list[float], *, cost: float = 15.0, shared: float = 0.0, fusion: str = "concat", **knobs: Any
) -> Finalist:
    method: dict[str, Any] = {"name": who, **knobs}
    if who in ("sound", "frames"):
        method, fusion = {"name": "unimodal", "modality": who}, "own"
    if who == "ume":
        method, fusion = {"name": "unimodal_teacher", "teacher": "ume"}, "own"
    return Finalist(
        config={"method": method, "fusion": {"name": fusion}},
        trial_ids={s: f"{who}{s}" for s in range(len(values))},
        select=dict(enumerate(values)),
        cost_joint_epochs=cost,
        cost_shared_joint_epochs=shared,
    )


def drawn(rng: np.random.Generator, means: dict[str, float], sd: float, seeds: int) -> list[Finalist]:
    common = 0.01 * rng.normal(size=seeds)
    return [finalist(who, list(m + common + sd * rng.normal(size=seeds))) for who, m in means.items()]


JOINT = [0.890, 0.905, 0.908, 0.880, 0.910]


def shifted(by: float, wobble: float = 0.002) -> list[float]:
    return [v + by + wobble * w for v, w in zip(JOINT, (1, -1, 1, -1, 0), strict=True)]


def test_a_real_gain_is_a_method() -> None:
    d = decide([finalist("joint", JOINT), finalist("uniform", shifted(0.05)), finalist("ogm", shifted(-0.02))])
    assert (d.kind, d.chosen.method, d.tied) == ("method", "uniform", [])
    gain = d.gain(d.chosen)
    assert gain is not None
    assert gain.proven


def test_tied_winners_give_the_cheaper_and_name_the_tie() -> None:
    uniform = finalist("uniform", shifted(0.056, 0.006))
    ume = finalist("ume", shifted(0.058, -0.006), cost=0.0, shared=16.2)
    umt = finalist("unimodal_teacher", shifted(0.060, 0.004), cost=20.0, shared=16.2, teacher="umt")
    d = decide([finalist("joint", JOINT), uniform, ume, umt])
    assert (d.kind, d.chosen) == ("method", uniform)
    assert d.leader is umt
    assert d.tied == [umt, ume]


def test_a_dearer_winner_needs_a_real_lead_over_the_cheaper() -> None:
    uniform = finalist("uniform", shifted(0.03))
    ume = finalist("ume", shifted(0.06), cost=0.0, shared=40.0)
    assert decide([finalist("joint", JOINT), uniform, ume]).chosen is ume


def test_half_a_point_is_not_worth_a_dearer_recipe_and_more_is_even_where_nothing_is_told_apart() -> None:
    uniform = finalist("uniform", shifted(0.050, 0.04))
    near, far = (finalist("mla", shifted(by, -0.04), cost=20.0) for by in (0.054, 0.058))
    assert decide([finalist("joint", JOINT), uniform, near]).chosen is uniform
    d = decide([finalist("joint", JOINT), uniform, far])
    assert (d.chosen, d.tied) == (far, [uniform, d.reference])
    assert decide([finalist("joint", JOINT), uniform, far], margin=0.01).chosen is uniform


def test_of_tied_winners_at_equal_cost_the_better_is_chosen() -> None:
    a, b = finalist("uniform", shifted(0.050, 0.006), cost=15.0), finalist("mla", shifted(0.052, -0.006), cost=15.8)
    assert decide([finalist("joint", JOINT), a, b]).chosen is b


def test_one_modality_may_win() -> None:
    low = [v - 0.3 for v in JOINT]
    d = decide(
        [finalist("joint", low), finalist("frames", JOINT, cost=9.8), finalist("uniform", [v + 0.05 for v in low])]
    )
    assert (d.kind, d.chosen.modality, d.chosen.label) == ("unimodal", "frames", "frames alone")


def test_nothing_better_is_the_baseline() -> None:
    d = decide([finalist("joint", JOINT), finalist("uniform", shifted(-0.01)), finalist("ogm", shifted(0.001, 0.004))])
    assert (d.kind, d.chosen.method) == ("baseline", "joint")


def test_a_proven_gain_below_the_margin_is_the_baseline() -> None:
    d = decide([finalist("joint", JOINT), finalist("uniform", shifted(0.003, 0.0001))])
    assert d.against_joint[0].proven
    assert d.kind == "baseline"


def test_an_unproven_lead_is_no_clear_winner() -> None:
    d = decide([finalist("joint", JOINT), finalist("uniform", shifted(0.02, 0.06))])
    assert (d.kind, d.chosen.method, d.leader.method) == ("no_clear_winner", "uniform", "uniform")


def test_an_unproven_lead_says_what_it_would_take_and_that_is_enough_where_the_lead_stays() -> None:
    wobble = [0.05, -0.03, 0.04, -0.02, 0.01]
    d = decide(
        [finalist("joint", JOINT), finalist("uniform", [j + 0.02 + w for j, w in zip(JOINT, wobble, strict=True)])]
    )
    needed = d.seeds_needed()
    assert d.kind == "no_clear_winner" and needed is not None and needed > 5
    times = math.ceil(needed / 5)
    more = decide([finalist("joint", JOINT * times), finalist("uniform", [*d.leader.select.values()] * times)])
    assert more.kind == "method"
    assert decide([finalist("joint", JOINT), finalist("uniform", shifted(-0.1))]).seeds_needed() is None


def test_looks_after_every_seed_are_paid_for() -> None:
    rivals = [finalist("joint", JOINT), finalist("uniform", shifted(0.02, 0.004))]
    once, often = decide(rivals), decide(rivals, planned=50)
    assert (once.kind, often.kind) == ("method", "no_clear_winner"), "an early look may use little of the level"
    assert decide(rivals, planned=5).kind == "method"


def test_a_settled_confirmation_has_a_proven_winner_and_no_rival_that_may_still_be_dropped() -> None:
    winner, close = finalist("uniform", shifted(0.05)), finalist("mla", shifted(0.049, 0.004))
    assert decide([finalist("joint", JOINT), winner]).settled
    assert not decide([finalist("joint", JOINT), winner, close]).settled
    assert decide([finalist("joint", JOINT), winner, dataclasses.replace(close, dropped=True)]).settled
    assert not decide([finalist("joint", JOINT), finalist("ogm", shifted(-0.05))]).settled


def test_chances_add_up_and_go_with_the_evidence() -> None:
    share = chances(
        [finalist("joint", JOINT), finalist("uniform", shifted(0.05)), finalist("ogm", shifted(0.049, 0.004))]
    )
    assert sum(share) == pytest.approx(1)
    assert share[0] < 0.001 and 0.3 < share[1] < 0.95
    assert chances([finalist("joint", [0.9]), finalist("uniform", [0.8])]) == [0.5, 0.5], "one seed says nothing"


@pytest.mark.parametrize("gap", [0.06, 0.3, -0.3])
def test_one_seed_is_never_a_verdict(gap: float) -> None:
    d = decide([finalist("joint", [0.8]), finalist("uniform", [0.8 + gap])])
    assert d.kind == "no_clear_winner"
    assert d.largest_possible_gain is None


def test_two_seeds_need_a_gap_beyond_the_interval() -> None:
    assert (
        decide([finalist("joint", JOINT[:2]), finalist("uniform", shifted(-0.01, 0.02)[:2])]).kind == "no_clear_winner"
    )
    assert decide([finalist("joint", JOINT[:2]), finalist("uniform", shifted(-0.2)[:2])]).kind == "baseline"
    assert decide([finalist("joint", JOINT[:2]), finalist("uniform", shifted(0.2)[:2])]).kind == "method"


def test_the_better_fusion_of_joint_is_the_reference() -> None:
    joints = [finalist("joint", JOINT, fusion="concat"), finalist("joint", shifted(0.03), fusion="sum")]
    d = decide([*joints, finalist("uniform", shifted(0.03, 0.004))])
    assert d.reference is joints[1]
    assert d.kind == "baseline"


def test_joint_must_be_there() -> None:
    with pytest.raises(MMSearchError, match="plain joint training"):
        decide([finalist("uniform", JOINT)])


def test_a_finalist_that_lost_seeds_is_compared_over_the_shared_ones() -> None:
    d = decide([finalist("joint", JOINT), finalist("uniform", shifted(0.05)[:4]), finalist("ogm", shifted(0.0)[:1])])
    assert d.chosen.method == "uniform"
    assert len(d.against_joint[0].difference.values) == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_without_a_true_difference_a_winner_is_rarer_than_the_level(seeds: int) -> None:
    rng = np.random.default_rng(0)
    means = dict.fromkeys(["joint", "uniform", "ogm", "mla", "ume"], 0.9)
    kinds = [decide(drawn(rng, means, 0.008, seeds)).kind for _ in range(400)]
    assert kinds.count("method") <= 0.05 * 400


def test_three_points_at_a_noise_of_point_eight_are_found_on_five_seeds() -> None:
    rng = np.random.default_rng(1)
    means = {"joint": 0.9, "uniform": 0.93, "ogm": 0.9, "mla": 0.9, "frames": 0.8}
    found = [decide(drawn(rng, means, 0.008, 5)) for _ in range(200)]
    assert sum(d.kind == "method" and d.chosen.method == "uniform" for d in found) >= 0.95 * 200


def test_a_dropped_finalist_is_compared_but_never_chosen_nor_tied_nor_the_leader() -> None:
    lucky = dataclasses.replace(finalist("ogm", [0.99, 0.99]), dropped=True)
    d = decide([finalist("joint", JOINT), finalist("uniform", shifted(0.05)), lucky])
    assert (d.kind, d.chosen.method, d.leader.method, d.tied) == ("method", "uniform", "uniform", [])
    gain = d.gain(lucky)
    assert gain is not None and gain.difference is not None and len(gain.difference.values) == 2
    alone = decide([finalist("joint", JOINT), lucky])
    assert (alone.kind, alone.chosen.method, alone.tied) == ("baseline", "joint", [])


def test_a_dropped_finalist_takes_nothing_from_what_the_others_seeds_say_of_the_noise() -> None:
    rest = [finalist("joint", JOINT), finalist("uniform", shifted(0.01)), finalist("mla", shifted(0.001, 0.003))]
    dropped = dataclasses.replace(finalist("ogm", [0.7, 0.71]), dropped=True)
    assert decide(rest).noise == decide([*rest, dropped]).noise is not None
