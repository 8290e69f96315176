"""Clips of steps in time: how long they are, and a small transformer over them."""

from __future__ import annotations

import math

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


def length_of(x: Tensor) -> Tensor:
    """Steps up to a clip's last one that is not zero, int64 `[B]`, of `[B, T]` or `[B, T, D]`.

    Batches pad with zeros, so that this is the clip's own length, but for silence at its end.
    """
    there = x != 0 if x.ndim == 2 else (x != 0).any(-1)
    return (there * torch.arange(1, x.shape[1] + 1, device=x.device)).amax(1)


class StepTransformer(nn.Module):
    """Steps that see each other, and their mean; padding is seen by nobody and counts for nothing.

    Layers have the norm before attention and perceptron and no dropout; positions are sines. Without layers the
    steps are averaged as they come.

    Args:
        width: D.
        layers: how many.
        heads: of the attention.
    """

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if layers else nn.Identity()

    def forward(self, x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The mean `[B, D]` and the steps `[B, N, D]` of x `[B, N, D]`; `real` is bool `[B, N]`."""
        if len(self.layers):
            x = x + _positions(x)
        visible = seen(real)[:, None, None]
        for layer in self.layers:
            x = layer(x, attn_mask=visible)
        return averaged(self.norm(x), real)


def seen(real: Tensor) -> Tensor:
    """The steps that attention may look at, bool `[B, N]`: the real ones, the first one of a clip that has none."""
    first = torch.arange(real.shape[1], device=real.device) == 0
    return real | (first & ~real.any(1, keepdim=True))


def averaged(x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over real steps `[B, D]`, and the steps `[B, N, D]` with zeros in place of the others."""
    x = torch.where(real[..., None], x, torch.zeros_like(x))
    return x.sum(1) / real.sum(1, keepdim=True).clamp(min=1), x


def _positions(x: Tensor) -> Tensor:
    """Sines and cosines of the position, `[N, D]` (Attention Is All You Need, NeurIPS 2017)."""
    steps, width = x.shape[1:]
    rate = torch.exp(torch.arange(0, width, 2, device=x.device) * (-math.log(10000.0) / width))
    angle = torch.arange(steps, device=x.device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(x.dtype)
