"""Decision fusion: fixed rules on the modalities' opinions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._post_hoc import PostHocHead, log_mean, log_product
from mmsearch.knobs import knob


def largest(log_p: Tensor, here: Tensor) -> Tensor:
    """log max_u p_u."""
    return log_p.masked_fill(~here[..., None], -torch.inf).amax(0)


def least(log_p: Tensor, here: Tensor) -> Tensor:
    """log min_u p_u."""
    return log_p.masked_fill(~here[..., None], torch.inf).amin(0)


def median(log_p: Tensor, here: Tensor) -> Tensor:
    """log median_u p_u; of an even number of modalities the mean of the two in the middle."""
    ordered = log_p.masked_fill(~here[..., None], torch.inf).sort(0).values
    n = here.sum(0)
    middle = [ordered.gather(0, i[None, :, None].expand(1, *log_p.shape[1:])) for i in ((n - 1) // 2, n // 2)]
    return torch.logsumexp(torch.cat(middle), 0) - math.log(2)


def votes(log_p: Tensor, here: Tensor) -> Tensor:
    """How many modalities put each class first, `[B, C]`."""
    first = F.one_hot(log_p.argmax(2), log_p.shape[2])
    return (first * here[..., None]).sum(0)


def borda_points(log_p: Tensor, here: Tensor) -> Tensor:
    """The sum of points, C-1 for a modality's first class down to 0 for its last, `[B, C]`."""
    points = log_p.argsort(2).argsort(2)
    return (points * here[..., None]).sum(0)


def counted(points: Tensor, log_p: Tensor, here: Tensor) -> Tensor:
    """Logits of points: their shares, with the mean probability as one more point to decide ties."""
    return torch.log(points + log_mean(log_p, here).exp())


Rule = Callable[[Tensor, Tensor], Tensor]
RULES: dict[str, Rule] = {
    "mean": log_mean,
    "product": log_product,
    "max": largest,
    "min": least,
    "median": median,
    "vote": lambda log_p, here: counted(votes(log_p, here), log_p, here),
    "borda": lambda log_p, here: counted(borda_points(log_p, here), log_p, here),
}
"""Log of the combined score `[B, C]` from log p_u `[M, B, C]` and who is here `[M, B]`."""


def cascade(log_p: Tensor, here: Tensor, order: Tensor, threshold: float) -> Tensor:
    """The opinion of the first modality in `order` `[M]` with max p_u > τ; of the last one here, if none is."""
    log_p, here = log_p[order], here[order]
    place = torch.arange(len(order), device=here.device)[:, None]
    sure = here & (log_p.amax(2).exp() > threshold)
    last = torch.where(here, place, 0).amax(0)
    chosen = torch.where(sure.any(0), sure.int().argmax(0), last)
    return log_p.gather(0, chosen[None, :, None].expand(1, *log_p.shape[1:]))[0]


class DecisionHead(PostHocHead):
    """A rule on the opinions p_u."""

    order: Tensor

    def __init__(self, widths: dict[str, int], n_classes: int, rule: str, threshold: float) -> None:
        super().__init__(widths, n_classes)
        self.rule, self.threshold = rule, threshold
        self.register_buffer("order", torch.arange(len(widths)))

    def fit_opinions(self, log_p: Tensor, here: Tensor, label: Tensor) -> None:
        """The order of the cascade: the modality with the best accuracy first."""
        right = ((log_p.argmax(2) == label) & here).sum(1) / here.sum(1).clamp(min=1)
        self.order.copy_(right.argsort(descending=True, stable=True))

    def combine_opinions(self, log_p: Tensor, here: Tensor) -> Tensor:
        """Logarithms of what the rule gives."""
        if self.rule == "cascade":
            return cascade(log_p, here, self.order, self.threshold)
        return RULES[self.rule](log_p, here)


@dataclasses.dataclass
class Decision(Fusion):
    """Trained as `sum`; then a fixed rule on the opinions p_u = softmax(z_u); nothing but an order is fitted.

    Mean, product, max, min and median act class by class and are renormalised. A vote, and the points of Borda
    (C-1 for a modality's first class, 0 for its last), fall to the mean probability in a tie. The cascade asks the
    modality that is best on held-out clips first and goes on to the next while max p_u ≤ τ; the last one decides.
    A modality that a clip lacks has no say.

    Source: On Combining Classifiers (TPAMI 1998) for mean, product, max, min, median and vote; Decision Combination
    in Multiple Classifier Systems (TPAMI 1994) for Borda (both recalled). The cascade's order and τ are our choice.
    """

    name: ClassVar[str] = "decision"
    summary: ClassVar[str] = "trained as sum; a fixed rule on the modalities' probabilities, such as mean or vote"
    paper: ClassVar[str] = "On Combining Classifiers (TPAMI 1998)"
    formula: ClassVar[str] = (
        "p ∝ mean | Π | max | min | median of p_u;  votes, Borda points (ties: mean p_u);  "
        "cascade: the first u with max p_u > τ"
    )
    decomposable: ClassVar[bool] = True
    post_hoc: ClassVar[bool] = True

    rule: str = knob("mean", "how opinions become one", choices=(*RULES, "cascade"))
    threshold: float = knob(0.9, "τ above which a modality is trusted", low=0.5, high=0.99, when={"rule": "cascade"})

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return DecisionHead(widths, n_classes, self.rule, self.threshold)
