"""Every registered method, under the public conformance suite."""

from __future__ import annotations

import pytest

from mmsearch.methods import METHODS
from mmsearch.testing import MethodConformance

VARIANTS = [
    {"name": "joint"},
    {"name": "unimodal"},
    {"name": "uniform"},
    {"name": "ogm", "ge": False, "end": 0.6},
    {"name": "ogm", "ge": True, "end": 1.0},
    {"name": "mla"},
    {"name": "mla", "projection": False, "weighting": "equal"},
    {"name": "unimodal_teacher", "teacher": "ume"},
    {"name": "unimodal_teacher", "teacher": "umt"},
    {"name": "unimodal_teacher", "teacher": "umt", "weighting": "scale_free", "init": "teacher"},
]


def test_every_registered_method_is_under_test() -> None:
    ours = {n for n in METHODS.names() if METHODS.get(n).__module__.startswith("mmsearch.")}
    assert {v["name"] for v in VARIANTS} == ours


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(x) for x in v.values()))
class TestConformance(MethodConformance):
    @pytest.fixture(autouse=True)
    def _variant(self, variant: dict) -> None:
        self.method = variant
