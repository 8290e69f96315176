"""What the fusions that read tokens share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmsearch.fusion import Head


def attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
    """softmax(Q·Kᵀ/√d)·V, `[..., N, d]`; who sees nothing gets zero.

    Args:
        q: `[..., N, d]`.
        k, v: `[..., K, d]`.
        visible: bool, broadcast against `[..., N, K]`; None: everything.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if visible is None:
        return scores.softmax(-1) @ v
    weights = scores.masked_fill(~visible, torch.finfo(scores.dtype).min).softmax(-1) * visible
    return weights.to(v.dtype) @ v


class MultiHead(nn.Module):
    """Attention in several heads, each on its own projection; a clip that shows nothing gives zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, y: Tensor, visible: Tensor | None = None) -> Tensor:
        """What x `[B, N, d]` reads in y `[B, K, d]`; `visible` is bool `[B, K]`."""
        q, k, v = (
            m(t).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m, t in ((self.q, x), (self.k, y), (self.v, y))
        )
        seen = attention(q, k, v, None if visible is None else visible[:, None, None])
        return self.out(seen.transpose(1, 2).flatten(2))


class TokenHead(Head):
    """A head that reads any number of tokens per modality, projected to one width."""

    def __init__(self, widths: dict[str, int], width: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.project = nn.ModuleDict({u: nn.Linear(d, width) for u, d in widths.items()})

    def read(
        self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The tokens X_u `[B, N_u, width]` and which clips have u, bool `[B]`; a feature is its own token for want of
        others, and a clip whose feature is zero lacks the modality.
        """
        X = {u: self.project[u]((tokens or {}).get(u, h[:, None])) for u, h in features.items()}
        return X, {u: (h != 0).any(1) for u, h in features.items()}
