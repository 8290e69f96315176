"""Every registered fusion at its paper setting, under the public conformance suite."""

from __future__ import annotations

import pytest

from mmsearch.fusion import FUSIONS
from mmsearch.testing import FusionConformance

OURS = [n for n in FUSIONS.names() if FUSIONS.get(n).__module__.startswith("mmsearch.")]


@pytest.mark.parametrize("name", OURS)
class TestConformance(FusionConformance):
    @pytest.fixture(autouse=True)
    def _fusion(self, name: str) -> None:
        self.fusion = {"name": name}
