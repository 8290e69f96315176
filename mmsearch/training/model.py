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

PROBES = "probes"
"""The optimiser group of the probe heads of a fusion that is not decomposable."""


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
        stages: dict[str, tuple[int, ...]] = {u: e.stage_widths for u, e in self.encoders.items()}  # type: ignore[misc]
        self.extra = nn.ModuleDict()
        torch.manual_seed(seed_of(self.seed, "head"))
        name = "concat" if document["fusion"]["name"] == OWN else document["fusion"]["name"]
        self.kind = FUSIONS.create({**document["fusion"], "name": name})
        self.fusion: Any = self.kind.build(self.widths, n_classes, stages)
        self.probes = nn.ModuleDict()
        if not self.kind.decomposable:
            torch.manual_seed(seed_of(self.seed, PROBES))
            self.probes.update({u: nn.Linear(d, n_classes) for u, d in self.widths.items()})
        torch.manual_seed(seed_of(self.seed, "extra"))

    def add(self, name: str, module: nn.Module) -> None:
        """Adds a module of the method; its parameters are the optimiser group `name`."""
        self.extra[name] = module

    def parts(self) -> dict[str, nn.Module]:
        """The modules by optimiser group: one a modality, `head`, one for each added module, `probes`."""
        probes = {PROBES: self.probes} if len(self.probes) else {}
        return {**dict(self.encoders.items()), "head": self.fusion, **dict(self.extra.items()), **probes}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters by optimiser group."""
        return {k: [p for p in m.parameters() if p.requires_grad] for k, m in self.parts().items()}

    def size(self) -> int:
        """Parameters, those of the probes left out: no prediction needs them."""
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in self.probes.parameters())

    def encode(self, batch: Batch, mask: Collection[str] | None = None) -> dict[str, Encoded]:
        """Encodes the modalities of `mask` (None: all); where a clip lacks a modality its feature is zero."""
        seen = {u: batch.inputs[u] for u in self.encoders if mask is None or u in mask}
        if self.kind.mixes:
            encoded = self._mixed(seen, batch)
        else:
            tokens, draws = self.kind.reads_tokens, batch.draws
            encoded = {u: self.encoders[u](x, tokens, draws.get(u)) for u, x in seen.items()}
        for u, e in encoded.items():
            e.pooled = torch.where(batch.present[u][:, None], e.pooled, torch.zeros_like(e.pooled))
        return encoded

    def _mixed(self, seen: dict[str, Tensor], batch: Batch) -> dict[str, Encoded]:
        """The encoders in step, with the fusion between their stages; the map of a missing modality is zero."""
        present, draws = batch.present, batch.draws
        running = {u: self.encoders[u].staged(x, draws.get(u)) for u, x in seen.items()}  # type: ignore[operator]
        maps = {u: next(stages) for u, stages in running.items()}
        done: dict[str, Encoded] = {}
        stage = 0
        while running:
            here = {u: present[u].view(-1, *[1] * (x.ndim - 1)) for u, x in maps.items()}
            maps = self.fusion.mix(stage, {u: torch.where(here[u], x, torch.zeros_like(x)) for u, x in maps.items()})
            stage += 1
            for u, stages in list(running.items()):
                try:
                    maps[u] = stages.send(maps[u])
                except StopIteration as end:
                    done[u] = end.value
                    del running[u], maps[u]
        return {u: done[u] for u in seen}

    def fuse(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Output:
        """Joint and unimodal logits of features `[B, D_u]` and, where the fusion reads them, tokens."""
        logits = self.fusion(features, tokens) if self.kind.reads_tokens else self.fusion(features)
        if len(self.probes):
            unimodal = {u: self.probes[u](h.detach()) for u, h in features.items()}
        else:
            unimodal = self.fusion.unimodal(features)
        return Output(logits, features, unimodal, tokens or {})

    def forward(self, batch: Batch, mask: Collection[str] | None = None) -> Output:
        """Encoders and fusion."""
        encoded = self.encode(batch, mask)
        return self.fuse({u: e.pooled for u, e in encoded.items()}, tokens_of(encoded))


def tokens_of(encoded: Mapping[str, Encoded]) -> dict[str, Tensor]:
    """The tokens of the modalities that have them."""
    return {u: e.tokens for u, e in encoded.items() if e.tokens is not None}
