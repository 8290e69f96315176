"""Sample-level modality valuation: clips come again with only the modality that contributes little."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmsearch.batch import Batch, Output
from mmsearch.diagnostics.shapley import subsets
from mmsearch.diagnostics.valuation import clip_values
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp


def copies(phi: Tensor) -> Tensor:
    """How often a clip comes again with only u: 0 for φ_u ≥ 1, then 1, 2 below 0.4, 3 below -0.1; int64."""
    return (phi < 1 - 1e-6).long() + (phi < 0.4) + (phi < -0.1)


def resampling(d: Tensor, alpha: float, f: str) -> Tensor:
    """D = f((2/3)·α·mean_{i<j} |d_i - d_j|) in [0, 1], a scalar; d `[M]` the gaps 1 - φ̄_u."""
    i, j = torch.triu_indices(len(d), len(d), 1, device=d.device)
    x = 2 / 3 * alpha * (d[i] - d[j]).abs().mean()
    return (x.tanh() if f == "tanh" else x**1.5 if f == "square" else x).clamp(max=1.0)


@dataclasses.dataclass
class ModalityValuation(Method):
    """Train again on clips that show only a modality whose Shapley value is low.

    v(S) = |S| if the model predicts the clip from the modalities in S alone, else 0; φ_u is the Shapley value of u
    (for two: φ_a = (v(a) - v(v) + v(av))/2). Modalities outside S are zero at the fusion, so that the clips are
    encoded once an epoch, without augmentation, and only the head is evaluated for every S. A modality that a clip
    lacks is worth nothing to it and is never shown.

    `sample`: every clip comes again with only u, as often as :func:`copies` says, for every u with φ_u < 1.
    `modality`: φ̄_u is estimated on a random share of the clips; D·N clips are drawn with replacement and come again
    with only u, D = f((2/3)·α·mean pairwise |d_i - d_j|), d_u = 1 - φ̄_u, and u drawn in proportion to
    relu(d_u - mean d): with two modalities always the one of the larger gap.

    Both start after the warm-up and are done anew every epoch.

    Source: Enhancing Multimodal Cooperation via Sample-level Modality Valuation (CVPR 2024).
    """

    name: ClassVar[str] = "modality_valuation"
    summary: ClassVar[str] = "shows clips again with only the modality of low Shapley value"
    paper: ClassVar[str] = "Enhancing Multimodal Cooperation via Sample-level Modality Valuation (CVPR 2024)"
    formula: ClassVar[str] = (
        "v(S) = |S|·[ŷ(S) = y];  φ_u = Σ_{S⊆U∖u} |S|!(M-|S|-1)!/M!·(v(S∪u) - v(S));  "
        "sample: c(φ_u) copies with only u;  modality: D·N copies, D = f((2/3)·α·|d_a - d_v|), d_u = 1 - φ̄_u"
    )
    earliest: ClassVar[float] = 0.1
    no_op: ClassVar[NoOp] = NoOp("joint", {"level": "modality", "alpha": 0.0})
    dominance: ClassVar[Dominance] = Dominance("phi", "high")

    level: str = knob("modality", "value every clip, or modalities on a random share", choices=("sample", "modality"))
    warm_up: float = knob(5 / 60, "plain training before, share of training", low=1 / 60, high=10 / 60)
    part: float = knob(
        0.2, "share of the clips that are valued", low=0.05, high=1.0, log=True, when={"level": "modality"}
    )
    alpha: float = knob(
        1.0, "strength α of the resampling", low=0.25, high=4.0, log=True, when={"level": "modality"}, also=(0.0,)
    )
    f: str = knob(
        "linear",
        "how resampling follows the gap of the values",
        choices=("linear", "tanh", "square"),
        when={"level": "modality"},
    )

    def __post_init__(self) -> None:
        self._present: Tensor | None = None

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """The first epoch tells which clip has which modality."""
        if self.level == "modality" and ctx.epoch == 0:
            if self._present is None:
                self._present = torch.zeros(ctx.n_clips, len(ctx.modalities), dtype=torch.bool, device=ctx.device)
            self._present[batch.index] = torch.stack([batch.present[u] for u in ctx.modalities], dim=1)

    def epoch_rows(self, ctx: Context, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The clips and, after the warm-up, their copies."""
        if ctx.epoch == 0 or ctx.progress < self.warm_up or len(ctx.modalities) < 2:
            return rows, None
        found = (self._of_samples if self.level == "sample" else self._of_modalities)(ctx, rows)
        again = np.concatenate(found)
        only = np.repeat(np.arange(len(found)), [len(r) for r in found])
        ctx.log("copies", len(again) / len(rows))
        return np.concatenate([rows, again]), np.concatenate([np.full(len(rows), -1), only])

    def _of_samples(self, ctx: Context, rows: np.ndarray) -> list[np.ndarray]:
        """Per modality the rows that come again."""
        index, phi, present = (torch.cat(x).cpu() for x in zip(*self._valued(ctx, rows), strict=True))
        for u, mean in zip(ctx.modalities, _means(phi, present), strict=True):
            ctx.log("phi", mean, u)
        times = copies(phi) * present
        return [np.repeat(index.numpy(), n.numpy()) for n in times.T]

    def _of_modalities(self, ctx: Context, rows: np.ndarray) -> list[np.ndarray]:
        """Per modality the rows that come again."""
        g = ctx.generator()

        def draw(among: np.ndarray, n: int) -> np.ndarray:
            return among[torch.randint(len(among), (n,), generator=g, device=g.device).cpu().numpy()]

        Z = draw(rows, math.ceil(self.part * len(rows)))
        _, phi, present = (torch.cat(x).cpu() for x in zip(*self._valued(ctx, Z), strict=True))
        mean = _means(phi, present)
        for u, value in zip(ctx.modalities, mean, strict=True):
            ctx.log("phi", value, u)
        d = 1 - mean
        n = int(resampling(d, self.alpha, self.f) * len(rows))
        if n == 0:
            return [rows[:0] for _ in d]
        target = torch.multinomial((d - d.mean()).relu().to(g.device), n, replacement=True, generator=g)
        assert self._present is not None
        has = self._present.cpu().numpy()[rows]
        return [draw(rows[has[:, u]], int((target == u).sum())) for u in range(len(d))]

    @torch.no_grad()
    def _valued(self, ctx: Context, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batch by batch the rows `[B]`, φ float64 `[B, M]` and presence `[B, M]`."""
        for out, batch in ctx.scan("train", rows):
            hits = {}
            for S in subsets(ctx.modalities):
                seen = [u for u in ctx.modalities if u in S]
                features = {u: out.features[u] for u in seen}
                tokens = {u: out.tokens[u] for u in seen if u in out.tokens}
                hits[S] = ctx.model.fuse(features, tokens).logits.argmax(1) == batch.label
            phi = clip_values(hits, batch.present, ctx.modalities)
            yield (
                batch.index,
                torch.stack([phi[u] for u in ctx.modalities], dim=1),
                torch.stack([batch.present[u] for u in ctx.modalities], dim=1),
            )

    def state_dict(self) -> dict[str, Any]:
        """Which clip has which modality; values are computed anew every epoch."""
        return {"present": self._present}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._present = state["present"]


def _means(phi: Tensor, present: Tensor) -> Tensor:
    """φ̄_u `[M]` over the clips that have u; 1, which asks for nothing, where none has it."""
    n = present.sum(0)
    return torch.where(n > 0, (phi * present).sum(0) / n.clamp(min=1), torch.ones_like(phi[0]))
