"""Attention bottlenecks: modalities speak to each other through a few tokens alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._attention import MultiHead, TokenHead
from mmsearch.knobs import knob


class TransformerLayer(nn.Module):
    """x ← x + attention(norm x); x ← x + W_2·gelu(W_1·norm x), four times as wide inside."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = MultiHead(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, width]` to the same."""
        y = self.norm_1(x)
        x = x + self.attend(y, y)
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class BottleneckHead(TokenHead):
    """[X_u; B_u] = Layer_u([X_u; B]), B ← mean_u B_u; z = mean_u (W_u·CLS_u + b_u).

    CLS_u is the first token of X_u. Both means are over the modalities that a clip has.
    """

    def __init__(
        self, widths: dict[str, int], n_classes: int, width: int, layers: int, heads: int, bottlenecks: int
    ) -> None:
        super().__init__(widths, width)
        self.layers = nn.ModuleList(
            nn.ModuleDict({u: TransformerLayer(width, heads) for u in widths}) for _ in range(layers)
        )
        self.bottleneck = nn.Parameter(0.1 * torch.randn(bottlenecks, width))
        self.cls = nn.ParameterDict({u: nn.Parameter(0.1 * torch.randn(width)) for u in widths})
        self.linear = nn.ModuleDict({u: nn.Linear(width, n_classes) for u in widths})

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        X, here = self.read(features, tokens)
        X = {u: torch.cat([self.cls[u].expand(len(x), 1, -1).to(x), x], dim=1) for u, x in X.items()}
        share = torch.stack(list(here.values())).to(self.bottleneck)
        share = (share / share.sum(0).clamp(min=1))[..., None]
        B = self.bottleneck.expand(share.shape[1], -1, -1)
        for layer in self.layers:
            parts = {}
            for u, x in X.items():
                both = layer[u](torch.cat([x, B.to(x)], dim=1))  # type: ignore[index]
                X[u], parts[u] = both.split([x.shape[1], B.shape[1]], dim=1)
            B = (torch.stack(list(parts.values())) * share[..., None]).sum(0)
        z = torch.stack([self.linear[u](x[:, 0]) for u, x in X.items()])
        return (z * share).sum(0)


@dataclasses.dataclass
class Bottleneck(Fusion):
    """MBT: every modality has transformer layers of its own and shares only a few bottleneck tokens with the others.

    The encoders stand for the layers below the fusion layer, so that every layer here exchanges; there are no
    positions, so that any number of tokens will do, and no norm behind the last layer. The source has 12 layers 768
    wide, of which 4 exchange.

    Source: Attention Bottlenecks for Multimodal Fusion (NeurIPS 2021).
    """

    name: ClassVar[str] = "bottleneck"
    summary: ClassVar[str] = "transformer layers per modality that share a few bottleneck tokens"
    paper: ClassVar[str] = "Attention Bottlenecks for Multimodal Fusion (NeurIPS 2021)"
    formula: ClassVar[str] = "[X_u; B_u] = Layer_u([X_u; B]);  B ← mean_u B_u;  z = mean_u (W_u·CLS_u + b_u)"
    reads_tokens: ClassVar[bool] = True

    bottlenecks: int = knob(4, "bottleneck tokens", low=1, high=16, log=True)
    layers: int = knob(2, "layers that exchange", low=1, high=4)
    heads: int = knob(4, "heads of the attention", choices=(1, 2, 4, 8), search=False)
    width: int = knob(64, "to which the tokens are projected", choices=(32, 64, 128, 256))

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for tokens of these widths."""
        return BottleneckHead(widths, n_classes, self.width, self.layers, self.heads, self.bottlenecks)

    def refuses(self, modalities: Sequence[str], encoders: Mapping[str, Any]) -> str:
        """One modality has nobody to speak to."""
        return "" if len(modalities) > 1 else "the bottleneck stands between modalities, and there is only one"
