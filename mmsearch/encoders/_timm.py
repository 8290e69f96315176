"""timm networks as encoders of images and spectrograms."""

from __future__ import annotations

import functools
from collections.abc import Generator
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
        self.stage_widths: tuple[int, ...] = ()
        if isinstance(self.net, ResNet):
            layers = (self.net.layer1, self.net.layer2, self.net.layer3, self.net.layer4)
            self.stage_widths = tuple(_channels(layer) for layer in layers)
        self.width: int = self.net.head_hidden_size if hasattr(self.net, "head_hidden_size") else self.net.num_features

        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, detail: bool = False) -> Encoded:
        """`[N, in_chans, H, W]` to pooled features `[N, D]`."""
        x = x.contiguous(memory_format=torch.channels_last)
        last = self.net.forward_features(x)
        pooled = self.net.forward_head(last, pre_logits=True)
        if not detail:
            return Encoded(pooled)
        return Encoded(pooled, last.flatten(2).transpose(1, 2) if last.ndim == 4 else last)

    def staged(self, x: Tensor) -> Generator[Tensor, Tensor, Tensor]:
        """Yields the map `[N, C_s, H, W]` after each stage of a ResNet, returns the pooled features `[N, D]`."""
        net = self.net
        x = net.maxpool(net.act1(net.bn1(net.conv1(x.contiguous(memory_format=torch.channels_last)))))
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = yield layer(x)
        return net.forward_head(x, pre_logits=True)


def _channels(layer: Any) -> int:
    last = layer[-1]
    return (last.bn3 if hasattr(last, "bn3") else last.bn2).num_features


@functools.cache
def with_stages(name: str) -> int:
    """How many stages a network has that :meth:`Backbone.staged` can stop after: four for a ResNet, else none."""
    if name == SMALL:
        return 4
    entry = timm.models.model_entrypoint(name) if timm.is_model(name) else None
    return 4 if entry is not None and entry.__module__ == ResNet.__module__ else 0


def unfolded(
    staged: Generator[Tensor, Tensor, Tensor], clips: tuple[int, ...] | torch.Size
) -> Generator[Tensor, Tensor, Tensor]:
    """The same stages with maps `[B, F, C, H, W]` in place of `[B·F, C, H, W]`; `clips` is (B, F)."""
    try:
        x = next(staged)
        while True:
            mixed = yield x.unflatten(0, clips)
            x = staged.send(mixed.flatten(0, 1))
    except StopIteration as end:
        return end.value
