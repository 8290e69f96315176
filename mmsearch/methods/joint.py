"""Plain joint training."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mmsearch.methods import Method, NoOp


@dataclasses.dataclass
class Joint(Method):
    """Plain joint training with one loss, L = L_mm: the baseline every other method is measured against."""

    name: ClassVar[str] = "joint"
    summary: ClassVar[str] = "plain joint training with one joint loss; the baseline"
    paper: ClassVar[str] = "the common baseline"
    formula: ClassVar[str] = "L = CE(z, y)"
    no_op: ClassVar[NoOp] = NoOp("joint")
