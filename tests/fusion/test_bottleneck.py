"""Attention bottlenecks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.fusion import FUSIONS
from mmsearch.testing import FusionConformance


class TestNarrow(FusionConformance):
    fusion = {"name": "bottleneck", "bottlenecks": 1, "layers": 1, "heads": 2, "width": 32}


def head(**knobs: object) -> torch.nn.Module:
    return FUSIONS.create({"name": "bottleneck", **knobs}).build({"a": 3, "v": 5}, 4).double()


def inputs(n_a: int, n_v: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    tokens = {
        "a": torch.randn(2, n_a, 3, dtype=torch.float64),
        "v": torch.randn(2, n_v, 5, dtype=torch.float64),
    }
    return {u: x.mean(1) for u, x in tokens.items()}, tokens


def test_one_layer_is_the_formula() -> None:
    net = head(layers=1, bottlenecks=2)
    h, tokens = inputs(3, 2)
    z = []
    for u, x in tokens.items():
        X = torch.cat([net.cls[u].expand(2, 1, -1), net.project[u](x), net.bottleneck.expand(2, -1, -1)], 1)
        z.append(net.linear[u](net.layers[0][u](X)[:, 0]))
    torch.testing.assert_close(net(h, tokens), sum(z) / 2)


def test_modalities_speak_through_the_bottleneck_alone_and_from_the_second_layer_on() -> None:
    h, tokens = inputs(3, 2)
    other = {**tokens, "v": tokens["v"] + 1}
    for layers, hears in ((1, False), (2, True)):
        net = head(layers=layers)
        net.linear["v"].weight.data.zero_()
        assert torch.allclose(net(h, tokens), net(h, other)) != hears


@settings(deadline=None, max_examples=10)
@given(n_a=st.integers(1, 7), n_v=st.integers(1, 7))
def test_any_number_of_tokens_in_any_order(n_a: int, n_v: int) -> None:
    net = head()
    h, tokens = inputs(n_a, n_v)
    z = net(h, tokens)
    assert z.shape == (2, 4)
    torch.testing.assert_close(net(h, {u: x.flip(1) for u, x in tokens.items()}), z)


def test_a_clip_without_a_modality_is_judged_as_if_it_were_not_there() -> None:
    net = head()
    h, tokens = inputs(2, 3)
    h["v"][0] = 0
    torch.testing.assert_close(net(h, tokens)[0], net({"a": h["a"]}, {"a": tokens["a"]})[0])


def test_a_clip_with_nothing_at_all_stays_finite() -> None:
    net = head()
    h, tokens = inputs(2, 3)
    z = net({u: torch.zeros_like(x) for u, x in h.items()}, tokens)
    torch.testing.assert_close(z, torch.zeros_like(z))
