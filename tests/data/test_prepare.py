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
    dataset = Dataset.load(dataset_file(rows, SMALL), allow_absolute=True)
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


def test_damaged_shards_are_decoded_again(sixteen, tmp_path, inline):
    folder = tmp_path / "store"
    first = prepare(sixteen(), folder, shard_clips=4)
    index, cut, gone, *_ = Store.open(folder).shards
    (folder / "shards" / index.index).write_bytes(b"ARROW1 no more")
    (folder / "shards" / cut.parts["sound"].file).write_bytes(b"short")
    (folder / "shards" / gone.parts["frames"].file).unlink()
    again = prepare(sixteen(), folder)
    assert (again.stored, again.decoded, again.keys) == (16, 6, first.keys)
    store = Store.open(folder)
    assert len(store.damaged) == 3 and len(store) == 16
    assert clip_data(sixteen(), folder, again).modalities["frames"].shape == (2, 16, 16, 3)


def test_frames_kept_as_jpeg_are_other_clips(sixteen, tmp_path, inline):
    folder, size = tmp_path / "store", "{frames: 2, size: 16"
    raw = prepare(sixteen(), folder)
    explicit = prepare(sixteen(SMALL.replace(size, f"{size}, codec: raw, quality: 50")), folder)
    assert explicit.decoded == 0 and explicit.keys == raw.keys
    jpeg = prepare(sixteen(SMALL.replace(size, f"{size}, codec: jpeg, quality: 95")), folder)
    assert jpeg.decoded == 16 and not set(jpeg.keys) & set(raw.keys)
    store = Store.open(folder)
    near, exact = store.column(jpeg.keys, "frames"), store.column(raw.keys, "frames")
    for i in range(16):
        assert np.abs(near.read(i).astype(int) - exact.read(i)).max() <= 6


def test_a_mistake_of_the_machine_stops_the_decode(sixteen, tmp_path, inline, monkeypatch):
    def lacking(*args):
        raise MMSearchError("flow is computed with OpenCV, which is not here")

    monkeypatch.setattr(pipeline.decode, "decode_clip", lacking)
    with pytest.raises(MMSearchError, match="OpenCV, which is not here"):
        prepare(sixteen(), tmp_path / "store")


def test_a_machine_that_does_not_reach_the_folder_says_so(tmp_path):
    [row] = pipeline.decode_shard([], str(tmp_path / "elsewhere"), {"sound": ("sound", None)})
    assert "does not reach this folder" in row["error"] and not (tmp_path / "elsewhere").exists()


def test_what_a_lost_machine_had_runs_again(monkeypatch):
    """Machines lost in a round use up none of the tries of a clip; without a loss what is left is left."""
    machines, rounds = [{"a", "b"}, {"a"}, {"a"}, {"a"}], []
    monkeypatch.setattr(pipeline, "_machines", lambda: machines.pop(0))

    def once(items, *args):
        rounds.append([item["key"] for item in items])
        yield [{"key": items[0]["key"], "reason": "", "error": ""}]

    monkeypatch.setattr(pipeline, "_round", once)
    rows = [row["key"] for rows in pipeline._run([{"key": k} for k in "xyz"], 1, "", {}) for row in rows]
    assert rounds == [["x", "y", "z"], ["y", "z"]] and rows == ["x", "y"]


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


FULL = """
import sys
from mmsearch.data import Dataset, Store, pipeline, prepare
from mmsearch.errors import MMSearchError
exec(sys.argv[3])
try:
    prepare(Dataset.load(sys.argv[1]), sys.argv[2], shard_clips=4)
except MMSearchError as error:
    print(error)
store = Store.open(sys.argv[2])
print(len(store), len(store.damaged), [p.name for p in (store.place.folder / "shards").glob(".*")])
"""

INLINE = """
import contextlib
def run(items, shard_clips, address, modalities):
    for i in range(0, len(items), shard_clips):
        yield pipeline.decode_shard(items[i : i + shard_clips], address, modalities)
pipeline._run, pipeline._ray = run, lambda: contextlib.nullcontext(1)
"""

ROOM = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))"


def check_full(out, reason):
    said, left = out.splitlines()
    stored, rest = left.split(" ", 1)
    assert said.endswith(f"the clip store cannot be written: {reason}; choose another place or make room")
    assert int(stored) < 60 and rest == "0 []", "nothing half-written is there"


def test_no_room_for_a_file(segments, tmp_path):
    done = python(FULL, segments, tmp_path / "store", INLINE + ROOM)
    assert done.returncode == 0, done.stderr
    check_full(done.stdout, "File too large")


def test_a_disk_that_is_full(segments, tmp_path):
    """A real file system of a megabyte, in a mount namespace of its own."""
    store = tmp_path / "small"
    store.mkdir()
    mounted = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=1m none {store} && exec "$@"', "sh"]
    try:
        subprocess.run([*mounted, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody mount a small file system")
    command = [*mounted, sys.executable, "-c", FULL, str(segments), str(store), INLINE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    check_full(done.stdout, "No space left on device")
    assert int(done.stdout.splitlines()[1].split()[0]) > 0, "the shards before are kept"
