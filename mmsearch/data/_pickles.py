"""The only place that opens pickles and torch files: containers, numbers, text and numpy arrays, nothing else."""

from __future__ import annotations

import functools
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmsearch.errors import MMSearchError


def load_pickle(path: Path) -> Any:
    """What a pickle holds, of built-in containers, numbers, str, bytes, and numpy arrays, dtypes and scalars.

    No other name is ever looked up, so that no code of the file's choice runs. Pickles of Python 2 are read too.

    Raises:
        MMSearchError: the file names anything else, or is not a whole pickle.
    """
    try:
        with path.open("rb") as file:
            return _Restricted(file).load()
    except MMSearchError as error:
        raise MMSearchError(f"{path}: {error}") from None
    except OSError as error:
        raise MMSearchError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise MMSearchError(f"{path}: not a pickle that can be read: {_line(error)}") from None


def load_torch(path: Path) -> Any:
    """The tensor of a `.pt` file as an array, or what else it holds; read with `weights_only`.

    Raises:
        MMSearchError: it holds more than tensors and plain values, or is not a whole file.
    """
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        return held.detach().float().numpy() if isinstance(held, torch.Tensor) else held
    except OSError as error:
        raise MMSearchError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:
        raise MMSearchError(f"{path}: not a tensor file that can be read: {_line(error)}") from None


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _Restricted(pickle.Unpickler):
    """Knows the names below and no others.

    Arrays and their types are made here from checked parts: numpy believes whatever state a pickle gives it.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        # A pickle may set attributes of what it is given: ours are wrapped anew for every file.
        self._known = {name: functools.partial(f) for name, f in _MADE.items()}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _BUILT_IN:
            return _BUILT_IN[module, name]
        if (module, name) in self._known:
            return self._known[module, name]
        raise MMSearchError(
            f"asks for {module}.{name}, which is not read: only containers, numbers, text and numpy arrays are"
        )


class _Type:
    """A numpy type of numbers, text or objects: from its code, and the byte order in its state."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(?:[biufc?]\d{0,2}|[SU]\d{1,9}|O8?)", code):
            raise MMSearchError(f"has an array of type {code!r}; only numbers, text and objects are read")
        self.plain = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subarray, names, fields, *_ = state
        if subarray or names or fields:
            raise MMSearchError("has a structured array, which is not read")
        if order in ("<", ">"):
            self.plain = self.plain.newbyteorder(order)


class _Array(np.ndarray):
    """An array that checks its state before it takes it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # type: ignore[override]
        version, shape, kind, fortran, data = state
        plain, size = _plain(kind), math.prod(_shape(shape))
        data = data.encode("latin1") if isinstance(data, str) else data
        wanted, held = (list, size) if plain.hasobject else (bytes, size * plain.itemsize)
        if not isinstance(data, wanted) or len(data) != held:
            raise MMSearchError("has an array whose content does not fit its shape")
        super().__setstate__((version, shape, plain, bool(fortran), data))  # type: ignore[arg-type]


def _plain(kind: Any) -> np.dtype:
    if not isinstance(kind, _Type):
        raise MMSearchError("has an array without a type")
    return kind.plain


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise MMSearchError(f"has an array of shape {shape!r}")
    return shape


def _reconstruct(*_: Any) -> np.ndarray:
    """An array to be; its state follows."""
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _from_buffer(data: bytes, kind: Any, shape: Any, order: str) -> np.ndarray:
    """An array from its bytes, as protocol 5 writes it."""
    return np.frombuffer(data, _plain(kind)).reshape(_shape(shape), order="F" if order == "F" else "C")


def _scalar(kind: Any, data: Any = b"") -> Any:
    """A numpy number from its bytes."""
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, _plain(kind), count=1)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as protocols 0 to 2 of Python 3 write them."""
    return text.encode("latin1")


_CORES = ("numpy.core", "numpy._core")
_BUILT_IN: dict[tuple[str, str], Any] = {
    **{(m, t.__name__): t for m in ("builtins", "__builtin__") for t in (set, frozenset, complex, bytes, bytearray)},
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): "numpy.ndarray",
}
_MADE: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _CORES},
}
