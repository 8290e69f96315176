"""mmsearch: which balancing method and which fusion, with which knobs, for your audio-visual dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsearch.trained import Clip, load

__version__ = "0.1.0"
__all__ = ["Clip", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mmsearch import trained

        return getattr(trained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
