"""What modalities are worth to a clip and to the accuracy."""

from __future__ import annotations

import pytest
import torch

from mmsearch.diagnostics.shapley import subsets
from mmsearch.diagnostics.valuation import accuracy_shares, clip_values

A, V, BOTH, NONE = frozenset("a"), frozenset("v"), frozenset("av"), frozenset()
TABLE = [
    (1, 1, 1, 1.0, 1.0),
    (1, 0, 1, 1.5, 0.5),
    (0, 1, 1, 0.5, 1.5),
    (0, 0, 1, 1.0, 1.0),
    (1, 0, 0, 0.5, -0.5),
    (0, 1, 0, -0.5, 0.5),
    (1, 1, 0, 0.0, 0.0),
    (0, 0, 0, 0.0, 0.0),
]
"""a right, v right, both right, φ_a, φ_v: all that there is with two modalities."""


def hits() -> dict[frozenset[str], torch.Tensor]:
    a, v, both = (torch.tensor([bool(row[i]) for row in TABLE]) for i in range(3))
    return {NONE: torch.zeros(8, dtype=torch.bool), A: a, V: v, BOTH: both}


def test_the_worked_table_of_two_modalities() -> None:
    here = torch.ones(8, dtype=torch.bool)
    phi = clip_values(hits(), {"a": here, "v": here}, "av")
    assert phi["a"].tolist() == [row[3] for row in TABLE]
    assert phi["v"].tolist() == [row[4] for row in TABLE]


def test_the_empty_set_is_worth_nothing_even_where_it_guesses_right() -> None:
    here = torch.ones(8, dtype=torch.bool)
    lucky = {**hits(), NONE: here}
    assert torch.equal(
        clip_values(lucky, {"a": here, "v": here}, "av")["a"], torch.tensor([r[3] for r in TABLE]).double()
    )


def test_a_modality_that_a_clip_lacks_is_worth_nothing_to_it() -> None:
    right = torch.tensor([True, True])
    found = {NONE: ~right, A: right, V: torch.tensor([True, False]), BOTH: right}
    phi = clip_values(found, {"a": right, "v": torch.tensor([True, False])}, "av")
    assert (phi["a"].tolist(), phi["v"].tolist()) == ([1.0, 1.0], [1.0, 0.0])


def test_shares_of_the_accuracy_add_up_to_what_the_modalities_bring() -> None:
    g = torch.Generator().manual_seed(0)
    found = {S: torch.rand(500, generator=g) < 0.2 + 0.2 * len(S) for S in [NONE, *subsets("avt")]}
    phi = {u: float(x.mean()) for u, x in accuracy_shares(found, "avt").items()}
    gain = found[frozenset("avt")].double().mean() - found[NONE].double().mean()
    assert sum(phi.values()) == pytest.approx(float(gain))


def test_the_worked_shares_of_two_modalities() -> None:
    n = 60
    found = {S: torch.arange(n) < k for S, k in ((NONE, 10), (A, 33), (V, 24), (BOTH, 39))}
    phi = {u: float(x.mean()) for u, x in accuracy_shares(found, "av").items()}
    assert phi == pytest.approx({"a": 0.316667, "v": 0.166667}, abs=1e-6)
