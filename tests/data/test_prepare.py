"""The decode pipeline: what is decoded, what is not decoded again, and what is set aside."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mmsearch.data import Dataset, Store, clip_data, pipeline, prepare
from mmsearch.errors import MMSearchError

SMALL = "modalities:\n  sound: {rate: 8000}\n  frames: {frames: 2, size: 16}\n"


@pytest.fixture
def sixteen(clip_folder, tmp_path):
    def load(text=SMALL):
        path = tmp_path / "sixteen.yaml"
        path.write_text(f"name: sixteen\nmanifest: {clip_folder / 'manifest.csv'}\n{text}")
        return Dataset.load(path)

    return load


@pytest.fixture
def segments(make_clip, tmp_path):
    """Sixty clips that are segments of one file."""
    make_clip(tmp_path / "long.mp4", seconds=7)
    rows = [f"s{i},long.mp4,{'ab'[i % 2]},{i / 10},{i / 10 + 1}" for i in range(60)]
    (tmp_path / "segments.csv").write_text("\n".join(["clip_id,path,label,start,end", *rows]))
    path = tmp_path / "segments.yaml"
    path.write_text(f"name: segments\nmanifest: segments.csv\n{SMALL}")
    return path


def test_second_run_and_second_label_decode_nothing(sixteen, tmp_path, inline):
    seen = []
    first = prepare(sixteen(), tmp_path / "store", on_progress=lambda *a: seen.append(a), shard_clips=4)
    assert (first.stored, first.decoded, first.quarantined) == (16, 16, [])
    assert seen[0] == (0, 16) and seen[-1] == (16, 16) and seen == sorted(seen)
    tasks = len(inline)
    again = prepare(sixteen(), tmp_path / "store")
    other = prepare(sixteen(f"label: half\n{SMALL}"), tmp_path / "store")
    assert (again.decoded, other.decoded) == (0, 0) and len(inline) == tasks
    assert other.keys == first.keys
    assert Store.open(tmp_path / "store").decodes == 16
    changed = prepare(sixteen(SMALL.replace("size: 16", "size: 24")), tmp_path / "store")
    assert changed.decoded == 16, "other decode settings are other clips"


def test_content_counts_not_the_path(make_clip, dataset_file, tmp_path, inline):
    make_clip(tmp_path / "a.mp4", level=10)
    make_clip(tmp_path / "b.mp4", level=90)
    (tmp_path / "same.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    names = ["a.mp4", "b.mp4", "same.mp4", "b.mp4"]
    rows = [{"clip_id": i, "path": name, "label": i // 2} for i, name in enumerate(names)]
    prepared = prepare(Dataset.load(dataset_file(rows, SMALL)), tmp_path / "store")
    assert (prepared.stored, prepared.decoded) == (4, 2)
    make_clip(tmp_path / "b.mp4", level=120)
    assert prepare(Dataset.load(dataset_file(rows, SMALL)), tmp_path / "store").decoded == 1


def test_quarantine_is_counted_and_remembered(clip_folder, dataset_file, tmp_path, inline):
    rows = [{"clip_id": f"c{i:02}", "path": clip_folder / f"c{i:02}.mp4", "label": i % 2} for i in range(8)]
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    rows[3]["path"] = "bad.mp4"
    dataset = Dataset.load(dataset_file(rows, SMALL))
    prepared = prepare(dataset, tmp_path / "store")
    assert (prepared.stored, prepared.decoded) == (7, 7)
    [aside] = prepared.quarantined
    assert aside["clip_id"] == "c03" and aside["path"].endswith("bad.mp4") and "Invalid data" in aside["reason"]
    tasks = len(inline)
    assert prepare(dataset, tmp_path / "store").quarantined == prepared.quarantined
    assert len(inline) == tasks, "what cannot be decoded is not tried again"
    data = clip_data(dataset, tmp_path / "store", prepared)
    assert len(data) == 7 and "c03" not in data.clip_ids and data.quarantined == prepared.quarantined


def test_a_file_that_cannot_be_read_now_is_tried_again(clip_folder, dataset_file, tmp_path, inline):
    rows = [{"clip_id": i, "path": f"{i}.mp4", "label": i % 2} for i in range(4)]
    for i in range(4):
        (tmp_path / f"{i}.mp4").write_bytes((clip_folder / f"c{i:02}.mp4").read_bytes())
    dataset = Dataset.load(dataset_file(rows, SMALL))
    content = (tmp_path / "2.mp4").read_bytes()
    (tmp_path / "2.mp4").unlink()
    [aside] = prepare(dataset, tmp_path / "store").quarantined
    assert aside["clip_id"] == "2" and "No such file" in aside["reason"]
    (tmp_path / "2.mp4").write_bytes(content)
    assert prepare(dataset, tmp_path / "store").stored == 4


def test_mostly_undecodable_is_an_error(dataset_file, tmp_path, inline):
    files = ("0", "1", "2", "3")
    rows = [{"clip_id": name, "path": name, "label": int(name) % 2} for name in files]
    dataset = Dataset.load(dataset_file(rows, SMALL, files))
    with pytest.raises(MMSearchError, match=r"4 of 4 clips cannot be decoded \(0: sound: Invalid data"):
        prepare(dataset, tmp_path / "store")
    assert len(prepare(dataset, tmp_path / "store", max_quarantined=1.0).quarantined) == 4


def test_vectors_of_another_length_are_set_aside(dataset_file, tmp_path, inline):
    for i in range(5):
        np.save(tmp_path / f"{i}.npy", np.full(6 if i == 3 else 4, i))
    rows = [{"clip_id": i, "path": f"{i}.npy", "label": i % 2} for i in range(5)]
    dataset = Dataset.load(dataset_file(rows, "modalities:\n  v: {kind: vector}\n"))
    prepared = prepare(dataset, tmp_path / "store")
    assert [q["reason"] for q in prepared.quarantined] == ["v: 6 numbers, but most clips have 4"]
    assert clip_data(dataset, tmp_path / "store", prepared).modalities["v"].shape == (4,)


def test_unwritable_and_full_folders(sixteen, tmp_path, inline, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MMSearchError, match="cannot be written: Not a directory"):
        prepare(sixteen(), tmp_path / "file" / "store")
    assert (tmp_path / "file").read_text() == "in the way"

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pipeline.ShardWriter, "add", full)
    with pytest.raises(MMSearchError, match="cannot be written: No space left on device"):
        prepare(sixteen(), tmp_path / "store")
    monkeypatch.undo()
    assert not list((tmp_path / "store" / "shards").iterdir())


def python(code, *args, **env):
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ | env, check=False)


RUN = """
import json, sys
from mmsearch.data import Dataset, prepare
p = prepare(Dataset.load(sys.argv[1]), sys.argv[2], shard_clips=int(sys.argv[3]))
print(json.dumps([p.stored, p.decoded, p.quarantined, "ray" in sys.modules]))
"""

KILLED = """
import os, signal, sys
from mmsearch.data import Dataset, prepare
def kill(done, total):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(Dataset.load(sys.argv[1]), sys.argv[2], on_progress=kill, shard_clips=2)
"""


def test_kill_and_resume_with_ray(segments, tmp_path):
    """kill -9 in the middle loses the shards under way; the next run decodes what is missing and no more."""
    store = tmp_path / "store"
    killed = python(KILLED, segments, store)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = -1
    while kept != (kept := len(Store.open(store))):
        time.sleep(2)
    assert 0 < kept < 60
    resumed = python(RUN, segments, store, 8)
    assert json.loads(resumed.stdout) == [60, 60 - kept, [], True]
    assert resumed.stderr == "", "Ray makes no noise"
    assert Store.open(store).decodes == 60
    assert json.loads(python(RUN, segments, store, 8).stdout) == [60, 0, [], False], "nothing to decode: no Ray"


POISON = """
import os, sys
import mmsearch.data.decode as decode
original = decode.decode_clip
def decode_clip(sources, start=None, end=None):
    if start == 1.5:
        os.kill(os.getpid(), 9)
    return original(sources, start, end)
decode.decode_clip = decode_clip
"""


def test_a_clip_that_kills_its_decoder_stands_alone(segments, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(POISON)
    done = python(RUN, segments, tmp_path / "store", 4, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    stored, decoded, [aside], _ = json.loads(done.stdout.splitlines()[-1])
    assert (stored, decoded) == (59, 59)
    assert aside["clip_id"] == "s15" and "decoder died" in aside["reason"]
