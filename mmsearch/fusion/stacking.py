"""Stacked generalisation: a classifier of the modalities' opinions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._post_hoc import PostHocHead
from mmsearch.knobs import knob

UNSEEN = -20.0
"""Logit of a class that no held clip has, below those of the others."""


class StackingHead(PostHocHead):
    """z = V·[log p_1; …; log p_M] + a."""

    V: Tensor
    a: Tensor

    def __init__(self, widths: dict[str, int], n_classes: int, c: float) -> None:
        super().__init__(widths, n_classes)
        self.c = c
        self.register_buffer("V", torch.eye(n_classes).repeat(1, len(widths)))
        self.register_buffer("a", torch.zeros(n_classes))

    def fit_opinions(self, log_p: Tensor, here: Tensor, label: Tensor) -> None:
        """Logistic regression; where the held clips are of one class it stays with the product of opinions."""
        seen = label.unique().cpu()
        if len(seen) < 2:
            return
        regression = LogisticRegression(C=self.c, max_iter=2000)
        regression.fit(self._inputs(log_p, here).cpu().numpy(), label.cpu().numpy())
        V, a = torch.from_numpy(regression.coef_), torch.from_numpy(regression.intercept_)
        if len(seen) == 2:
            V, a = torch.cat([-V, V]) / 2, torch.cat([-a, a]) / 2
        self.V.zero_()
        self.a.fill_(UNSEEN)
        self.V[seen] = V.to(self.V)
        self.a[seen] = a.to(self.a)

    def combine_opinions(self, log_p: Tensor, here: Tensor) -> Tensor:
        """The regression's logits."""
        return self._inputs(log_p, here) @ self.V.to(log_p).T + self.a.to(log_p)

    def _inputs(self, log_p: Tensor, here: Tensor) -> Tensor:
        opinion = torch.where(here[..., None], log_p, -math.log(self.n_classes))
        return opinion.transpose(0, 1).flatten(1)


@dataclasses.dataclass
class Stacking(Fusion):
    """Trained as `sum`; then a logistic regression on the modalities' log-probabilities, fitted on held-out clips.

    A modality that a clip lacks says nothing: it counts as the uniform opinion, p_u = 1/C.

    Source: Stacked Generalization (Neural Networks 1992), with one level of classifiers, scikit-learn's logistic
    regression on [log p_1, …, log p_M], and held-out clips in place of cross-validation.
    """

    name: ClassVar[str] = "stacking"
    summary: ClassVar[str] = "trained as sum; logistic regression on the modalities' log-probabilities"
    paper: ClassVar[str] = "Stacked Generalization (Neural Networks 1992)"
    formula: ClassVar[str] = "z = V·[log p_1; …; log p_M] + a, V and a by logistic regression on held-out clips"
    decomposable: ClassVar[bool] = True
    post_hoc: ClassVar[bool] = True

    c: float = knob(1.0, "inverse strength of the L2 penalty", low=0.001, high=100.0, log=True)

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return StackingHead(widths, n_classes, self.c)
