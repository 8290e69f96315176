"""Worked numbers computed independently in float64; the toy batch E0 is shared by most of them."""

from __future__ import annotations

import pytest
import torch

from mmsearch.methods._base import true_class_score
from mmsearch.methods.mla import entropy_weights, project
from mmsearch.methods.ogm import OGM
from mmsearch.methods.unimodal_teacher import ensemble

Z_A = torch.tensor([[2, 0.5, -1], [0.2, 1.5, 0], [1, 0, 2.5], [1.2, 0.3, 0.1]], dtype=torch.float64)
Z_V = torch.tensor([[0.3, 0.1, 0], [0.5, 0.4, 0.2], [0.2, 0.6, 0.5], [0, 0.9, 0.1]], dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 1])


def close(a: torch.Tensor, b: list, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(a, torch.tensor(b, dtype=a.dtype), rtol=0, atol=tolerance)


def scores() -> dict[str, torch.Tensor]:
    return {"a": true_class_score(Z_A, Y), "v": true_class_score(Z_V, Y)}


def test_scores_are_sums_of_the_probability_of_the_truth() -> None:
    close(scores()["a"], 2.4540903701)
    close(scores()["v"], 1.6228968181)


@pytest.mark.parametrize(
    ("alpha", "k_a"),
    [(0.1, 0.8499254914), (0.3, 0.5751053321), (0.8, 0.1634005351), (1.0, 0.0926772147), (2.6, 7.689353e-4)],
)
def test_ogm_coefficients(alpha: float, k_a: float) -> None:
    k = OGM(alpha=alpha).coefficients(scores())
    close(k["a"], k_a)
    assert k["v"] == 1


def test_ogm_compares_with_the_mean_of_the_others_where_there_are_three() -> None:
    s = {u: torch.tensor(x, dtype=torch.float64) for u, x in {"a": 3.0, "v": 2.0, "t": 5.0}.items()}
    k = OGM(alpha=0.3).coefficients(s)
    assert k["a"] == k["v"] == 1
    close(k["t"], 0.4629501, 1e-6)


def test_ogm_swaps_with_the_modalities() -> None:
    k = OGM().coefficients(scores())
    swapped = OGM().coefficients({"a": scores()["v"], "v": scores()["a"]})
    assert k["a"] == swapped["v"]
    assert k["v"] == swapped["a"]


def test_ogm_modulates_nobody_in_a_tie() -> None:
    tie = torch.tensor(2.0)
    assert all(k == 1 for k in OGM().coefficients({"a": tie, "v": tie}).values())


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        (False, [[0.814815, 0.370370], [0.370370, 0.259259]]),
        (True, [[0.812589, 0.369358], [0.369358, 0.258551]]),
    ],
)
def test_mla_projection(normalise: bool, expected: list) -> None:
    P = project(torch.eye(2, dtype=torch.float64), torch.tensor([0.5, -1.0], dtype=torch.float64), 0.1, normalise)
    close(P, expected)
    if not normalise:
        close(torch.ones(1, 2, dtype=torch.float64) @ P.T, [[1.185185, 0.629630]])
    assert torch.equal(P, P.T)
    assert (torch.linalg.eigvalsh(P) >= 0).all()


def test_mla_entropy_weights() -> None:
    w = entropy_weights({"a": Z_A, "v": Z_V})
    close(w["a"], [0.615159, 0.556729, 0.599924, 0.508696])
    close(w["a"] + w["v"], [1.0] * 4)


def test_ume_averages_probabilities() -> None:
    p = ensemble({"a": Z_A, "v": Z_V}, "prob").exp()
    close(
        p,
        [
            [0.588145, 0.247582, 0.164273],
            [0.280096, 0.505305, 0.214599],
            [0.215628, 0.225608, 0.558764],
            [0.396983, 0.386279, 0.216738],
        ],
    )
    assert p.argmax(1).tolist() == [0, 1, 2, 0]
