"""Cross-attention, and what it shares with the bottleneck."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.fusion import FUSIONS
from mmsearch.fusion._attention import attention
from mmsearch.testing import FusionConformance


class TestDeeper(FusionConformance):
    fusion = {"name": "cross_attention", "layers": 2, "heads": 2, "width": 32}


def test_worked_example() -> None:
    q, k = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    v = torch.tensor([[3.0, -1.0], [1.0, 2.0]], dtype=torch.float64)
    close = {"rtol": 0, "atol": 1e-6}
    weights = torch.tensor([[0.669762, 0.330238]], dtype=torch.float64)
    torch.testing.assert_close(attention(q, k, torch.eye(2, dtype=torch.float64)), weights, **close)
    out = torch.tensor([[2.339523, -0.009285]], dtype=torch.float64)
    torch.testing.assert_close(attention(q, k, v), out, **close)


@settings(deadline=None, max_examples=15)
@given(tokens=st.integers(1, 6), data=st.data())
def test_what_is_invisible_has_no_weight(tokens: int, data: st.DataObject) -> None:
    visible = torch.tensor(data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)))
    q, k, v = (torch.randn(n, 4, dtype=torch.float64) for n in (2, tokens, tokens))
    found = attention(q, k, v, visible)
    expected = attention(q, k[visible], v[visible]) if visible.any() else torch.zeros_like(found)
    torch.testing.assert_close(found, expected)


def head(**knobs: object) -> torch.nn.Module:
    return FUSIONS.create({"name": "cross_attention", **knobs}).build({"a": 3, "v": 5}, 4).double()


def inputs(n_a: int, n_v: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    tokens = {
        "a": torch.randn(2, n_a, 3, dtype=torch.float64),
        "v": torch.randn(2, n_v, 5, dtype=torch.float64),
    }
    return {u: x.mean(1) for u, x in tokens.items()}, tokens


@settings(deadline=None, max_examples=10)
@given(n_a=st.integers(1, 7), n_v=st.integers(1, 7))
def test_any_number_of_tokens_in_any_order(n_a: int, n_v: int) -> None:
    net = head(layers=2)
    h, tokens = inputs(n_a, n_v)
    z = net(h, tokens)
    assert z.shape == (2, 4)
    torch.testing.assert_close(net(h, {u: x.flip(1) for u, x in tokens.items()}), z)


def test_a_clip_without_a_modality_is_judged_as_if_it_were_not_there() -> None:
    net = head()
    h, tokens = inputs(2, 3)
    h["v"][0] = 0
    torch.testing.assert_close(net(h, tokens)[0], net({"a": h["a"]}, {"a": tokens["a"]})[0])
    assert not torch.allclose(net(h, tokens)[1], net({"a": h["a"]}, {"a": tokens["a"]})[1])


def test_a_clip_with_nothing_at_all_gets_the_bias() -> None:
    net = head()
    h, tokens = inputs(2, 3)
    zero = {u: torch.zeros_like(x) for u, x in h.items()}
    torch.testing.assert_close(net(zero, tokens), net.linear.bias.expand(2, -1))


def test_a_pooled_feature_stands_in_for_missing_tokens() -> None:
    net = head()
    h, _ = inputs(2, 3)
    torch.testing.assert_close(net(h), net(h, {u: x[:, None] for u, x in h.items()}))
