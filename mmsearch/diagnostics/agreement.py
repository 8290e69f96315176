"""Whether two losses pull an encoder the same way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of a scalar; zeros where it does not reach a parameter. The graph is kept."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def cosine(g: Sequence[Tensor], h: Sequence[Tensor]) -> float | None:
    """⟨g, h⟩/(‖g‖·‖h‖) of two gradients over all their tensors, in [-1, 1]; None where one is zero."""
    dot, gg, hh = (
        sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))
        for a, b in ((g, h), (g, g), (h, h))
    )
    return dot / (gg * hh) ** 0.5 if gg > 0 and hh > 0 else None
