"""The interface of a fusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn


class Head(nn.Module):
    """A fusion head: what the encoders say of any subset of its modalities to joint logits.

    A modality that is absent counts as a zero feature; a clip whose feature of a modality is zero lacks it.
    """

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]` from features `[B, D_u]` (and tokens `[B, N_u, D_u]`, where the fusion reads them)."""
        raise NotImplementedError

    def unimodal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """z_u `[B, C]` for the modalities given; over all they add up to the joint logits (decomposable fusions)."""
        raise NotImplementedError

    def mix(self, stage: int, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """Maps `[B, F_u, C_u, H_u, W_u]` after a stage of the encoders, exchanged (fusions that mix)."""
        raise NotImplementedError

    def fit(self, unimodal: dict[str, Tensor], label: Tensor, present: dict[str, Tensor]) -> None:
        """Fits what a post-hoc fusion has to unimodal logits `[N, C]` of clips held out of training."""
        raise NotImplementedError

    def combine(self, unimodal: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Joint logits `[B, C]` of a post-hoc fusion from unimodal ones; `present` is bool `[B]` per modality."""
        raise NotImplementedError


def filled(features: Mapping[str, Tensor], widths: Mapping[str, int]) -> dict[str, Tensor]:
    """The features `[B, D_u]` of all modalities of `widths`, in its order; one that is absent is zero."""
    some = next(iter(features.values()))
    return {u: features[u] if u in features else some.new_zeros(len(some), d) for u, d in widths.items()}


@dataclasses.dataclass
class Fusion:
    """Base of all fusions; fields made with :func:`mmsearch.knobs.knob` are its knobs.

    Attributes:
        name: in documents and on the command line.
        summary: one line of what it does.
        paper: title and year of the source.
        formula: joint logits z from features h_u.
        decomposable: whether z = Σ_u z_u with z_u a function of h_u alone (post hoc: in training). Where it is not,
            unimodal logits come from probe heads that are trained on detached features and touch nothing else.
        reads_tokens: whether the head reads tokens instead of pooled features.
        mixes: whether it exchanges the encoders' maps between their stages.
        post_hoc: whether it combines the unimodal logits of a trained model (trained as `sum`), fitted on clips
            held out of training.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str] = "the common form"
    formula: ClassVar[str]
    decomposable: ClassVar[bool] = False
    reads_tokens: ClassVar[bool] = False
    mixes: ClassVar[bool] = False
    post_hoc: ClassVar[bool] = False

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths D_u; `stages` are the channels of the encoders' stages."""
        raise NotImplementedError

    def refuses(self, modalities: Sequence[str], encoders: Mapping[str, Any]) -> str:
        """Why it cannot fuse these modalities under these encoders; empty where it can."""
        return ""
