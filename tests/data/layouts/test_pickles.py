"""Nothing in a pickle runs."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.data._pickles import load_pickle, load_torch
from mmsearch.errors import MMSearchError


class Planted:
    """Would make a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_numbers_texts_and_arrays_are_read(protocol, tmp_path):
    held = {
        "train": {"vision": np.arange(12, dtype="<f4").reshape(2, 3, 2), "id": np.array([[b"v1", b"0", b"1.5"]])},
        "list": [1, 2.5, "text", b"\xff\x00", None, True, (1, 2), {3}, complex(1, 2)],
        "ordered": OrderedDict(a=np.float32(0.5), b=np.int64(7)),
        "objects": np.array(["a", None, 3], dtype=object),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i2"),
        "words": np.array(["one", "three"]),
        "yes": np.array([True, False]),
        "none": np.zeros((0, 3), np.float16),
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(held, protocol=protocol))
    found = load_pickle(tmp_path / "x.pkl")
    assert found["list"] == held["list"]
    np.testing.assert_array_equal(found["train"]["vision"], held["train"]["vision"])
    np.testing.assert_array_equal(found["train"]["id"], held["train"]["id"])
    assert found["ordered"] == held["ordered"]
    assert found["objects"].tolist() == ["a", None, 3]
    for name in ("fortran", "big", "words", "yes", "none"):
        np.testing.assert_array_equal(found[name], held[name])
        assert found[name].dtype.newbyteorder("=") == held[name].dtype.newbyteorder("=")


def test_arrays_pickled_by_older_numpy_and_python_2_are_read(tmp_path):
    text = pickle.dumps(np.arange(3.0), protocol=2)
    (tmp_path / "old.pkl").write_bytes(text.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(load_pickle(tmp_path / "old.pkl"), np.arange(3.0))
    (tmp_path / "two.pkl").write_bytes(b"(dp0\nS'caf\\xe9'\np1\nI1\ns.")
    assert load_pickle(tmp_path / "two.pkl") == {"caf\xe9": 1}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_planted_pickle_does_not_run(protocol, tmp_path):
    trap = tmp_path / "trap"
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"train": [Planted(trap)]}, protocol=protocol))
    with pytest.raises(MMSearchError, match=r"x\.pkl: asks for posix\.mkdir, which is not read"):
        load_pickle(tmp_path / "x.pkl")
    assert not trap.exists()


def test_a_planted_torch_file_does_not_run(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"x": Planted(trap)}, tmp_path / "x.pt")
    with pytest.raises(MMSearchError, match=r"x\.pt: not a tensor file that can be read"):
        load_torch(tmp_path / "x.pt")
    assert not trap.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"c__builtin__\nexec\n.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"cnumpy\nload\n.",
        b"cnumpy\nndarray.tofile\n.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x07__dict__\x93.",
        b"\x80\x02\x82\x01.",
        b"P1\n.",
    ],
)
def test_no_other_name_is_looked_up(program, tmp_path):
    (tmp_path / "x.pkl").write_bytes(program)
    with pytest.raises(MMSearchError, match=r"x\.pkl"):
        load_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ((1, (3,), np.dtype("i8"), False, b"12"), "content does not fit its shape"),
        ((1, (1 << 60,), np.dtype("i8"), False, b""), "content does not fit its shape"),
        ((1, (2,), np.dtype("O"), False, [1]), "content does not fit its shape"),
        ((1, (1,), np.dtype("O"), False, b"12345678"), "content does not fit its shape"),
        ((1, (-1,), np.dtype("i8"), False, b""), r"an array of shape \(-1,\)"),
        ((1, (1,), np.dtype([("a", "O"), ("b", "i8")]), False, b"1" * 16), "has an array of type 'V16'"),
        ((1, (1,), "i8", False, b"12345678"), "an array without a type"),
    ],
)
def test_an_array_with_a_state_that_does_not_fit_is_refused(state, says, tmp_path):
    class Odd:
        def __reduce__(self):
            return (*np.zeros(1).__reduce__()[:2], state)

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Odd()))
    with pytest.raises(MMSearchError, match=says):
        load_pickle(tmp_path / "x.pkl")


def test_flags_in_the_state_of_a_type_are_not_believed(tmp_path):
    class Odd:
        def __reduce__(self):
            return np.dtype, ("i8", False, True), (3, "<", None, None, None, -1, -1, 63)

    class Array:
        def __reduce__(self):
            return (*np.zeros(1).__reduce__()[:2], (1, (2,), Odd(), False, bytes(range(16))))

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Array()))
    found = load_pickle(tmp_path / "x.pkl")
    assert found.dtype == np.int64 and not found.dtype.hasobject and np.dtype("i8").flags == 0


def test_a_pickle_changes_nothing_for_the_next_one(tmp_path):
    program = b"cnumpy\ndtype\n(N}(S'__call__'\nS'x'\nS'func'\nS'x'\nutb."
    (tmp_path / "x.pkl").write_bytes(program)
    with contextlib.suppress(MMSearchError):
        load_pickle(tmp_path / "x.pkl")
    (tmp_path / "y.pkl").write_bytes(pickle.dumps(np.arange(3)))
    assert load_pickle(tmp_path / "y.pkl").tolist() == [0, 1, 2]


def test_other_types_are_named(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(defaultdict(list)))
    with pytest.raises(MMSearchError, match=r"asks for collections\.defaultdict"):
        load_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps(list(range(50)))[:-9], b"\x80\x7f."])
def test_what_is_no_whole_pickle_is_refused(content, tmp_path):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(MMSearchError, match=r"x\.pkl: not a pickle that can be read"):
        load_pickle(tmp_path / "x.pkl")


WHOLE = pickle.dumps({"a": np.arange(6).reshape(2, 3), "b": [b"x", 1.5, "y"]}, protocol=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_pickle_is_read_or_refused(tmp_path_factory, changes):
    content = bytearray(WHOLE)
    for at, value in changes:
        content[at] = value
    path = tmp_path_factory.mktemp("pickle") / "x.pkl"
    path.write_bytes(content)
    try:
        load_pickle(path)
    except MMSearchError as error:
        assert str(error).startswith(str(path))


def test_a_tensor_becomes_an_array(tmp_path):
    torch.save(torch.arange(6).reshape(2, 3), tmp_path / "x.pt")
    assert load_torch(tmp_path / "x.pt").tolist() == [[0, 1, 2], [3, 4, 5]]
