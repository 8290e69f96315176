"""Opinions of one temperature a modality, averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmsearch.fusion import Fusion, Head
from mmsearch.fusion._post_hoc import PostHocHead, fit_weights, log_mean, log_product
from mmsearch.knobs import knob

HOTTEST = 20.0
"""T_u is fitted between its inverse and itself."""


class TemperatureHead(PostHocHead):
    """p_u = softmax(z_u / T_u), then their arithmetic or geometric mean."""

    T: Tensor

    def __init__(self, widths: dict[str, int], n_classes: int, average: str) -> None:
        super().__init__(widths, n_classes)
        self.average = average
        self.register_buffer("T", torch.ones(len(widths)))

    def fit_opinions(self, log_p: Tensor, here: Tensor, label: Tensor) -> None:
        """T_u = argmin NLL(softmax(z_u / T)) over the clips that have u; 1 where there are none."""
        for i, mine in enumerate(here):
            if mine.any():
                one = slice(i, i + 1)
                self.T[i] = 1 / fit_weights(log_p[one, mine], here[one, mine], label[mine], 1 / HOTTEST, HOTTEST).item()

    def combine_opinions(self, log_p: Tensor, here: Tensor) -> Tensor:
        """The mean of the probabilities or of their logarithms."""
        log_p = F.log_softmax(log_p / self.T.to(log_p)[:, None, None], dim=2)
        if self.average == "prob":
            return log_mean(log_p, here)
        return log_product(log_p, here) / here.sum(0)[:, None]


@dataclasses.dataclass
class Temperature(Fusion):
    """Trained as `sum`; then every modality's opinion is calibrated on held-out clips and the opinions are averaged.

    A modality that a clip lacks is left out of its mean. T_u minimises the negative log-likelihood of
    softmax(z_u / T_u) on the held clips that have u, between 1/20 and 20.

    Source: On Calibration of Modern Neural Networks (ICML 2017) for the temperature; the averages are the
    sum and the product rule of classifier combination.
    """

    name: ClassVar[str] = "temperature"
    summary: ClassVar[str] = "trained as sum; opinions calibrated by one temperature a modality, then averaged"
    paper: ClassVar[str] = "On Calibration of Modern Neural Networks (ICML 2017)"
    formula: ClassVar[str] = "p_u = softmax(z_u/T_u), T_u = argmin NLL on held-out clips;  p = mean_u p_u"
    decomposable: ClassVar[bool] = True
    post_hoc: ClassVar[bool] = True

    average: str = knob("prob", "mean of the probabilities, or of their logarithms", choices=("prob", "log_prob"))

    def build(
        self, widths: dict[str, int], n_classes: int, stages: Mapping[str, tuple[int, ...]] | None = None
    ) -> Head:
        """The head for features of these widths."""
        return TemperatureHead(widths, n_classes, self.average)
