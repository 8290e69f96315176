"""The model: one encoder a modality, a fusion head, and whatever a method adds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmsearch.batch import Batch, Modality, Output
from mmsearch.encoders import ENCODERS, Encoded
from mmsearch.fusion import FUSIONS, OWN
from mmsearch.training.document import seed_of


class Model(nn.Module):
    """Encoders φ_u, a fusion ψ, and extra modules of the method.

    Every part is initialised from its own seed, so that an encoder starts alike whatever stands beside it.

    Args:
        document: a resolved trial document.
        modalities: those the model reads, by name.
        n_classes: C.
    """

    def __init__(self, document: Mapping[str, Any], modalities: Mapping[str, Modality], n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.seed = document["seed"]
        self.encoders = nn.ModuleDict()
        for u, modality in modalities.items():
            torch.manual_seed(seed_of(self.seed, "encoder", u))
            self.encoders[u] = ENCODERS.create(document["encoders"][u]).build(modality)
        self.widths: dict[str, int] = {u: e.width for u, e in self.encoders.items()}  # type: ignore[misc]
        self.extra = nn.ModuleDict()
        torch.manual_seed(seed_of(self.seed, "head"))
        name = "concat" if document["fusion"]["name"] == OWN else document["fusion"]["name"]
        self.fusion: Any = FUSIONS.create({**document["fusion"], "name": name}).build(self.widths, n_classes)
        torch.manual_seed(seed_of(self.seed, "extra"))

    def add(self, name: str, module: nn.Module) -> None:
        """Adds a module of the method; its parameters are the optimiser group `name`."""
        self.extra[name] = module

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The optimiser groups: one a modality, `head`, and one for each added module."""
        parts = {**dict(self.encoders.items()), "head": self.fusion, **dict(self.extra.items())}
        return {k: [p for p in m.parameters() if p.requires_grad] for k, m in parts.items()}

    def encode(self, batch: Batch, mask: Collection[str] | None = None, detail: bool = False) -> dict[str, Encoded]:
        """Encodes the modalities of `mask` (None: all); where a clip lacks a modality its feature is zero."""
        out = {}
        for u, encoder in self.encoders.items():
            if mask is None or u in mask:
                e = encoder(batch.inputs[u], detail)
                e.pooled = torch.where(batch.present[u][:, None], e.pooled, torch.zeros_like(e.pooled))
                out[u] = e
        return out

    def fuse(self, features: dict[str, Tensor]) -> Output:
        """Joint and unimodal logits of features `[B, D_u]`."""
        return Output(self.fusion(features), features, self.fusion.unimodal(features))

    def forward(self, batch: Batch, mask: Collection[str] | None = None, detail: bool = False) -> Output:
        """Encoders and fusion; with `detail` the output also has tokens and stage maps."""
        encoded = self.encode(batch, mask, detail)
        out = self.fuse({u: e.pooled for u, e in encoded.items()})
        if detail:
            out.tokens = {u: e.tokens for u, e in encoded.items() if e.tokens is not None}
            out.maps = {u: e.maps for u, e in encoded.items()}
        return out
