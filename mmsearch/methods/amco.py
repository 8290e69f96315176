"""Adaptive Mask Co-optimization: hide features of the modality that the prediction depends on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.fusion import Fusion
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp
from mmsearch.methods._base import unimodal_heads, unimodal_losses, with_unimodal_heads


def shares(unimodal: dict[str, Tensor], complete: Tensor) -> dict[str, Tensor]:
    """Each modality's block of one softmax over all unimodal logits `[B, C]`, a mean over the `complete` clips."""
    p = F.softmax(torch.cat(list(unimodal.values()), dim=1), dim=1).unflatten(1, (len(unimodal), -1)).sum(2)
    p = (p * complete[:, None]).sum(0) / complete.sum().clamp(min=1)
    return dict(zip(unimodal, p.clamp(max=1), strict=True))


def mask_rate(l_t: float, epsilon: float) -> float:
    """p_t = sin(π/2·min(ε, l_t)/ε)."""
    return math.sin(math.pi / 2 * min(epsilon, l_t) / epsilon)


def random_masks(clips: int, width: int, rate: float, generator: torch.Generator) -> Tensor:
    """bool `[B, D]`, True where a feature stays: in every row exactly ⌊rate·D⌋ places, its own, are False."""
    hidden = math.floor(rate * width + 1e-9)
    ranks = torch.rand(clips, width, generator=generator, device=generator.device).argsort(1).argsort(1)
    return ranks >= hidden


@dataclasses.dataclass
class AMCo(Method):
    """AMCo: whatever modality the prediction depends on loses, in the next step, a share of its features.

    Every step measures share_u, the mean over the batch of u's block of one softmax over the concatenated unimodal
    logits. A modality with share_u > σ is *dependent*: in the next step the joint logits are computed with
    ⌊p_t·D_u⌋ of its features set to zero, drawn anew for every clip, p_t = sin(π/2·min(ε, l_t)/ε), l_t the share of
    training that is done; from l_t = ε on they are all hidden. L = L_mm + Σ_u L_u with a separate linear head on
    every encoder, which sees the whole features. Shares are of clips that have every modality.

    Known from BalanceBenchmark only, which masks classes of the unimodal logits, with one mask a device, and is at
    p_t = 1 within two epochs; masks of features, per clip, and the ramp over training are this project's reading of
    the paper's intent. There the joint logits are a linear layer on Σ_u z_u, which can express what fusion `sum`
    can; here any fusion of pooled features serves.

    Source: Adaptive Mask Co-optimization for Modal Dependence in Multimodal Learning (ICASSP 2023).
    """

    name: ClassVar[str] = "amco"
    summary: ClassVar[str] = "hides a growing share of the features of the modality that the prediction depends on"
    paper: ClassVar[str] = "Adaptive Mask Co-optimization for Modal Dependence in Multimodal Learning (ICASSP 2023)"
    formula: ClassVar[str] = (
        "share_u = mean_i Σ_c softmax([z_1; …; z_M])_{i,u,c};  share_u > σ ⇒ next step hides ⌊p_t·D_u⌋ of h_u;  "
        "p_t = sin(π/2·min(ε, l_t)/ε);  L = L_mm + Σ_u L_u"
    )
    earliest: ClassVar[float] = 0.3
    no_op: ClassVar[NoOp] = NoOp("uniform", {"sigma": 1.0})
    dominance: ClassVar[Dominance] = Dominance("share", "high")

    sigma: float = knob(0.5, "share σ beyond which a modality is dependent", low=0.3, high=0.8, also=(1.0,))
    epsilon: float = knob(0.3, "where masks become complete, share of training", low=0.1, high=1.0)

    def __post_init__(self) -> None:
        self._dependent: list[str] = []

    def refuses(self, fusion: Fusion, modalities: Sequence[str]) -> str:
        """Masks are on pooled features."""
        return "it hides pooled features, and this fusion reads tokens" if fusion.reads_tokens else ""

    def kind(self, ctx: Context) -> str:
        """A step with masks runs the head twice."""
        return "masked" if self._dependent else ""

    def build(self, model: Any) -> None:
        """Adds the heads g_u."""
        unimodal_heads(model)

    def predict(self, model: Any, out: Output) -> Output:
        """Joint logits of the fusion, unimodal logits of the separate heads."""
        return with_unimodal_heads(model, out)

    def step(self, ctx: Context, batch: Batch) -> Tensor:
        """Masks what was dependent in the step before, and measures the dependence for the next."""
        rate, generator = mask_rate(ctx.progress, self.epsilon), ctx.generator()
        masks = {u: random_masks(len(batch), ctx.model.widths[u], rate, generator) for u in self._dependent}

        def loss(out: Output, part: Batch) -> Tensor:
            L_u = unimodal_losses(self.predict(ctx.model, out), part)
            z = out.logits
            if masks:
                rows = (part.index[:, None] == batch.index).int().argmax(1)
                kept = {u: out.features[u] * keep[rows] for u, keep in masks.items()}
                z = ctx.model.fuse({**out.features, **kept}).logits
            return F.cross_entropy(z, part.label) + sum(L_u.values())

        out, value = ctx.accumulate(batch, loss)
        self._measure(ctx, out, batch)
        for u in ctx.modalities:
            ctx.log("masked", rate if u in masks else 0.0, u)
        ctx.update()
        return value

    @torch.no_grad()
    def _measure(self, ctx: Context, out: Output, batch: Batch) -> None:
        if len(ctx.modalities) < 2:
            return
        complete = torch.stack(list(batch.present.values())).all(0)
        found = shares(self.predict(ctx.model, out).unimodal, complete)
        for u, share in found.items():
            ctx.log("share", share, u)
        dependent = (torch.stack(list(found.values())) > self.sigma).tolist()
        self._dependent = [u for u, is_so in zip(found, dependent, strict=True) if is_so]

    def state_dict(self) -> dict[str, Any]:
        """What is dependent."""
        return {"dependent": self._dependent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._dependent = list(state["dependent"])
