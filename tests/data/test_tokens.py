"""Texts become tokens: the same everywhere, padded with 0, with errors for people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmsearch.data import tokens
from mmsearch.data.tokens import BYTES, WORDS, tokenise
from mmsearch.errors import MMSearchError


def test_words_are_lower_cased_and_punctuation_stands_alone() -> None:
    found = tokenise([b"A cat, a CAT.", "chat noir: été".encode(), b"", b" \n\t"], "words", 6)
    assert found.dtype == np.int64 and found.shape == (4, 6)
    a, cat, comma, again, cat_again, stop = found[0].tolist()
    assert (a, cat) == (again, cat_again) and len({a, cat, comma, stop}) == 4
    assert (found[1] > 0).tolist() == [True] * 4 + [False] * 2
    assert not found[2:].any(), "0 is no token"
    assert found[0].min() > 0 and found.max() < WORDS
    assert np.array_equal(tokenise([b"a cat and more"], "words", 2), found[:1, :2]), "the first ones"


def test_words_are_hashed_alike_in_every_process() -> None:
    code = "from mmsearch.data.tokens import tokenise; print(tokenise([b'never salted'], 'words', 3).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert json.loads(done.stdout) == tokenise([b"never salted"], "words", 3).tolist() == [[18980, 29396, 0]]


def test_bytes_are_shifted_by_one() -> None:
    found = tokenise([b"\x00\xffab", b""], "bytes", 5)
    assert found.tolist() == [[1, 256, 98, 99, 0], [0] * 5] and found.dtype == np.int64
    assert tokenise([b"abc"], "bytes", 2).tolist() == [[98, 99]]
    assert tokenise([bytes(range(256))], "bytes", 256).max() == BYTES - 1


@pytest.mark.parametrize("tokenizer", ["words", "bytes"])
def test_what_is_no_utf8_is_no_error(tokenizer: str) -> None:
    assert (tokenise([b"caf\xe9 \xff\xfe", b"\x80"], tokenizer, 4)[:, 0] > 0).all()
    assert tokenise([], tokenizer, 4).shape == (0, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer as Hugging Face stores it, with padding and special tokens of its own."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[PAD]": 0, "[CLS]": 1, "[UNK]": 2, "ein": 3, "wort": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 1)]
    )
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_folder_of_hugging_face_gives_its_ids_shifted_by_one(folder: Path) -> None:
    found = tokenise([b"ein wort", b"ein neues wort mehr"], str(folder), 4)
    assert found.tolist() == [[2, 4, 5, 0], [2, 4, 3, 5]]
    assert tokenise([b"ein wort"], str(folder), 2).tolist() == [[2, 4]]
    assert tokens._hugging_face(str(folder), 4) is tokens._hugging_face(str(folder), 4), "read once a process"


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MMSearchError, match="unknown tokenizer 'word'; did you mean 'words'"):
        tokenise([b"x"], "word", 3)
    with pytest.raises(MMSearchError, match=r"no tokenizer\.json there"):
        tokenise([b"x"], str(tmp_path), 3)
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MMSearchError, match=r"pip install 'mmsearch\[text\]'"):
        tokenise([b"x"], str(tmp_path), 3)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(MMSearchError, match=r"tokenizer\.json: not a readable tokenizer"):
        tokenise([b"x"], str(tmp_path), 3)
