from __future__ import annotations

from mmsearch.search.stopping import Halving


def test_rungs_are_shares_of_the_own_plan() -> None:
    halving = Halving()
    assert list(halving.rungs(27).values()) == [3, 9]
    assert list(halving.rungs(9).values()) == [1, 3]
    assert list(halving.rungs(2).values()) == [1]
    assert halving.rungs(1) == {}


def test_no_rung_before_the_earliest_fair_judgement() -> None:
    halving = Halving()
    assert list(halving.rungs(20, earliest=0.2).values()) == [4, 7]
    assert list(halving.rungs(20, earliest=0.5).values()) == [10]
    assert halving.rungs(20, earliest=1.0) == {}


def at_rung(halving: Halving, trial: str, score: float, method: str = "ogm", epochs: int = 9) -> bool:
    return halving.stops(method, trial, epoch=1, epochs=epochs, score=score)


def test_only_with_enough_trials_and_only_of_the_same_method() -> None:
    halving = Halving()
    assert not at_rung(halving, "a", 0.9)
    assert not at_rung(halving, "b", 0.1)
    assert not at_rung(halving, "x", 0.0, method="joint")
    assert at_rung(halving, "c", 0.2)
    assert not at_rung(halving, "d", 0.9), "a tie goes on"
    assert not at_rung(halving, "e", 0.95)


def test_trials_of_different_length_meet_at_the_same_share() -> None:
    halving = Halving()
    at_rung(halving, "a", 0.5)
    at_rung(halving, "b", 0.6)
    assert not halving.stops("ogm", "long", epoch=1, epochs=18, score=0.1)
    assert halving.stops("ogm", "long", epoch=2, epochs=18, score=0.2)


def test_a_trial_counts_once_and_its_last_epoch_never_stops_it() -> None:
    halving = Halving()
    at_rung(halving, "a", 0.5)
    at_rung(halving, "a", 0.6)
    at_rung(halving, "b", 0.6)
    assert not halving.stops("ogm", "ume", epoch=9, epochs=9, score=0.0)
    assert at_rung(halving, "c", 0.1), "the one before did not count"
