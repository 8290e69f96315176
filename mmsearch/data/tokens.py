"""From the bytes of a text to tokens: nothing is fitted to the data, nothing is downloaded."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.errors import MMSearchError, nearest

WORDS = 2**15
"""Tokens of `words`, padding included."""

BYTES = 2**8 + 1
"""Tokens of `bytes`, padding included."""

_WORD = re.compile(r"\w+|[^\w\s]")


def tokenise(texts: Sequence[bytes], tokenizer: str, length: int) -> np.ndarray:
    """The first tokens of every text, int64 `[B, length]`; 0 stands behind the last one.

    Args:
        texts: UTF-8; what is none counts as the replacement character.
        tokenizer: `words` (lower-cased words and punctuation marks, each hashed to one of :data:`WORDS` - 1 numbers),
            `bytes` (byte + 1), or a folder with the `tokenizer.json` of a Hugging Face model (its id + 1, special
            tokens included).
        length: L.

    Raises:
        MMSearchError: no such tokenizer or folder, a `tokenizer.json` that cannot be read, or the library
            `tokenizers` is not there to read it.
    """
    if tokenizer == "words":
        found: list[Any] = [_words(text, length) for text in texts]
    elif tokenizer == "bytes":
        found = [np.frombuffer(text, np.uint8, min(len(text), length)).astype(np.int64) + 1 for text in texts]
    else:
        encoded = _hugging_face(tokenizer, length).encode_batch([text.decode(errors="replace") for text in texts])
        found = [np.array(e.ids, np.int64) + 1 for e in encoded]
    tokens = np.zeros((len(texts), length), np.int64)
    for row, ids in zip(tokens, found, strict=True):
        row[: len(ids)] = ids
    return tokens


def _words(text: bytes, length: int) -> list[int]:
    ids: list[int] = []
    for word in _WORD.finditer(text.decode(errors="replace").lower()):
        if len(ids) == length:
            break
        ids.append(_bucket(word.group()))
    return ids


@functools.lru_cache(maxsize=2**16)
def _bucket(word: str) -> int:
    digest = hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (WORDS - 1) + 1


@functools.lru_cache(maxsize=8)
def _hugging_face(folder: str, length: int) -> Any:
    """The tokenizer of a folder, cutting at `length` tokens."""
    file = Path(folder) / "tokenizer.json"
    if not Path(folder).is_dir():
        raise MMSearchError(
            f"unknown tokenizer {folder!r}{nearest(folder, ('words', 'bytes'))} (or a folder with tokenizer.json)"
        )
    if not file.is_file():
        raise MMSearchError(f"{folder}: no tokenizer.json there; save_pretrained of a fast tokenizer writes one")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MMSearchError(f"{file}: needs the library tokenizers; pip install 'mmsearch[text]'") from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise MMSearchError(f"{file}: not a readable tokenizer ({error})") from None
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer
