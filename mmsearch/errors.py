"""The one exception base class: every mistake a user can make ends in one of these."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MMSearchError(Exception):
    """A mistake a person can mend.

    The command line prints the message alone, without a traceback, and exits with code 2.
    A message says what was wrong, where (file and line, row, knob) and what would be right.
    """


class StorageError(MMSearchError):
    """A disk is full, or a run's folder is gone or not writable; what was written before is whole."""


class Interrupted(MMSearchError):
    """A run was stopped by Ctrl-C or SIGTERM; its journal is whole and it can be resumed."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`"; did you mean 'ogm'?"` where a known name is close, else the list of known names.

    Args:
        name: what the user wrote.
        names: what exists.

    Returns:
        The end of a sentence, ready to be appended to a message.
    """
    known = sorted(str(n) for n in names)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
