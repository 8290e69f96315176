"""Losses: why a trial's worker went, and how often that may happen before it is the trial's fault."""

from __future__ import annotations

import math
import re
import socket

import ray

LIMITS = {"node": math.inf, "worker": 3, "memory": 3, "hang": 1}
"""How often a trial goes on after each kind of loss without having got further in between.

`node`: its machine was lost, preempted or drained, which says nothing of the trial. `worker`: its process died by
itself (killed, segmentation fault) while its machine lived. `memory`: Ray killed it because its machine ran out of
memory. `hang`: it was killed because nothing had been heard of it.
"""

_PATIENCE_S = 2.0

_TEXTS = {
    "memory": r"running low on memory|memory monitor|OutOfMemoryError",
    "node": r"node has died|node (is|was) (dead|terminated|preempted|drained)|NodeDiedError|raylet died|"
    r"not schedulable|placement group .*removed|Unexpected termination of the node|health check",
}


def kind_of(text: str, node: str | None) -> str:
    """The kind of a loss.

    Args:
        text: what Ray says of it.
        node: the id of the machine on which the worker was last heard of. Ray notices the death of a machine seconds
            after that of its workers; until then it calls them unavailable, and the machine is asked itself.
    """
    for kind, pattern in _TEXTS.items():
        if re.search(pattern, text, re.IGNORECASE):
            return kind
    return "node" if "unavailable" in text and not (node and answers(node)) else "worker"


def answers(node: str) -> bool:
    """Whether a machine of the cluster can be reached."""
    for known in ray.nodes():
        if known["NodeID"] == node and known["Alive"]:
            try:
                socket.create_connection((known["NodeManagerAddress"], known["NodeManagerPort"]), _PATIENCE_S).close()
            except OSError:
                return False
            return True
    return False


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
