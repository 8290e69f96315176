"""Unimodal teachers: their ensemble (UME), or distillation from them (UMT)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Method, NoOp, Stage
from mmsearch.methods._base import unimodal_heads

_UMT = {"teacher": "umt"}


def ensemble(unimodal: dict[str, Tensor], level: str) -> Tensor:
    """Logits `[B, C]` of the equally weighted ensemble of unimodal logits `[B, C]`.

    Args:
        unimodal: z_u per modality.
        level: average probabilities (`prob`), log-probabilities (`logprob`) or logits (`logit`).
    """
    z = torch.stack(list(unimodal.values()))
    if level == "prob":
        return F.softmax(z, dim=2).mean(0).log()
    return (F.log_softmax(z, dim=2) if level == "logprob" else z).mean(0)


@dataclasses.dataclass
class UnimodalTeacher(Method):
    """UME: the ensemble of unimodal models, fused without joint training. UMT: joint training that distils them.

    Both start from one trained `unimodal` model a modality (the teachers). UME averages their outputs with equal
    weights and trains nothing. UMT trains the multimodal model from scratch (or from the teachers' encoders) with
    L = L_mm + λ·Σ_u MSE(h_u, h_u^T), the mean over clips and feature elements; the teachers are frozen in
    evaluation mode. `scale_free` weighs the two parts by their own sizes instead:
    L = (1 - f)·L_mm + f·D·sg(L_mm)/max(sg(D), 1e-9).

    λ = 50 is recalled from the paper, whose full text was not at hand; the scale-free form is not the paper's.

    Source: On Uni-Modal Feature Learning in Supervised Multi-Modal Learning (ICML 2023).
    """

    name: ClassVar[str] = "unimodal_teacher"
    summary: ClassVar[str] = (
        "the ensemble of unimodal models (ume), or joint training that distils their features (umt)"
    )
    paper: ClassVar[str] = "On Uni-Modal Feature Learning in Supervised Multi-Modal Learning (ICML 2023)"
    formula: ClassVar[str] = "UME: p = Σ_u p_u / M;  UMT: L = L_mm + λ·Σ_u MSE(h_u, sg(h_u^T))"
    no_op: ClassVar[NoOp] = NoOp("joint", {"teacher": "umt", "weighting": "lambda", "lam": 0.0})

    teacher: str = knob("umt", "ensemble of the teachers, or distillation from them", choices=("ume", "umt"))
    level: str = knob(
        "prob", "what the ensemble averages", choices=("prob", "logprob", "logit"), when={"teacher": "ume"}
    )
    weighting: str = knob("lambda", "how distillation is weighted", choices=("lambda", "scale_free"), when=_UMT)
    lam: float = knob(
        50.0,
        "weight λ of the distillation",
        low=1.0,
        high=200.0,
        log=True,
        when=_UMT | {"weighting": "lambda"},
        also=(0.0,),
    )
    f: float = knob(0.3, "share f of the distillation", low=0.05, high=0.7, when=_UMT | {"weighting": "scale_free"})
    init: str = knob("scratch", "where the student's encoders start", choices=("scratch", "teacher"), when=_UMT)

    @property
    def own_fusion(self) -> bool:
        """The ensemble is its own fusion."""
        return self.teacher == "ume"

    @property
    def needs_teachers(self) -> bool:
        """Always."""
        return True

    def stages(self) -> tuple[Stage, ...]:
        """UME trains nothing."""
        return (Stage("ensemble", 0.0),) if self.teacher == "ume" else (Stage("distil"),)

    def build(self, model: Any) -> None:
        """UME: one head a modality, filled from the teachers."""
        if self.teacher == "ume":
            unimodal_heads(model)

    def on_run_start(self, ctx: Context) -> None:
        """Copies the teachers' weights where they are the start."""
        for u, teacher in ctx.teachers.items():
            if self.teacher == "ume" or self.init == "teacher":
                ctx.model.encoders[u].load_state_dict(teacher.encoders[u].state_dict())
            if self.teacher == "ume":
                ctx.model.extra["unimodal_heads"][u].load_state_dict(teacher.fusion.linear.state_dict())

    def predict(self, model: Any, out: Output) -> Output:
        """UME: the ensemble's logits (log-probabilities up to a constant)."""
        if self.teacher == "umt":
            return out
        z = {u: model.extra["unimodal_heads"][u](h) for u, h in out.features.items()}
        return dataclasses.replace(out, logits=ensemble(z, self.level), unimodal=z)

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """UMT: L_mm plus the distillation of every modality."""
        L_mm = F.cross_entropy(out.logits, batch.label)
        D = torch.zeros_like(L_mm)
        for u, taught in ctx.teacher_outputs(batch).items():
            h_T = taught.features[u]
            D_u = ((out.features[u].float() - h_T.float()).square().mean(1) * batch.present[u]).mean()
            ctx.log("distance", D_u.detach(), u)
            D = D + D_u
        if self.weighting == "lambda":
            return L_mm + self.lam * D
        return (1 - self.f) * L_mm + self.f * D * L_mm.detach() / D.detach().clamp(min=1e-9)
