"""timm networks as encoders of images and spectrograms."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from mmsearch.encoders._base import Encoded
from mmsearch.errors import MMSearchError, nearest

SMALL = "small"
"""A residual network small enough for two CPU cores: four stages of one block, 16, 16, 32 and 64 wide."""


class Backbone(nn.Module):
    """A timm network without its classifier.

    Args:
        name: `small`, or any name of `timm.list_models()`.
        in_chans: channels of the input, 1 or 3.

    Raises:
        MMSearchError: timm has no such network.
    """

    def __init__(self, name: str, in_chans: int) -> None:
        super().__init__()
        if name == SMALL:
            self.net: Any = ResNet(
                BasicBlock,  # type: ignore[arg-type]
                (1, 1, 1, 1),
                num_classes=0,
                in_chans=in_chans,
                channels=(16, 16, 32, 64),
                stem_width=8,
                stem_type="deep",
                zero_init_last=False,
            )
        elif timm.is_model(name):
            self.net = timm.create_model(name, pretrained=False, in_chans=in_chans, num_classes=0)
        else:
            raise MMSearchError(f"encoder: unknown timm network {name!r}{nearest(name, [*timm.list_models(), SMALL])}")
        self.width: int = self.net.head_hidden_size if hasattr(self.net, "head_hidden_size") else self.net.num_features

        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, detail: bool = False) -> Encoded:
        """`[N, in_chans, H, W]` to pooled features `[N, D]`."""
        x = x.contiguous(memory_format=torch.channels_last)
        last = self.net.forward_features(x)
        pooled = self.net.forward_head(last, pre_logits=True)
        if not detail:
            return Encoded(pooled)
        tokens = last.flatten(2).transpose(1, 2) if last.ndim == 4 else last
        maps: list[Tensor] = self.net.forward_intermediates(x, intermediates_only=True)
        return Encoded(pooled, tokens, maps)
