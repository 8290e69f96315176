"""Gradient-Guided Distillation with sequential modality prioritisation."""

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


def distillation(z: Tensor, z_T: Tensor, T: float) -> Tensor:
    """T²·KL(softmax(z_T/T) ‖ softmax(z/T)) per clip, `[B]`; logits of student and teacher `[B, C]`."""
    log_p, log_p_T = F.log_softmax(z / T, dim=1), F.log_softmax(z_T / T, dim=1)
    return T**2 * F.kl_div(log_p, log_p_T, reduction="none", log_target=True).sum(1)


def feature_distance(out: Output, taught: Output, batch: Batch, u: str) -> Tensor:
    """MSE(h_u, h_u^T), a mean over feature elements and the clips of the batch; a clip without u counts as 0."""
    d = (out.features[u].float() - taught.features[u].float()).square().mean(1)
    return (d * batch.present[u]).mean()


def silenced(scores: dict[str, Tensor], learning: int) -> dict[str, Tensor]:
    """Per modality whether `learning` others have a lower score (bool scalars): all but the weakest stand still."""
    s = torch.stack(list(scores.values()))
    return {u: (s < s_u).sum() >= learning for u, s_u in scores.items()}


@dataclasses.dataclass
class G2D(Method):
    """G²D: joint training guided by frozen unimodal teachers, in which the modality of the stronger teacher waits.

    L = L_mm + Σ_u (w_logit·T²·KL(softmax(z_u^T/T) ‖ softmax(z/T)) + w_feature·MSE(h_u, h_u^T)): every teacher's
    logits teach the joint ones, its features those of its encoder. Until `end` the gradient of the encoder whose
    teacher scores the truth of this batch better is set to zero (sequential modality prioritisation); a tie
    silences nobody. The teachers are frozen in evaluation mode.

    The released code knows two modalities and zeroes convolutions only (`tensors: conv`). With M modalities the
    window is cut here into M - 1 equal parts, and in the j-th the j modalities with the lowest scores learn. An
    optimiser with momentum moves a tensor on whose gradient is zero; `apply_to: lr` stops the encoder altogether.

    Source: G2D: Boosting Multimodal Learning with Gradient-Guided Distillation (ICCV 2025); read from its code, the
    paper was not at hand.
    """

    name: ClassVar[str] = "g2d"
    summary: ClassVar[str] = "distils unimodal teachers and halts the encoder whose teacher is ahead"
    paper: ClassVar[str] = "G2D: Boosting Multimodal Learning with Gradient-Guided Distillation (ICCV 2025)"
    formula: ClassVar[str] = (
        "L = L_mm + Σ_u (w_logit·T²·KL(softmax(z_u^T/T) ‖ softmax(z/T)) + w_feature·MSE(h_u, h_u^T));  "
        "s_u = Σ_i softmax(z_u^T)_{i,y_i};  ∇θ_u ← 0 for the highest s_u"
    )
    no_op: ClassVar[NoOp] = NoOp("joint", {"w_logit": 0.0, "w_feature": 0.0, "end": 0.0})
    dominance: ClassVar[Dominance] = Dominance("score", "high")
    earliest: ClassVar[float] = 0.5

    w_logit: float = knob(1.0, "weight of the logits' distillation", low=0.1, high=10.0, log=True, also=(0.0,))
    w_feature: float = knob(1.0, "weight of the features' distillation", low=0.1, high=100.0, log=True, also=(0.0,))
    T: float = knob(1.0, "temperature of the logits' distillation", low=1.0, high=8.0, log=True)
    end: float = knob(0.5, "where prioritisation ends, share of training", low=0.1, high=0.8, also=(0.0,))
    tensors: str = knob(
        "matrices", "halted tensors: all of two or more dimensions, or convolutions", choices=("matrices", "conv")
    )
    apply_to: str = knob("grad", "zero the encoder's gradient or its learning rate", choices=("grad", "lr"))

    def __post_init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    @property
    def needs_teachers(self) -> bool:
        """Always."""
        return True

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """L_mm plus what the teachers say."""
        L = F.cross_entropy(out.logits, batch.label)
        for u, taught in ctx.teacher_outputs(batch).items():
            here = batch.present[u]
            self._sums[u] = self._sums.get(u, 0) + true_class_score(taught.logits[here], batch.label[here])
            if self.w_logit:
                L = L + self.w_logit * (distillation(out.logits, taught.logits, self.T) * here).mean()
            if self.w_feature:
                L = L + self.w_feature * feature_distance(out, taught, batch, u)
        return L

    def learning(self, progress: float, modalities: int) -> int:
        """How many modalities learn at this moment of training."""
        if progress >= self.end:
            return modalities
        return 1 + int(progress / self.end * (modalities - 1))

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Halts the encoders that are to wait."""
        clips = {u: batch.present[u].sum().clamp(min=1) for u in self._sums}
        scores = {u: ctx.summed(s) / clips[u] for u, s in self._sums.items()}
        self._sums = {}
        waits = silenced(scores, self.learning(ctx.progress, len(scores)))
        for u, s_u in scores.items():
            ctx.log("score", s_u, u)
            ctx.log("waits", waits[u].float(), u)
            if ctx.progress < self.end:
                ctx.scale(u, (~waits[u]).float(), apply_to=self.apply_to, where=self._halted)

    def _halted(self, p: Tensor) -> bool:
        return p.ndim >= (4 if self.tensors == "conv" else 2)
