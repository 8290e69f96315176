"""Joint training with unimodal losses of equal weight."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.methods import Context, Method, NoOp
from mmsearch.methods._base import unimodal_heads, unimodal_losses, with_unimodal_heads


@dataclasses.dataclass
class Uniform(Method):
    """L = L_mm + sum_u L_u with a separate linear head g_u on every encoder."""

    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "joint loss plus one loss per modality on separate heads, all of weight one"
    paper: ClassVar[str] = "the multi-task baseline of MMPareto (ICML 2024)"
    formula: ClassVar[str] = "L = L_mm + Σ_u L_u,  L_u = CE(g_u(h_u), y)"
    no_op: ClassVar[NoOp] = NoOp(None, reason="it has no knob: the unimodal losses are always there")

    def build(self, model: Any) -> None:
        """Adds the heads g_u."""
        unimodal_heads(model)

    def predict(self, model: Any, out: Output) -> Output:
        """Joint logits of the fusion, unimodal logits of the separate heads."""
        return with_unimodal_heads(model, out)

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """L_mm + Σ_u L_u; a clip without modality u does not count in L_u."""
        L_mm = F.cross_entropy(out.logits, batch.label)
        L_u = unimodal_losses(self.predict(ctx.model, out), batch)
        return L_mm + sum(L_u.values())
