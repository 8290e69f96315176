"""MMCosine: a head of cosines, modality by modality."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.batch import Batch, Output
from mmsearch.fusion import Head
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp

_LEAST = 1e-6


class CosineHead(Head):
    """z_u = s·cos(h_u, w_{u,c}), z = Σ_u z_u, with W = [W_1 | … | W_M] normalised per class and modality; no bias."""

    def __init__(self, widths: dict[str, int], n_classes: int, s: float) -> None:
        super().__init__()
        self.widths, self.s = dict(widths), s
        self.linear = nn.Linear(sum(widths.values()), n_classes, bias=False)

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        return torch.stack(list(self.unimodal(features).values())).sum(0)

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """z_u `[B, C]`, within ±s; zero for a clip without modality u."""
        W = dict(zip(self.widths, self.linear.weight.split(list(self.widths.values()), dim=1), strict=True))
        return {u: self.s * F.linear(unit(h), unit(W[u])) for u, h in features.items()}


def unit(x: Tensor) -> Tensor:
    """Rows of length one; a row of zeros stays, and gets no gradient."""
    norm = x.norm(dim=1, keepdim=True)
    return x * torch.where(norm > _LEAST, 1 / norm.clamp(min=_LEAST), torch.zeros_like(norm))


@dataclasses.dataclass
class MMCosine(Method):
    """MMCosine: cosine logits per modality, so that no modality wins by the length of its features or weights.

    The head is the concatenation's linear layer with every row block w_{u,c} and every feature h_u of length one
    and without bias: z = s·Σ_u cos(h_u, w_{u,c}), in training and in evaluation alike; L = CE(z, y). The sum goes
    over any number of modalities. The noise-contrastive term of the supplement (weight 0 there) is left out.

    Source: MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning (ICASSP 2023).
    """

    name: ClassVar[str] = "mmcosine"
    summary: ClassVar[str] = "a head of cosines: features and weights of every modality are normalised"
    paper: ClassVar[str] = (
        "MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning (ICASSP 2023)"
    )
    formula: ClassVar[str] = "z_{u,c} = s·(h_u·w_{u,c}) / (‖h_u‖·‖w_{u,c}‖);  z = Σ_u z_u;  L = CE(z, y)"
    no_op: ClassVar[NoOp] = NoOp(None, reason="another head: no scale turns cosines into the linear layer's logits")
    dominance: ClassVar[Dominance] = Dominance("cosine", "high")

    s: float = knob(10.0, "scale s of the cosines", low=2.0, high=64.0, log=True)

    @property
    def own_fusion(self) -> bool:
        """The cosine head is the method's own."""
        return True

    def build(self, model: Any) -> None:
        """Replaces the head."""
        model.fusion = CosineHead(model.widths, model.n_classes, self.s)

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Logs the cosine between each modality's features and the truth's weights."""
        for u, z_u in out.unimodal.items():
            there = batch.present[u]
            truth = z_u.gather(1, batch.label[:, None])[:, 0] / self.s
            ctx.log("cosine", (truth * there).sum() / there.sum().clamp(min=1), u)
