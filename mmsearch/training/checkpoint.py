"""Checkpoints without pickle: one safetensors file with the rest as JSON in its header, replaced in one step."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmsearch.errors import MMSearchError

_FILE = "state.safetensors"


def save_state(path: Path, state: dict[str, Any], file: str = _FILE) -> None:
    """Writes a nested dict of tensors, numbers, texts and lists into a directory, replacing an older state.

    Args:
        path: the directory, made where it is missing.
        state: the tensors of `{"a": {"b": tensor}}` are named as in `a/b` in the file.
        file: its name.

    Raises:
        MMSearchError: the place cannot be written to.
    """
    tensors: dict[str, Tensor] = {}
    rest = _strip(state, tensors, "")
    path = Path(path)
    fresh = path / f".{file}.{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        save_file(tensors, fresh, metadata={"state": json.dumps(rest)})
        with fresh.open("rb") as f:
            os.fsync(f.fileno())
        fresh.replace(path / file)
    except (OSError, SafetensorError) as e:
        fresh.unlink(missing_ok=True)
        raise MMSearchError(f"{path}: cannot write ({getattr(e, 'strerror', None) or e})") from e


def load_state(path: Path, file: str = _FILE) -> dict[str, Any]:
    """The inverse of :func:`save_state`.

    Raises:
        MMSearchError: there is no such state, or it is damaged.
    """
    path = Path(path)
    try:
        with safe_open(path / file, framework="pt") as f:
            rest = json.loads(f.metadata()["state"])
            # A copy is aligned as torch's own tensors are: sums over unaligned memory differ in the last bit.
            tensors = {k: f.get_tensor(k).clone() for k in f.keys()}  # noqa: SIM118 - not a dict
    except Exception as e:
        raise MMSearchError(f"{path}: not a readable checkpoint ({e})") from e
    return _join(rest, tensors)


def has_state(path: Path) -> bool:
    """Whether a complete state lies there."""
    return (Path(path) / _FILE).is_file()


def _strip(value: Any, tensors: dict[str, Tensor], key: str) -> Any:
    if isinstance(value, Tensor):
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"$tensor": key}
    if isinstance(value, dict):
        return {"$dict": [[k, _strip(v, tensors, f"{key}/{k}".lstrip("/"))] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_strip(v, tensors, f"{key}/{i}".lstrip("/")) for i, v in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        return {k: _join(v, tensors) for k, v in value["$dict"]}
    if isinstance(value, list):
        return [_join(v, tensors) for v in value]
    return value
