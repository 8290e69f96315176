"""Multimodal transfer module: squeeze and excitation across modalities between the stages of the encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._base import filled
from mmsearch.fusion.sum import SumHead
from mmsearch.knobs import knob


class Transfer(nn.Module):
    """e = relu(W·[S_1; …; S_M] + b) of width 2·Σ_u d_u / ratio; gate_u = σ(W_u·e + b_u)."""

    def __init__(self, widths: dict[str, int], ratio: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        d = sum(widths.values())
        self.squeeze = nn.Linear(d, max(1, 2 * d // ratio))
        self.excite = nn.ModuleDict({u: nn.Linear(self.squeeze.out_features, d_u) for u, d_u in widths.items()})

    def forward(self, squeezed: dict[str, Tensor]) -> dict[str, Tensor]:
        """gate_u `[B, d_u]` from S_u `[B, d_u]`; a modality that is absent counts as zero."""
        S = filled(squeezed, self.widths)
        e = torch.relu(self.squeeze(torch.cat(list(S.values()), dim=1)))
        return {u: torch.sigmoid(excite(e)) for u, excite in self.excite.items()}


class MMTMHead(SumHead):
    """z = Σ_u (W_u·h_u + b_u) on features whose encoders have spoken to each other through :class:`Transfer`.

    Attributes:
        blocks: the modules, by the number of the stage that they stand behind.
        gates: per modality those of the last forward pass, one `[B, d_u]` a block, detached.
        fixed: per modality gates `[d_u]`, one a block, that take the place of its own.
    """

    def __init__(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]], blocks: int, ratio: int
    ) -> None:
        super().__init__(widths, n_classes)
        common = min(len(stages[u]) for u in widths)
        self.blocks = nn.ModuleDict(
            {str(s): Transfer({u: stages[u][s] for u in widths}, ratio) for s in range(max(0, common - blocks), common)}
        )
        self.gates: dict[str, list[Tensor]] = {}
        self.fixed: dict[str, list[Tensor]] = {}

    def mix(self, stage: int, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """F_u ← F_u ⊙ gate_u, with S_u the mean of F_u over frames and places."""
        if stage == 0:
            self.gates = {u: [] for u in maps}
        if str(stage) not in self.blocks:
            return maps
        gates = self.blocks[str(stage)]({u: x.mean((1, 3, 4)) for u, x in maps.items()})
        mixed = {}
        for u, x in maps.items():
            gate = self.fixed[u][len(self.gates[u])][None] if u in self.fixed else gates[u]
            self.gates[u].append(gates[u].detach())
            mixed[u] = x * gate[:, None, :, None, None].to(x.dtype)
        return mixed

    def bypass(self, u: str) -> list[nn.Parameter]:
        """Parameters through which the others reach modality u: the gates' own and the shared squeeze."""
        blocks: Iterable[Any] = self.blocks.values()
        return [p for b in blocks for m in (b.squeeze, b.excite[u]) for p in m.parameters()]


@dataclasses.dataclass
class MMTM(Fusion):
    """MMTM: after a stage of the encoders, gates computed from all modalities rescale every modality's channels.

    The blocks stand behind the last stages that all encoders have. The joint logits are the sum of one linear layer
    per modality on what comes out: z_u is a function of h_u alone, so the fusion counts as decomposable, but h_u has
    heard of the other modalities. A missing modality is squeezed to zero. One modality alone is squeeze and
    excitation; with more than two, the squeeze reads all of them.

    The gate is σ, as in the code of the greedy method; the module's own paper is recalled to double it.

    Source: MMTM: Multimodal Transfer Module for CNN Fusion (CVPR 2020), with the blocks and the ratio of
    Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural Networks (ICML 2022).
    """

    name: ClassVar[str] = "mmtm"
    summary: ClassVar[str] = "squeeze and excitation across modalities between the encoders' stages; then a sum"
    paper: ClassVar[str] = "MMTM: Multimodal Transfer Module for CNN Fusion (CVPR 2020)"
    formula: ClassVar[str] = (
        "S_u = GAP(F_u);  e = relu(W·[S_1; …; S_M] + b);  gate_u = σ(W_u·e + b_u);  F_u ← F_u ⊙ gate_u;  "
        "z = Σ_u (W_u·h_u + b_u)"
    )
    decomposable: ClassVar[bool] = True
    mixes: ClassVar[bool] = True

    blocks: int = knob(3, "how many of the encoders' last stages exchange", low=1, high=4)
    ratio: int = knob(4, "how much narrower the shared layer is than twice its input", low=1, high=16, log=True)

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths, and the modules for stages of these channels."""
        return MMTMHead(widths, n_classes, stages or {u: () for u in widths}, self.blocks, self.ratio)

    def refuses(self, modalities: Sequence[str], encoders: Mapping[str, Any]) -> str:
        """Every encoder must have stages."""
        for u in modalities:
            if encoders[u].stages == 0:
                return f"the encoder {encoders[u].name} of {u} has no stages between which modalities could exchange"
        return ""
