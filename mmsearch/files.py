"""Files that are whole or not there at all."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from mmsearch.errors import MMSearchError

_STORAGE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO", "ESTALE", "ENOTCONN", "EREMOTEIO")
    if hasattr(errno, name)
}


def write_text(path: Path, text: str) -> None:
    """As :func:`write_bytes`, a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it, replacing an older one in one step.

    Raises:
        MMSearchError: the place cannot be written to.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as e:
        fresh.unlink(missing_ok=True)
        raise MMSearchError(f"{path}: cannot be written: {e.strerror or e}") from e


def storage_trouble(error: BaseException, folder: Path) -> str | None:
    """What is wrong with the storage where that is what an error comes from, else None.

    Args:
        error: with its causes; safetensors says the number of the system's error in its text alone.
        folder: one that must be there.
    """
    cause: BaseException | None = error
    while cause is not None:
        told = re.search(r"\(os error (\d+)\)", str(cause))
        number = cause.errno if isinstance(cause, OSError) else int(told[1]) if told else None
        where = getattr(cause, "filename", None) or folder
        if number in _STORAGE or (isinstance(cause, PermissionError) and Path(where).is_relative_to(folder)):
            return f"{where}: {os.strerror(number or errno.EACCES).lower()}"
        cause = cause.__cause__ or cause.__context__
    return None if folder.is_dir() else f"{folder}: the folder is gone"
