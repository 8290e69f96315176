"""QMF against its worked example, and which way confidence is ranked."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.methods.qmf import ConfidenceHead, energy_confidence, rank_loss
from mmsearch.testing import MethodConformance, finish, toy_data
from mmsearch.training import train


class TestStatic(MethodConformance):
    method = {"name": "qmf", "dynamic": False, "T": 1.0}


def identity_head(dynamic: bool = True) -> ConfidenceHead:
    """A head whose unimodal logits are the features."""
    made = ConfidenceHead({"a": 3, "v": 3}, 3, 10.0, dynamic).double()
    made.load_state_dict(
        {
            k: torch.eye(3, dtype=w.dtype) if k.endswith("weight") else torch.zeros_like(w)
            for k, w in made.state_dict().items()
        }
    )
    return made


H = {
    "a": torch.tensor([[2, 0.5, -1]], dtype=torch.float64),
    "v": torch.tensor([[0.3, 0.1, 0]], dtype=torch.float64),
}


def test_worked_example() -> None:
    assert abs(energy_confidence(H["a"], 10).item() - 0.224131) < 1e-6
    assert abs(energy_confidence(H["v"], 10).item() - 0.123983) < 1e-6
    expected = torch.tensor([[0.4855, 0.1245, -0.2241]], dtype=torch.float64)
    torch.testing.assert_close(identity_head()(H), expected, rtol=0, atol=1e-4)


def test_the_fused_logits_move_no_confidence() -> None:
    h_a = H["a"].clone().requires_grad_()
    identity_head()({"a": h_a, "v": H["v"]}).sum().backward()
    torch.testing.assert_close(h_a.grad, energy_confidence(H["a"], 10)[:, None].expand(1, 3))


def test_a_missing_modality_has_no_weight() -> None:
    made = identity_head()
    made.get_parameter("linear.v.bias").data.fill_(5)
    torch.testing.assert_close(made({**H, "v": torch.zeros_like(H["v"])}), made({"a": H["a"]}))
    torch.testing.assert_close(identity_head(dynamic=False)(H), (H["a"] + H["v"]) / 2)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.floats(-3, 3)] * 2, *[st.floats(0, 1)] * 2))
def test_the_ranking_is_of_a_pair_in_either_order(pair: tuple[float, ...]) -> None:
    c_i, c_j, k_i, k_j = torch.tensor(pair, dtype=torch.float64)
    loss = rank_loss(c_i, c_j, k_i, k_j)
    torch.testing.assert_close(loss, rank_loss(c_j, c_i, k_j, k_i))
    assert loss >= 0
    if k_i == k_j:
        assert loss == 0
    else:
        t, m = torch.sign(k_j - k_i), (k_j - k_i).abs()
        torch.testing.assert_close(loss, torch.relu(-t * (c_i - (c_j + m / t))))


def test_the_better_learned_clip_must_be_the_more_confident() -> None:
    c = torch.tensor([0.0, 0.0], requires_grad=True)
    (g,) = torch.autograd.grad(rank_loss(c[0], c[1], torch.tensor(0.2), torch.tensor(0.7)), c)
    assert g.tolist() == [-1, 1]
    assert rank_loss(torch.tensor(0.6), torch.tensor(0.0), torch.tensor(0.2), torch.tensor(0.7)) == 0


def test_history_gathers_the_losses_of_training_clips_and_ranks_from_the_second_epoch() -> None:
    data = toy_data(missing=0.3)
    document = {"method": {"name": "qmf"}, "epochs": 3, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.02}}
    run = train(document, data)
    results = finish(run)
    assert results[0].metrics["qmf/rank/m0"] == 0
    assert results[1].metrics["qmf/rank/m0"] > 0
    history = run.method.state_dict()["history"]
    trained = torch.zeros(len(data), dtype=torch.bool)
    trained[torch.as_tensor(run.rows)] = True
    assert torch.equal(history["m0"] > 0, trained)
    assert 0 < (history["m1"] > 0).sum() < (history["m0"] > 0).sum()
    assert history["m0"][trained].mean() < history["m1"][history["m1"] > 0].mean()


def test_the_easier_modality_is_the_more_confident() -> None:
    run = train({"method": {"name": "qmf"}, "epochs": 3, "batch_size": 16, "optimizer": {"name": "sgd"}}, toy_data())
    last = finish(run)[-1].metrics
    assert last["qmf/confidence/m0"] > last["qmf/confidence/m1"]
