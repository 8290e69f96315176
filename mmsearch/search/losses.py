"""Losses: why a trial's worker went, and how often that may happen before it is the trial's fault."""

from __future__ import annotations

import math
import re

LIMITS = {"node": math.inf, "worker": 3, "memory": 3, "hang": 1}
"""How often a trial goes on after each kind of loss without having got further in between.

`node`: its machine was lost, preempted or drained, which says nothing of the trial. `worker`: its process died by
itself (killed, segmentation fault) while its machine lived. `memory`: Ray killed it because its machine ran out of
memory. `hang`: it was killed because nothing had been heard of it.
"""

_TEXTS = {
    "memory": r"running low on memory|memory monitor|OutOfMemoryError",
    "node": r"node has died|node (is|was) (dead|terminated|preempted|drained)|NodeDiedError|raylet died|"
    r"not schedulable|placement group .*removed|Unexpected termination of the node|health check",
}


def kind_of(text: str) -> str:
    """The kind of a loss, from what Ray says of it."""
    for kind, pattern in _TEXTS.items():
        if re.search(pattern, text, re.IGNORECASE):
            return kind
    return "worker"


def is_bug(text: str) -> bool:
    """Whether Ray speaks of an exception of our own rather than of a loss: nothing is gained by trying again."""
    return "raised in its creation task" in text or ("ray::" in text and "Traceback" in text)


def verdict(kind: str, times: int) -> str:
    """Why a trial that was lost so often has failed."""
    if kind == "memory":
        return (
            f"its worker was killed {times} times because the machine ran out of memory; "
            "let fewer run at once with --cpus-per-trial"
        )
    if kind == "hang":
        return f"it hung {times} times: nothing was heard of its worker, which was killed; see the log"
    return f"its worker was lost {times} times at the same point; see the log"
