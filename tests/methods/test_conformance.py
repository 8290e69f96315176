"""Every registered method at its paper setting, under the public conformance suite; variants have their own files."""

from __future__ import annotations

import pytest

from mmsearch.methods import METHODS
from mmsearch.testing import MethodConformance

OURS = [n for n in METHODS.names() if METHODS.get(n).__module__.startswith("mmsearch.")]


@pytest.mark.parametrize("name", OURS)
class TestConformance(MethodConformance):
    @pytest.fixture(autouse=True)
    def _method(self, name: str) -> None:
        self.method = {"name": name}


VARIANTS = [
    {"name": "ogm", "ge": False, "end": 0.6},
    {"name": "ogm", "ge": True, "end": 1.0, "apply_to": "lr"},
    {"name": "mla", "projection": False, "weighting": "equal"},
    {"name": "unimodal_teacher", "teacher": "ume"},
    {"name": "unimodal_teacher", "teacher": "umt", "weighting": "scale_free", "init": "teacher"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(x) for x in v.values()))
class TestVariants(MethodConformance):
    @pytest.fixture(autouse=True)
    def _method(self, variant: dict) -> None:
        self.method = variant
