"""What the post-hoc fusions share: trained as `sum`, then combined by opinions p_u = softmax(z_u)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from mmsearch.fusion.sum import SumHead


class PostHocHead(SumHead):
    """Trains as `sum`; in evaluation, once fitted to held-out clips, the modalities' opinions are combined.

    A subclass combines `log_p` `[M, B, C]` where `here` `[M, B]` (the modalities in the order of `widths`), and keeps
    what it fits in buffers, so that it is saved with the weights. A clip without any modality gets logits of zero.
    """

    fitted: Tensor

    def __init__(self, widths: dict[str, int], n_classes: int) -> None:
        super().__init__(widths, n_classes)
        self.n_classes = n_classes
        self.register_buffer("fitted", torch.tensor(False))

    def forward(self, features: dict[str, Tensor], tokens: dict[str, Tensor] | None = None) -> Tensor:
        """Joint logits `[B, C]`."""
        if self.training or not self.fitted:
            return super().forward(features)
        return self.combine(self.unimodal(features), {u: (h != 0).any(1) for u, h in features.items()})

    def fit(self, unimodal: dict[str, Tensor], label: Tensor, present: dict[str, Tensor]) -> None:
        """Fits the buffers in float64."""
        log_p, here = self._opinions({u: z.double() for u, z in unimodal.items()}, present)
        self.fit_opinions(log_p, here, label)
        self.fitted.fill_(True)

    def combine(self, unimodal: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """Joint logits `[B, C]`, in float32 or finer."""
        log_p, here = self._opinions(unimodal, present)
        nobody = ~here.any(0)
        with torch.autocast(log_p.device.type, enabled=False):
            z = self.combine_opinions(log_p, here | nobody)
        return torch.where(nobody[:, None], torch.zeros_like(z), z)

    def fit_opinions(self, log_p: Tensor, here: Tensor, label: Tensor) -> None:
        """Sets the buffers; by default there are none."""

    def combine_opinions(self, log_p: Tensor, here: Tensor) -> Tensor:
        """Joint logits `[B, C]`; every clip has a modality."""
        raise NotImplementedError

    def _opinions(self, unimodal: dict[str, Tensor], present: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        some = next(iter(unimodal.values()))
        nothing, nowhere = torch.zeros_like(some), torch.zeros(len(some), dtype=torch.bool, device=some.device)
        z = torch.stack([unimodal.get(u, nothing) for u in self.widths])
        here = torch.stack([present[u] if u in unimodal else nowhere for u in self.widths])
        return F.log_softmax(z if z.dtype == torch.float64 else z.float(), dim=2), here


def log_mean(log_p: Tensor, here: Tensor) -> Tensor:
    """log of the mean of p_u over the modalities that are here; `[M, B, C]` and `[M, B]` to `[B, C]`."""
    return torch.logsumexp(log_p.masked_fill(~here[..., None], -torch.inf), 0) - here.sum(0)[:, None].log()


def log_product(log_p: Tensor, here: Tensor, w: Tensor | None = None) -> Tensor:
    """Σ_u w_u·log p_u over the modalities that are here, w `[M]` (None: all 1); not normalised."""
    weights = here.to(log_p) if w is None else here * w.to(log_p)[:, None]
    return (weights[..., None] * log_p).sum(0)


def fit_weights(log_p: Tensor, here: Tensor, label: Tensor, low: float, high: float) -> Tensor:
    """w `[M]` in [low, high] with the least NLL of p ∝ Π_u p_u^{w_u}, a convex problem; it starts at 1/M."""
    M = len(log_p)
    lp = np.where(here[..., None].cpu(), log_p.cpu(), 0.0)
    y = label.cpu().numpy()
    rows = np.arange(len(y))

    def nll(w: np.ndarray) -> tuple[float, np.ndarray]:
        log_q = np.tensordot(w, lp, 1)
        log_q -= np.logaddexp.reduce(log_q, axis=1, keepdims=True)
        slope = (np.exp(log_q) * lp).sum(2) - lp[:, rows, y]
        return float(-log_q[rows, y].mean()), slope.mean(1)

    found = minimize(nll, np.full(M, 1 / M), jac=True, method="L-BFGS-B", bounds=[(low, high)] * M)
    return torch.from_numpy(found.x)
