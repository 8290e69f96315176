"""On-the-fly Prediction Modulation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp
from mmsearch.methods._base import true_class_score


@dataclasses.dataclass
class OPM(Method):
    """OPM: drop the features of the modality that is ahead, with a probability driven by its lead.

    ρ_u = s_u / mean_{j≠u} s_j, r_u = tanh(relu(ρ_u - 1)); here ρ - 1, unlike OGM. A modality with r_u > 0 is
    dropped for a clip with probability q_u = clip(q_base·(1 + λ·r_u), 0, 1), drawn for every clip apart; all
    features are then divided by 1 - θ̄, θ̄ = Σ_u d_u·q_u / Σ_u d_u. With probability 1 - p_exe a whole batch is left
    as it is. A clip of which nothing remains leaves the batch. Evaluation drops and scales nothing.

    The scores are means over the clips that have the modality, and come from the logits before dropping. A fusion
    that reads tokens takes a zero feature as an absent modality; the scale does not reach its tokens. For two
    modalities ρ is the paper's; for more the mean of the others is this project's reading.

    Source: On-the-fly Modulation for Balanced Multimodal Learning (TPAMI 2024); values of its released code.
    """

    name: ClassVar[str] = "opm"
    summary: ClassVar[str] = "drops features of the modality that is ahead, the more often the larger its lead"
    paper: ClassVar[str] = "On-the-fly Modulation for Balanced Multimodal Learning (TPAMI 2024)"
    formula: ClassVar[str] = (
        "r_u = tanh(relu(s_u / mean_{j≠u} s_j - 1));  q_u = clip(q_base·(1 + λ·r_u), 0, 1) if r_u > 0 else 0;  "
        "h'_{i,u} = m_{i,u}·h_{i,u} / (1 - θ̄),  m ~ Bernoulli(1 - q_u)"
    )
    no_op: ClassVar[NoOp] = NoOp("joint", {"q_base": 0.0})
    dominance: ClassVar[Dominance] = Dominance("q", "high")
    earliest: ClassVar[float] = 0.1

    q_base: float = knob(0.5, "least probability to drop the leader", low=0.1, high=0.9, also=(0.0,))
    lam: float = knob(0.5, "how much a lead λ adds to it", low=0.05, high=2.0, log=True)
    p_exe: float = knob(0.7, "share of the batches that are modulated", low=0.3, high=1.0, also=(0.0,))
    warm_up: float = knob(0.06, "share of training before modulation starts", low=0.0, high=0.1)

    def __post_init__(self) -> None:
        self._share: Tensor | None = None

    def drop_rates(self, scores: dict[str, Tensor]) -> dict[str, Tensor]:
        """q_u per modality from the scores s_u (scalars); a lead within rounding is none."""
        q = {}
        for u, s_u in scores.items():
            others = torch.stack([s for name, s in scores.items() if name != u])
            lead = s_u / others.mean() - 1
            r = torch.tanh(F.relu(lead))
            q[u] = torch.where(
                lead > 16 * torch.finfo(lead.dtype).eps,
                (self.q_base * (1 + self.lam * r)).clamp(0, 1),
                torch.zeros_like(r),
            )
        return q

    def modify_features(self, ctx: Context, features: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Masks and scales; what is drawn is drawn for the whole batch of the step."""
        self._share = None
        if ctx.progress < self.warm_up or len(features) < 2 or self.q_base == 0 or self.p_exe == 0:
            return features
        out, whole = ctx.whole(features, batch)
        q = self.drop_rates({u: mean_score(z, whole, u) for u, z in out.unimodal.items()})
        for u, q_u in q.items():
            ctx.log("q", q_u, u)
        generator = ctx.generator()
        if torch.rand((), generator=generator, device=ctx.device) >= self.p_exe:
            return features
        keep = {u: torch.rand(len(whole), generator=generator, device=ctx.device) >= q_u for u, q_u in q.items()}
        alive = torch.stack([keep[u] & whole.present[u] for u in keep]).any(0)
        place = (batch.index[:, None] == whole.index).int().argmax(1)
        self._share = alive[place] * len(whole) / alive.sum().clamp(min=1)
        widths = {u: h.shape[1] for u, h in features.items()}
        theta = torch.stack([widths[u] * q_u for u, q_u in q.items()]).sum() / sum(widths.values())
        return modulated(features, {u: k[place] for u, k in keep.items()}, theta)

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """L_mm over the clips of which something remains."""
        if self._share is None:
            return F.cross_entropy(out.logits, batch.label)
        return (F.cross_entropy(out.logits, batch.label, reduction="none") * self._share).mean()


def mean_score(z_u: Tensor, batch: Batch, u: str) -> Tensor:
    """s_u / n_u, the mean probability of the truth over the clips that have the modality; 0 where none has."""
    here = batch.present[u]
    return true_class_score(z_u[here], batch.label[here]) / here.sum().clamp(min=1)


def modulated(features: dict[str, Tensor], keep: dict[str, Tensor], theta: Tensor) -> dict[str, Tensor]:
    """h' = m·h / (1 - θ̄) per modality; keep is bool `[B]`, θ̄ a scalar."""
    scale = 1 / (1 - theta)
    return {u: h * (keep[u][:, None] * scale).to(h.dtype) for u, h in features.items()}
