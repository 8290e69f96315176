"""The optional decoder torchcodec gives what PyAV gives."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchcodec") is None,
    reason="torchcodec is not here: pip install 'mmsearch[torchcodec]'",
)

COMPARE = """
import sys
import numpy as np
from mmsearch.data.decode import DecodeError, decode_clip
from mmsearch.errors import MMSearchError

def both(path, start=None, end=None):
    for decoder in ("pyav", "torchcodec"):
        yield decode_clip({
            "sound": ("sound", path, {"rate": 16000, "seconds": 10.0, "decoder": decoder}),
            "frames": ("frames", path, {"frames": 3, "size": 24, "decoder": decoder}),
        }, start, end)

folder = sys.argv[1]
try:
    for name, start, end in [("x.mp4", None, None), ("x.mp4", 1.0, 2.5), ("silent.mp4", None, None)]:
        one, other = both(f"{folder}/{name}", start, end)
        assert one.keys() == other.keys(), (name, one.keys(), other.keys())
        for modality in one:
            a, b = one[modality].astype(int), other[modality].astype(int)
            n = min(len(a), len(b))
            assert abs(len(a) - len(b)) <= 1100, (name, modality, a.shape, b.shape)
            inside = slice(1500, n - 1500) if modality == "sound" else slice(None)
            off = np.abs(a[:n] - b[:n])[inside].max()
            assert off <= (400 if modality == "sound" else 8), (name, modality, off)
    for name in ("text.mp4", "cut.mp4"):
        try:
            decode_clip({"frames": ("frames", f"{folder}/{name}", {"frames": 2, "size": 16, "decoder": "torchcodec"})})
            raise AssertionError(name)
        except DecodeError as error:
            print(name, error)
except MMSearchError as error:
    print("SKIP", error)
"""


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """TorchCodec looks for FFmpeg's libraries by their plain names; those that PyAV brings along have others."""
    bundled = Path(av.__file__).parent.parent / "av.libs"
    links = tmp_path / "ffmpeg"
    links.mkdir()
    for library in bundled.glob("lib*.so*") if bundled.is_dir() else ():
        plain = re.match(r"(lib\w+)-[0-9a-f]{8}(\.so\.\d+)", library.name)
        if plain and not (links / (plain[1] + plain[2])).exists():
            (links / (plain[1] + plain[2])).symlink_to(library)
    path = os.pathsep.join(filter(None, [os.environ.get("LD_LIBRARY_PATH"), str(links), str(bundled)]))
    return os.environ | {"LD_LIBRARY_PATH": path}


def test_torchcodec_gives_what_pyav_gives(make_clip, tmp_path, environment):
    make_clip(tmp_path / "x.mp4", level=20, seconds=4)
    make_clip(tmp_path / "silent.mp4", sound=False)
    (tmp_path / "text.mp4").write_bytes(b"not a film at all")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "x.mp4").read_bytes()[:2000])
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    if done.stdout.startswith("SKIP"):
        pytest.skip(done.stdout.strip().removeprefix("SKIP "))
    assert done.returncode == 0, done.stderr


def test_no_ffmpeg_is_said_in_one_line(make_clip, tmp_path):
    make_clip(tmp_path / "x.mp4")
    code = (
        "import sys\nfrom mmsearch.data.decode import decode_clip\n"
        "import torchcodec._internally_replaced_utils as utils\n"
        "from mmsearch.errors import MMSearchError\n"
        "settings = {'frames': 1, 'size': 16, 'decoder': 'torchcodec'}\n"
        "try:\n    decode_clip({'f': ('frames', sys.argv[1], settings)})\n"
        "except MMSearchError as error:\n    print(error)\n"
        "else:\n    print('FOUND')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.mp4")], capture_output=True, text=True, check=False
    )
    if done.stdout.startswith("FOUND"):
        pytest.skip("FFmpeg's libraries are on this machine")
    assert done.stdout.startswith("torchcodec finds no FFmpeg") and done.stdout.count("\n") == 1, done.stderr
