"""Search: spaces, journal, study, sources, stopping, the trainable and the runner.

Only `trial`, `cluster` and `runner` import Ray; the rest can be driven without it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsearch.search.trial import trainable

__all__ = ["trainable"]


def __getattr__(name: str) -> Any:
    if name == "trainable":
        from mmsearch.search.trial import trainable

        return trainable
    raise AttributeError(name)
