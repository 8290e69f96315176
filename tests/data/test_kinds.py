"""Decoding of what is no film and no sound file: folders of pictures, flow, texts and arrays of numbers."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from PIL import Image

from mmsearch.data.decode import DecodeError, decode_clip, source_files
from mmsearch.errors import MMSearchError

FRAMES = {"frames": 4, "size": 16}


def one(kind: str, path, **settings) -> np.ndarray:
    return decode_clip({kind: (kind, str(path), settings)})[kind]


def folder(path, levels, name="{}.png"):
    path.mkdir(parents=True)
    for i, level in enumerate(levels):
        Image.new("L", (40, 32), level).save(path / name.format(i))
    return path


def test_a_folder_of_pictures_is_taken_evenly_and_in_natural_order(tmp_path):
    path = folder(tmp_path / "f", range(0, 240, 20), name="img_{}.png")
    (path / "Thumbs.db").write_bytes(b"no picture")
    (path / "._img_0.png").write_bytes(b"no picture")
    assert one("frames", path, **FRAMES).mean(axis=(1, 2, 3)).tolist() == [20, 80, 140, 200]
    assert one("frames", path, frames=24, size=16).shape == (24, 16, 16, 3)
    assert one("image", path, size=16).mean() == 120
    assert [file.name for file in source_files(path)][9:] == ["img_9.png", "img_10.png", "img_11.png"]
    arrays = decode_clip({"f": ("frames", str(path), FRAMES)}, start=5.0, end=6.0)
    assert len(arrays["f"]) == 4, "a segment is not for pictures"


def test_an_unreadable_picture_of_a_folder_is_named(tmp_path):
    path = folder(tmp_path / "f", range(4))
    (path / "2.png").write_bytes(b"no picture")
    with pytest.raises(DecodeError, match=r"^frames: 2\.png: no frame could be decoded"):
        one("frames", path, **FRAMES)
    (tmp_path / "none").mkdir()
    with pytest.raises(DecodeError, match="no pictures in the folder"):
        one("frames", tmp_path / "none", **FRAMES)


def test_stored_flow(tmp_path):
    for name, levels in (("u", [100, 128, 156, 255]), ("v", [128, 0, 128, 128])):
        folder(tmp_path / name / "clip", levels, name="frame{:05}.jpg")
    flow = one("flow", tmp_path / "{uv}" / "clip", **FRAMES)
    assert flow.shape == (4, 16, 16, 2) and flow.dtype == np.uint8
    assert np.abs(flow[..., 0].mean(axis=(1, 2)) - [100, 128, 156, 255]).max() <= 1
    assert np.abs(flow[..., 1].mean(axis=(1, 2)) - [128, 0, 128, 128]).max() <= 1
    files = source_files(tmp_path / "{uv}" / "clip")
    assert [file.parts[-3] for file in files] == ["u"] * 4 + ["v"] * 4
    (tmp_path / "v" / "clip" / "frame00003.jpg").unlink()
    with pytest.raises(DecodeError, match="4 pictures of u, but 3 of v"):
        one("flow", tmp_path / "{uv}" / "clip", **FRAMES)


def moving(path, steps: int = 8):
    """A pattern that goes 2 pixels to the right in every frame."""
    import av

    pattern = np.kron(np.random.default_rng(0).integers(30, 220, (16, 24)), np.ones((8, 8))).astype(np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=8, options={"preset": "ultrafast", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 112, 112, "yuv420p", 1
        for i in range(steps):
            picture = np.ascontiguousarray(np.roll(pattern, 2 * i, axis=1)[:112, 40:152])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([picture] * 3, -1), format="rgb24")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is not here: pip install 'mmsearch[flow]'")
def test_flow_of_a_film_is_computed(tmp_path):
    path = moving(tmp_path / "x.mp4")
    flow = one("flow", path, frames=4, size=112)
    assert flow.shape == (4, 112, 112, 2)
    right, down = (np.median(flow[:, 24:-24, 24:-24, i], axis=(1, 2)) for i in (0, 1))
    assert np.abs(right - (128 + 2 * 127 / 20)).max() < 4 and np.abs(down - 128).max() < 3
    assert np.array_equal(flow, one("flow", path, frames=4, size=112)), "the same each time"
    assert one("flow", path, frames=20, size=32).shape == (20, 32, 32, 2)
    with pytest.raises(DecodeError, match="a single frame"):
        one("flow", moving(tmp_path / "one.mp4", steps=1), frames=4, size=32)


def test_flow_without_opencv_says_how_to_get_it(tmp_path, monkeypatch):
    from mmsearch.data import _flow

    monkeypatch.setitem(sys.modules, "cv2", None)
    _flow.dense_inverse_search.cache_clear()
    with pytest.raises(MMSearchError, match=r"pip install 'mmsearch\[flow\]'"):
        one("flow", tmp_path / "x.mp4", **FRAMES)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"good evening", "good evening"),
        (b"\xef\xbb\xbfwith a mark", "with a mark"),
        ("äöü".encode(), "äöü"),
        (("é" * 100).encode(), "é" * 10),
        (("x" + "é" * 100).encode(), "x" + "é" * 9),
        (("日" * 100).encode(), "日" * 6),
    ],
)
def test_texts_are_utf8_and_cut_between_characters(tmp_path, content, text):
    (tmp_path / "t.txt").write_bytes(content)
    array = one("text", tmp_path / "t.txt", bytes=20)
    assert array.dtype == np.uint8 and array.tobytes().decode() == text
    given = content.decode("utf-8-sig")
    assert np.array_equal(decode_clip({"t": ("text", "", {"bytes": 20, "text": given, "inline": True})})["t"], array)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the text is empty"),
        (b" \n\t", "the text is empty"),
        ("é".encode("latin-1") + b"a" * 30, r"not UTF-8 text \(byte 0\)"),
        (b"ab\xc3", r"not UTF-8 text \(byte 2\)"),
        (b"a\0b", "not a text"),
    ],
)
def test_texts_that_are_none(tmp_path, content, said):
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(DecodeError, match=f"^text: {said}"):
        one("text", tmp_path / "t.txt", bytes=20)


def test_a_huge_text_is_not_read_whole(tmp_path):
    with (tmp_path / "t.txt").open("wb") as file:
        file.write(b"words " * 10)
        file.truncate(1 << 40)
    assert len(one("text", tmp_path / "t.txt", bytes=20)) == 20


def save(path, array):
    np.save(path, array, allow_pickle=True)
    return path


def test_series(tmp_path):
    table = np.arange(12, dtype=np.float64).reshape(6, 2)
    assert np.array_equal(one("series", save(tmp_path / "a.npy", table), steps=100), table)
    assert np.array_equal(one("series", tmp_path / "a.npy", steps=4), table[:4])
    assert one("series", save(tmp_path / "b.npy", np.arange(5)), steps=100).shape == (5, 1)
    many = save(tmp_path / "c.npy", np.asfortranarray(np.arange(24).reshape(2, 6, 2)))
    assert np.array_equal(one("series", many, steps=100, row=1), np.arange(24).reshape(2, 6, 2)[1])
    assert one("series", tmp_path / "a.npy", steps=100, row=1).tolist() == [[2], [3]]


def test_vectors_from_rows(tmp_path):
    path = save(tmp_path / "v.npy", np.arange(12, dtype=np.float16).reshape(4, 3))
    assert one("vector", path, row=2).tolist() == [6, 7, 8]
    with pytest.raises(DecodeError, match=r"no row 4 in an array of \[4, 3\]"):
        one("vector", path, row=4)


@pytest.mark.parametrize("kind", ["series", "vector"])
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 4)),
        np.zeros(0),
        np.array(["a"]),
        np.array([np.nan, 1.0]),
        np.array([np.inf]),
        np.array([1e300]),
        np.array([{}]),
        np.array([1j]),
        np.array(3.0),
        np.zeros(3, [("a", "f4")]),
    ],
)
def test_arrays_that_are_no_numbers(tmp_path, kind, array):
    with pytest.raises(DecodeError, match=f"^{kind}: "):
        one(kind, save(tmp_path / "v.npy", array), **{"steps": 9} if kind == "series" else {})


def test_an_array_that_lies_about_its_size(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(DecodeError, match=r"not an array in a \.npy file"):
        one("vector", tmp_path / "v.npy")


def test_pictures_from_arrays(tmp_path):
    grey = np.zeros((28, 28), np.uint8)
    grey[:, 14:] = 200
    for i, array in enumerate(
        (grey, grey.reshape(-1), grey[..., None], np.stack([grey] * 3, -1), grey / 255, grey > 100, grey.astype(int))
    ):
        picture = one("image", save(tmp_path / f"{i}.npy", array), size=28)
        bright = 255 if array.dtype == bool else 200
        assert picture.shape == (1, 28, 28, 3) and picture[0, :, :10].max() <= 1, i
        assert np.abs(picture[0, :, 18:].astype(int) - bright).max() <= 1, i
    many = save(tmp_path / "many.npy", np.stack([grey.reshape(-1)] * 3))
    assert one("image", many, size=28, row=2)[0, :, 18:].min() >= 199


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((8, 8), 255.0), "float64 values from 255 to 255; they must be 0 to 1"),
        (np.full((8, 8), 300), "int64 values from 300 to 300; they must be 0 to 255"),
        (np.full((8, 8), -1.0), "from -1 to -1"),
        (np.full((8, 8), np.nan), "from nan to nan"),
        (np.zeros(10), r"found \[10\]"),
        (np.zeros((3, 8, 8)), r"found \[3, 8, 8\]"),
    ],
)
def test_arrays_that_are_no_pictures(tmp_path, array, said):
    with pytest.raises(DecodeError, match=said):
        one("image", save(tmp_path / "a.npy", array), size=16)


def test_how_it_is_stored_does_not_change_what_is_decoded(tmp_path):
    path = folder(tmp_path / "f", range(0, 240, 20))
    raw = one("frames", path, **FRAMES)
    assert np.array_equal(one("frames", path, **FRAMES, codec="jpeg", quality=10), raw)
