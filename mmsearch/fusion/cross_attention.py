"""Cross-attention: the tokens of every modality read those of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._attention import MultiHead, TokenHead
from mmsearch.fusion._base import filled
from mmsearch.knobs import knob


class CrossAttentionHead(TokenHead):
    """X_u ← X_u + softmax(Q_u·K_{¬u}ᵀ/√d)·V_{¬u} in every layer; z = W·[mean X_1; …; mean X_M] + b.

    Queries and keys are layer-normalised tokens. ¬u are the tokens of all other modalities that the clip has; where
    there are none X_u stays as it is, and the mean of a modality that a clip lacks is zero.
    """

    def __init__(self, widths: dict[str, int], n_classes: int, width: int, layers: int, heads: int) -> None:
        super().__init__(widths, width)
        self.norm = nn.ModuleList(nn.ModuleDict({u: nn.LayerNorm(width) for u in widths}) for _ in range(layers))
        self.attend = nn.ModuleList(nn.ModuleDict({u: MultiHead(width, heads) for u in widths}) for _ in range(layers))
        self.pooled = {u: width for u in widths}
        self.linear = nn.Linear(width * len(widths), n_classes)

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        X, here = self.read(features, tokens)
        for norm, attend in zip(self.norm, self.attend, strict=True):
            if len(X) == 1:
                break
            N = {u: norm[u](x) for u, x in X.items()}  # type: ignore[index]
            X = {
                u: x
                + attend[u](  # type: ignore[index]
                    N[u],
                    torch.cat([N[j] for j in X if j != u], dim=1),
                    torch.cat([here[j][:, None].expand(-1, X[j].shape[1]) for j in X if j != u], dim=1),
                )
                for u, x in X.items()
            }
        h = {u: x.mean(1) * here[u][:, None] for u, x in X.items()}
        return self.linear(torch.cat(list(filled(h, self.pooled).values()), dim=1))


@dataclasses.dataclass
class CrossAttention(Fusion):
    """Every modality's tokens attend to the tokens of all others; a linear layer reads the means.

    There are no positions, so that any number of tokens will do, and no layers of their own between: the encoders
    are those.

    Source: the common form; among the first Multimodal Transformer for Unaligned Multimodal Language Sequences
    (ACL 2019), which puts a feed-forward layer behind each.
    """

    name: ClassVar[str] = "cross_attention"
    summary: ClassVar[str] = "the tokens of every modality attend to those of the others"
    formula: ClassVar[str] = "X_u ← X_u + softmax(Q_u·K_{¬u}ᵀ/√d)·V_{¬u};  z = W·[mean X_1; …; mean X_M] + b"
    reads_tokens: ClassVar[bool] = True

    layers: int = knob(1, "how often they attend", low=1, high=4)
    heads: int = knob(4, "heads of the attention", choices=(1, 2, 4, 8), search=False)
    width: int = knob(64, "to which the tokens are projected", choices=(32, 64, 128, 256))

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for tokens of these widths."""
        return CrossAttentionHead(widths, n_classes, self.width, self.layers, self.heads)

    def refuses(self, modalities: Sequence[str], encoders: Mapping[str, Any]) -> str:
        """One modality has nobody to attend to."""
        return "" if len(modalities) > 1 else "one modality attends to another, and there is only one"
