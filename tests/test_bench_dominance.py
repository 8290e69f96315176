"""The verdicts and the table of `scripts/bench_dominance.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mmsearch.methods import METHODS
from mmsearch.testing import toy_data
from mmsearch.training import train


@pytest.fixture(scope="module")
def bench(load_script: Any) -> Any:
    return load_script("bench_dominance")


@pytest.mark.parametrize(
    ("values", "strong", "wanted"),
    [
        ({"sound": 0.3, "frames": 1.0}, "low", "sound"),
        ({"sound": 0.3, "frames": 1.0}, "high", "frames"),
        ({"sound": 1.0, "frames": 1.0}, "low", "nobody"),
        ({"sound": float("nan"), "frames": float("nan")}, "high", "nobody"),
    ],
)
def test_a_signal_points_at_the_one_extreme_value(bench: Any, values: dict, strong: str, wanted: str) -> None:
    assert bench.pointed_at(values, strong) == wanted


@pytest.mark.parametrize("values", [{"sound": 0.3}, {"head": 0.9, "frames": 0.1}, {}])
def test_a_signal_of_less_than_both_modalities_is_no_measurement(bench: Any, values: dict) -> None:
    assert bench.measured({f"ogm/k/{u}": v for u, v in values.items()}, "ogm", "k") == {}


def test_the_names_of_the_loops_metrics_are_understood(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dominance = METHODS.get("ogm").dominance
    assert dominance is not None
    monkeypatch.setattr(bench, "STRONG", {"one": "m0", "other": "m1"})
    result = next(train({"method": {"name": "ogm"}, "epochs": 4}, toy_data()))
    values = bench.measured({**result.metrics, "ogm/kk/m0": 9.0}, "ogm", dominance.signal)
    assert bench.pointed_at(values, dominance.strong) in ("m0", "m1")


def results(right: Mapping[tuple[str, str], Sequence[str | None]]) -> list[dict[str, Any]]:
    return [
        {"method": m, "condition": c, "seed": i, "points_at": u, "epoch": None if u is None else 1 + i % 2}
        for (m, c), points in right.items()
        for i, u in enumerate(points)
    ]


def test_the_table_counts_seeds_and_names_who_is_below_nine_of_ten(bench: Any) -> None:
    right: dict[tuple[str, str], Sequence[str | None]] = {
        ("ogm", "sound_dominates"): ["sound"] * 10,
        ("ogm", "picture_dominates"): ["frames"] * 9 + ["sound"],
        ("opm", "sound_dominates"): [*["sound"] * 8, "nobody", None],
        ("opm", "picture_dominates"): [None] * 10,
    }
    text, below = bench.table(results(right), {"ogm": "lower k", "opm": "higher q"})
    assert text.splitlines() == [
        "| method | strong has the | sound_dominates: sound | picture_dominates: frames | first measured after epoch |",
        "|---|---|---|---|---|",
        "| ogm | lower k | 10 of 10 | 9 of 10 | 1-2 |",
        "| opm | higher q | 8 of 10 (1 without a measurement) | 0 of 10 (10 without a measurement) | 1-2 |",
    ]
    assert below == [
        "opm, sound_dominates: 8 of 10 point at sound",
        "opm, picture_dominates: 0 of 10 point at frames",
    ]
