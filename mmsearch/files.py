"""Files that are whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path

from mmsearch.errors import MMSearchError


def write_text(path: Path, text: str) -> None:
    """Writes a text under a temporary name and renames it, replacing an older file in one step.

    Raises:
        MMSearchError: the place cannot be written to.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as e:
        fresh.unlink(missing_ok=True)
        raise MMSearchError(f"{path}: cannot be written: {e.strerror or e}") from e
