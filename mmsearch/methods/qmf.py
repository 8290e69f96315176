"""Quality-aware Multimodal Fusion: late fusion by the confidence of every modality in every clip."""

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
from mmsearch.methods._base import unimodal_losses


def energy_confidence(z: Tensor, T: float) -> Tensor:
    """c = logsumexp(z)/T, `[B]`; z `[B, C]`."""
    return torch.logsumexp(z, dim=1) / T


def rank_loss(c_i: Tensor, c_j: Tensor, k_i: Tensor, k_j: Tensor) -> Tensor:
    """max(0, -t·(c_i - (c_j + m/t))) per pair of clips, t = sign(k_j - k_i), m = |k_j - k_i|.

    A clip with the smaller loss history k must be the more confident one, by the difference at least.
    """
    return F.relu((k_j - k_i).abs() - torch.sign(k_j - k_i) * (c_i - c_j))


class ConfidenceHead(Head):
    """z = Σ_u sg(c_u)·z_u, z_u = W_u·h_u + b_u; c_u the energy confidence, or 1/M where it is not dynamic."""

    def __init__(self, widths: dict[str, int], n_classes: int, T: float, dynamic: bool) -> None:
        super().__init__()
        self.T, self.dynamic = T, dynamic
        self.linear = nn.ModuleDict({u: nn.Linear(d, n_classes) for u, d in widths.items()})

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`; a modality that a clip lacks has no weight."""
        z = []
        for u, z_u in self.unimodal(features).items():
            c_u = energy_confidence(z_u.detach(), self.T) if self.dynamic else 1 / len(self.linear)
            z.append((c_u * (features[u] != 0).any(1))[:, None] * z_u)
        return torch.stack(z).sum(0)

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """z_u `[B, C]`."""
        return {u: self.linear[u](h) for u, h in features.items()}


@dataclasses.dataclass
class QMF(Method):
    """QMF: unimodal logits weighted per clip by their energy, which is taught to follow the history of the loss.

    z = Σ_u c_u·z_u with c_u = logsumexp(z_u)/T, a constant in the fusion, in training and evaluation alike.
    L = CE(z, y) + Σ_u CE(z_u, y) + Σ_u rank_u. For neighbours (i, i+1) of the batch, the last with the first,
    rank_u = mean_i max(0, -t·(c_i - (c_{i+1} + m/t))), where t is the sign and m the size of the difference of their
    cumulative training losses of modality u, scaled by the range over the training clips: what has been learned
    better must be trusted more. The history stands before this step; in the first epoch all are equal. Pairs count
    where both clips have the modality. With `dynamic` off all weights are 1/M and the confidence is only trained.

    Source: Provable Dynamic Fusion for Low-Quality Multimodal Data (ICML 2023), with the official code's form of
    the rank loss; it does not say which way t points, and here it is the paper's: confidence falls with the loss.
    """

    name: ClassVar[str] = "qmf"
    summary: ClassVar[str] = "late fusion weighted per clip by energy confidence, ranked by the history of the loss"
    paper: ClassVar[str] = "Provable Dynamic Fusion for Low-Quality Multimodal Data (ICML 2023)"
    formula: ClassVar[str] = (
        "c_u = logsumexp(z_u)/T;  z = Σ_u sg(c_u)·z_u;  "
        "L = CE(z, y) + Σ_u CE(z_u, y) + Σ_u mean_i max(0, -t·(c_i - (c_{i+1} + m/t)))"
    )
    no_op: ClassVar[NoOp] = NoOp(None, reason="another head, and unimodal and rank losses that no knob takes away")
    dominance: ClassVar[Dominance] = Dominance("confidence", "high")

    T: float = knob(10.0, "temperature T of the confidence", low=1.0, high=100.0, log=True)
    dynamic: bool = knob(True, "weight modalities per clip by confidence")

    def __post_init__(self) -> None:
        self._history: dict[str, Tensor] = {}

    @property
    def own_fusion(self) -> bool:
        """Weighted late fusion is the method's own."""
        return True

    def build(self, model: Any) -> None:
        """Replaces the head."""
        model.fusion = ConfidenceHead(model.widths, model.n_classes, self.T, self.dynamic)

    def on_run_start(self, ctx: Context) -> None:
        """No loss so far."""
        self._history = {u: torch.zeros(ctx.n_clips, device=ctx.device) for u in ctx.modalities}

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """Joint, unimodal and rank losses."""
        L = F.cross_entropy(out.logits, batch.label) + sum(unimodal_losses(out, batch).values())
        return L + self._rank_losses(ctx, out, batch)

    def _rank_losses(self, ctx: Context, out: Output, part: Batch) -> Tensor:
        """Σ_u rank_u over the whole batch, with the gradient that it has through the clips of this part."""
        whole, batch = ctx.whole(out.features, part)
        i = (part.index[:, None] == batch.index).int().argmax(1)
        after, before = (i + 1) % len(batch), (i - 1) % len(batch)
        rows = torch.as_tensor(ctx.rows, device=part.index.device)
        total = out.logits.new_zeros(())
        for u, z_u in out.unimodal.items():
            here, history = batch.present[u], self._history[u].to(z_u.device)
            k = history[batch.index] / (history[rows].max() - history[rows].min()).clamp(min=1e-12)
            c, c_all = energy_confidence(z_u, self.T), energy_confidence(whole.unimodal[u], self.T)
            ahead = rank_loss(c, c_all[after], k[i], k[after]) * (here[i] & here[after])
            behind = rank_loss(c_all[before], c, k[before], k[i]) * (here[i] & here[before])
            ctx.log("rank", ahead.detach().mean(), u)
            total = total + (ahead + behind - behind.detach()).mean()
        return total

    @torch.no_grad()
    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Adds this step's losses to the history."""
        for u, z_u in out.unimodal.items():
            here = batch.present[u]
            L_i = F.cross_entropy(z_u, batch.label, reduction="none") * here
            self._history[u] = self._history[u].to(L_i.device).index_add(0, batch.index, L_i.float())
            c = energy_confidence(z_u, self.T)
            ctx.log("confidence", (c * here).sum() / here.sum().clamp(min=1), u)

    def state_dict(self) -> dict[str, Any]:
        """The cumulative loss of every clip, per modality."""
        return {"history": dict(self._history)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._history = dict(state["history"])
