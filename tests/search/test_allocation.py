"""Which method gets the next trial."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mmsearch.search.allocation import Equal, Race, Standing, better_half

SCORES = st.lists(st.floats(0, 1), min_size=3, max_size=12)


def test_equal_serves_the_method_with_the_fewest() -> None:
    standings = {"joint": Standing(3, []), "ogm": Standing(1, []), "opm": Standing(2, [])}
    assert Equal().order(standings, 0) == ["ogm", "opm", "joint"]


def test_race_serves_everybody_up_to_the_floor_first() -> None:
    standings = {"joint": Standing(9, [0.9, 0.91, 0.92]), "ogm": Standing(3, [0.1]), "opm": Standing(2, [])}
    assert Race(floor=4).order(standings, 0)[:2] == ["opm", "ogm"]


def test_race_drops_who_is_beaten_beyond_the_noise_and_gives_the_rest_to_the_leaders() -> None:
    standings = {
        "joint": Standing(6, [0.80, 0.805, 0.81]),
        "ogm": Standing(6, [0.795, 0.80, 0.805]),
        "opm": Standing(6, [0.50, 0.505, 0.51]),
    }
    orders = [Race().order(standings, seed) for seed in range(200)]
    assert all("opm" not in order for order in orders)
    first = Counter(order[0] for order in orders)
    assert first["joint"] > first["ogm"] > 0


def test_race_keeps_a_method_none_of_whose_trials_has_ended() -> None:
    standings = {"joint": Standing(6, [0.8, 0.81, 0.82]), "ogm": Standing(6, [])}
    assert Race().order(standings, 0) == ["joint", "ogm"]


@given(scores=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), SCORES, min_size=1), seed=st.integers(0, 9))
def test_race_never_drops_the_best(scores: dict[str, list[float]], seed: int) -> None:
    standings = {m: Standing(len(s), s) for m, s in scores.items()}
    order = Race(floor=3).order(standings, seed)
    assert max(scores, key=lambda m: max(scores[m])) in order
    assert order == Race(floor=3).order(standings, seed)
    assert len(set(order)) == len(order)


def test_the_better_half() -> None:
    assert better_half([0.1, 0.5, 0.3]) == [0.5, 0.3]
    assert better_half([0.1]) == [0.1]
