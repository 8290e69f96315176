"""The reader of lists as people have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.data.layouts._lists import numbered, plain_name, read_cells, read_classes, read_list, split_of
from mmsearch.errors import MMSearchError

LABELS = numbered(["cat", "dog", "owl"])
PLAIN = "a1,cat\nb2,dog\nc3,owl\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        "\ufeffname,label\r\n" + PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", " "),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "  "),
        "a1,0\nb2,1\nc3,2\n",
        "a1 10 0\nb2 10 1\nc3 10 2\n",
        "cat,a1\ndog,b2\nowl,c3\n",
        "label,name\n0,a1\n1,b2\n2,c3\n",
        '"a1","cat"\n"b2","dog"\n"c3","owl"\n',
        "a1,cat\n\n  \nb2,dog\nc3,owl",
        "/data/ks/a1.npy cat\n/data/ks/b2.npy dog\n/data/ks/c3.npy owl\n",
        " a1 , cat\n b2 , dog\n c3 , owl\n",
    ],
    ids=[
        "plain",
        "bom",
        "crlf",
        "bom-header-crlf",
        "space",
        "tab",
        "semicolon",
        "spaces",
        "numbers",
        "three",
        "columns-swapped",
        "header-swapped",
        "quotes",
        "blank",
        "paths",
        "padded",
    ],
)
def test_a_list_is_read_in_every_shape(text, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(text.encode())
    found = [(e.name, e.label, e.split) for e in read_list(path, LABELS, "train")]
    assert found == [("a1", "cat", "train"), ("b2", "dog", "train"), ("c3", "owl", "train")]


def test_an_entry_says_where_it_stands(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("name,label\n\na1,cat\n")
    assert [e.where for e in read_list(path, LABELS)] == [f"{path}:3"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a1,cat\nb2,dgo\n", "list.txt:2: label 'dgo' is not among the classes; did you mean 'dog'?"),
        (b"a1,dgo\nb2,cat\n", "list.txt:1: label 'dgo'"),
        (b"a1,cat\nb2\n", "list.txt:2: needs a name and a label, found 'b2' only"),
        (b"", "list.txt: the list is empty"),
        (b"\xef\xbb\xbf\r\n\r\n", "list.txt: the list is empty"),
        (b"a1,cat\nb\xe9,dog\n", "list.txt: not UTF-8 text (byte 8)"),
        (b"a\0b,cat\n", "list.txt: not a text file"),
        (b'a1,cat\n"b2,dog\nc3,owl\n', "list.txt:3: unexpected end of data"),
    ],
)
def test_a_mistake_is_named_with_its_line(content, says, tmp_path):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(MMSearchError) as caught:
        read_list(tmp_path / "list.txt", LABELS)
    assert says in str(caught.value)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(MMSearchError, match=r"no\.txt: the list cannot be read"):
        read_cells(tmp_path / "no.txt")


def test_commas_in_quotes_and_lines_in_quotes(tmp_path):
    (tmp_path / "t.csv").write_text('a,"one, two"\nb,"three\nfour"\n')
    assert read_cells(tmp_path / "t.csv") == [(1, ["a", "one, two"]), (3, ["b", "three\nfour"])]


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        entries = read_list(path, LABELS)
    except MMSearchError:
        return
    assert entries == [] or {e.label for e in entries} <= {"cat", "dog", "owl"}


def test_only_endings_of_media_are_taken_off_a_name():
    assert [plain_name(n) for n in ("a/b.npy", "v1.2", "x.y.wav", "c\\d.MP4")] == ["b", "v1.2", "x.y", "d"]


def test_splits_by_any_of_their_names():
    assert [split_of(t, "f:1") for t in ("Training", "valid", "TEST", "")] == ["train", "val", "test", ""]
    with pytest.raises(MMSearchError, match="f:1: unknown split 'tets'; did you mean 'test'"):
        split_of("tets", "f:1")


def test_a_class_list_with_and_without_numbers(tmp_path):
    path = tmp_path / "classInd.txt"
    path.write_bytes(b"1 ApplyEyeMakeup\r\n2 Archery\r\n")
    assert read_classes(path) == ["ApplyEyeMakeup", "Archery"]
    path.write_text("church bell\ncat\n")
    assert read_classes(path) == ["church bell", "cat"]
    path.write_text("cat\ncat\n")
    with pytest.raises(MMSearchError, match=r"classInd\.txt:2: class 'cat' is there twice"):
        read_classes(path)
