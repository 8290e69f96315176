"""The clip store: shards are visible as a whole or not at all, and what is damaged is not read."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmsearch.data import shards
from mmsearch.data.places import Place
from mmsearch.data.store import ShardWriter, Store, clip_key, content_hashes, default_store
from mmsearch.data.upkeep import files_of_shards, leftovers, remove, unneeded, verify
from mmsearch.errors import MMSearchError

LAYOUT = {"sound": ("<i2", 1), "frames": ("|u1", 4)}
QUIET = lambda done, total: None  # noqa: E731


def write(folder, clips, jpeg=None, **kwargs):
    with ShardWriter(folder, LAYOUT, jpeg) as writer:
        for key, arrays in clips.items():
            writer.add(key, arrays, **kwargs)
        writer.commit()


def arrays(i, length=5):
    return {"sound": np.arange(length, dtype=np.int16) + i, "frames": np.full((2, 3, 3, 3), i, np.uint8)}


def smooth(clip, channels=3):
    """Four frames of one colour gradient each, which JPEG hardly changes."""
    base = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8) + np.uint8(10 * clip)
    return np.stack([np.stack([base + 5 * c + 20 * f for c in range(channels)], -1) for f in range(4)]).astype(np.uint8)


def index_of(folder):
    return next((Path(folder) / "shards").glob("*.arrow"))


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path, {"a": arrays(1), "b": {"sound": arrays(2, 7)["sound"]}})
    write(tmp_path, {"c": arrays(3, 2)})
    store = Store.open(tmp_path)
    assert len(store) == 3 and "a" in store and "z" not in store
    assert store.read("a", "sound").tolist() == [1, 2, 3, 4, 5]
    assert store.read("c", "frames").shape == (2, 3, 3, 3)
    assert store.read("b", "frames") is None
    assert not store.read("a", "sound").flags.writeable
    column = store.column(["c", "b", "a"], "sound")
    assert [len(column.read(i)) for i in range(3)] == [2, 7, 5]
    assert column.take(1, [6, 0]).tolist() == [8, 2]
    assert column.shard_of[1] == column.shard_of[2] != column.shard_of[0]
    assert column.shape.tolist() == [[2], [7], [5]] and column.warm() and column.warm([0])
    assert store.column(["a", "b"], "frames").present.tolist() == [True, False]
    assert store.column(["a"], "touch").present.tolist() == [False]
    assert store.warm(["a", "c"], ["sound", "frames"])


def test_a_text_without_a_letter_and_other_empty_arrays(tmp_path):
    with ShardWriter(tmp_path, {"text": ("|u1", 1), "series": ("<f4", 2)}) as writer:
        writer.add("a", {"text": np.zeros(0, np.uint8), "series": np.zeros((0, 3), np.float32)})
        writer.commit()
    store = Store.open(tmp_path)
    assert store.read("a", "text").shape == (0,) and store.read("a", "series").shape == (0, 3)


def test_frames_as_jpeg(tmp_path):
    clips = {f"k{i}": {"frames": smooth(i)} for i in range(3)} | {"mute": {}}
    write(tmp_path, clips, jpeg={"frames": 95})
    store = Store.open(tmp_path)
    column = store.column(list(clips), "frames")
    assert column.present.tolist() == [True, True, True, False] and column.shape[0].tolist() == [4, 32, 48, 3]
    assert store.shards[0].parts["frames"].bytes < sum(c["frames"].nbytes for c in clips.values() if c)
    for i in range(3):
        whole = column.read(i)
        assert np.abs(whole.astype(int) - smooth(i)).max() <= 4
        np.testing.assert_array_equal(column.take(i, np.array([3, 1, 1])), whole[[3, 1, 1]])


def test_jpeg_of_what_has_no_colours(tmp_path):
    flow = smooth(1, channels=2)
    with ShardWriter(tmp_path, {"flow": ("|u1", 4)}, {"flow": 95}) as writer:
        writer.add("a", {"flow": flow})
        writer.commit()
    read = Store.open(tmp_path).column(["a"], "flow").take(0, [2, 0])
    assert read.shape == (2, 32, 48, 2) and np.abs(read.astype(int) - flow[[2, 0]]).max() <= 12


def test_set_aside_is_remembered_and_not_stored(tmp_path):
    write(tmp_path, {"a": {}}, reason="broken")
    store = Store.open(tmp_path)
    assert "a" in store and len(store) == 0 and store.reason("a") == "broken" and store.set_aside == {"a": "broken"}
    with pytest.raises(MMSearchError, match="1 of 1 clips are not in this store"):
        store.column(["a"], "sound")


def test_unfinished_shards_do_not_exist(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, LAYOUT) as writer:
        writer.add("a", arrays(1))
        raise KeyboardInterrupt
    assert list((tmp_path / "shards").iterdir()) == []
    killed = ShardWriter(tmp_path, LAYOUT)
    killed.add("a", arrays(1))
    assert len(Store.open(tmp_path)) == 0
    write(tmp_path, {"b": arrays(2)})
    place = Place(tmp_path)
    assert leftovers(place) == {}, "it may be under way"
    found = leftovers(place, age=-1)
    assert len(found) == 2
    remove(place, found)
    assert leftovers(place, age=-1) == {} and Store.open(tmp_path).read("b", "sound") is not None


def test_a_store_grows_under_its_readers(tmp_path):
    store = Store.open(tmp_path)
    write(tmp_path, {"a": arrays(1)})
    assert "a" not in store
    store.refresh()
    assert "a" in store and store.decodes == 1


def test_a_shard_that_misses_bytes_counts_as_not_stored(tmp_path):
    write(tmp_path, {"a": arrays(1)})
    write(tmp_path, {"b": arrays(2)})
    open_before = Store.open(tmp_path)
    sound = next(tmp_path.glob(f"shards/{open_before.shards[0].name}.sound.bin"))
    gone = open_before.shards[0].keys[0]
    sound.write_bytes(b"12")
    store = Store.open(tmp_path)
    assert len(store) == 1 and gone not in store
    assert list(store.damaged.values()) == [f"{sound.name} has 2 bytes, not 10"]
    with pytest.raises(MMSearchError, match=r"1 of 2 clips are not in this store \(1 of its shards are damaged\)"):
        store.column(["a", "b"], "sound")
    with pytest.raises(MMSearchError, match=r"cut short; `mmsearch store verify --repair`"):
        open_before.read(gone, "sound")
    sound.unlink()
    assert list(Store.open(tmp_path).damaged.values()) == [f"{sound.name} is missing"]


def test_a_damaged_index_is_no_shard(tmp_path):
    write(tmp_path, {"a": arrays(1)})
    index = index_of(tmp_path)
    index.write_bytes(index.read_bytes()[:-1] + b"x")
    store = Store.open(tmp_path)
    assert len(store) == 0 and store.damaged == {index.name: "its index is damaged"}


def test_verify_finds_a_single_changed_bit(tmp_path):
    write(tmp_path, {"a": arrays(1)})
    write(tmp_path, {"b": arrays(2)})
    seen = []
    assert verify(Store.open(tmp_path), lambda *a: seen.append(a)) == {}
    assert seen[-1] == (2 * (10 + 54),) * 2
    index = index_of(tmp_path)
    frames = index.with_name(f"{index.name.split('.')[0]}.frames.bin")
    content = bytearray(frames.read_bytes())
    content[7] ^= 1
    frames.write_bytes(content)
    store = Store.open(tmp_path)
    assert len(store) == 2, "its size is right"
    damaged = verify(store, QUIET)
    assert damaged == {index.name: f"{frames.name} is not what was written (checksum)"}
    place = Place(tmp_path)
    files = list(files_of_shards(place, damaged))
    assert files[0].endswith(".arrow") and len(files) == 3, "the index goes first"
    remove(place, files)
    assert len(Store.open(tmp_path)) == 1 and leftovers(place, age=-1) == {}


def rewritten(folder, **metadata):
    """The store's only index with other metadata, under its right name."""
    old = index_of(folder)
    table = pa.ipc.open_file(old.read_bytes()).read_all()
    table = table.replace_schema_metadata({k.decode(): v for k, v in table.schema.metadata.items()} | metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    old.unlink()
    return old.with_name(f"{old.name.split('.')[0]}.{shards.digest(data)}.arrow"), data


def test_a_newer_format_is_refused(tmp_path):
    write(tmp_path, {"a": arrays(1)})
    path, data = rewritten(tmp_path, format="4")
    path.write_bytes(data)
    with pytest.raises(MMSearchError, match=r"written by a newer mmsearch \(format 4; this one reads up to 3\)"):
        Store.open(tmp_path)


def test_format_1_is_read(tmp_path):
    write(tmp_path, {"a": arrays(1)})
    sizes = {"sound": 10, "frames": 54}
    old = {name: {"dtype": dtype, "axes": axes, "bytes": sizes[name]} for name, (dtype, axes) in LAYOUT.items()}
    path, data = rewritten(tmp_path, format="1", modalities=json.dumps(old))
    path.with_name(path.name.split(".")[0] + ".arrow").write_bytes(data)
    store = Store.open(tmp_path)
    assert store.read("a", "sound").tolist() == [1, 2, 3, 4, 5] and verify(store, QUIET) == {}


def test_format_2_is_read_and_verified_by_its_digests(tmp_path):
    write(tmp_path, {"a": arrays(1)})
    index = index_of(tmp_path)
    layouts = json.loads(pa.ipc.open_file(index.read_bytes()).schema.metadata[b"modalities"])
    for name in layouts:
        data = index.with_name(f"{index.name.split('.')[0]}.{name}.bin").read_bytes()
        layouts[name]["checksum"] = shards.digest(data)
    path, data = rewritten(tmp_path, format="2", modalities=json.dumps(layouts))
    path.write_bytes(data)
    store = Store.open(tmp_path)
    assert store.read("a", "sound").tolist() == [1, 2, 3, 4, 5] and verify(store, QUIET) == {}
    layouts["sound"]["checksum"] = shards.digest(b"other")
    path, data = rewritten(tmp_path, modalities=json.dumps(layouts))
    path.write_bytes(data)
    assert len(verify(Store.open(tmp_path), QUIET)) == 1


@pytest.mark.parametrize("digest", [True, False], ids=["format 3", "format 1"])
def test_mutated_files_never_crash(tmp_path, digest):
    """For two seconds: any bytes of any file changed, cut or added. What is read is an array or a clear mistake."""
    clips = {f"k{i}": arrays(i) | {"frames": smooth(i)} for i in range(4)}
    write(tmp_path, clips, jpeg={"frames": 90})
    index = index_of(tmp_path)
    if not digest:
        index = index.rename(index.with_name(index.name.split(".")[0] + ".arrow"))
    files = sorted((tmp_path / "shards").iterdir())
    originals = {file: file.read_bytes() for file in files}
    draw, outcomes, until = random.Random(0), {"read": 0, "refused": 0}, time.monotonic() + 2
    while time.monotonic() < until:
        file = draw.choice(files)
        content = bytearray(originals[file])
        for _ in range(draw.choice([1, 1, 4, 40])):
            content[draw.randrange(len(content))] = draw.randrange(256)
        if draw.random() < 0.2:
            content = content[: draw.randrange(len(content))]
        elif draw.random() < 0.1:
            content += bytes(draw.randrange(1, 100))
        file.write_bytes(content)
        try:
            store = Store.open(tmp_path)
            for modality in LAYOUT:
                column = store.column([key for key in clips if key in store], modality)
                for i in np.flatnonzero(column.present):
                    assert isinstance(column.read(i), np.ndarray)
            outcomes["read"] += 1
        except MMSearchError:
            outcomes["refused"] += 1
        file.write_bytes(originals[file])
    assert min(outcomes.values()) > 0


def test_shards_nobody_needs(tmp_path):
    write(tmp_path, {"a": arrays(1), "b": arrays(2)})
    write(tmp_path, {"b": arrays(2), "c": arrays(3)})
    write(tmp_path, {"x": {}}, reason="broken")
    store = Store.open(tmp_path)
    by_key = {tuple(shard.keys): shard.index for shard in store.shards}
    assert unneeded(store, None) == []
    write(tmp_path, {"a": arrays(1), "b": arrays(2), "c": arrays(3)})
    again = Store.open(tmp_path)
    gone = unneeded(again, None)
    assert set(gone) <= {by_key["a", "b"], by_key["b", "c"], index_name(again, "abc")} and gone
    assert set(unneeded(store, {"a"})) == {by_key["b", "c"], by_key["x",]}
    assert set(unneeded(store, {"c", "x"})) == {by_key["a", "b"]}
    assert len(unneeded(store, set())) == 3


def index_name(store, keys):
    return next(shard.index for shard in store.shards if shard.keys == list(keys))


def test_keys_depend_on_every_part():
    keys = {clip_key(1, {"a": ["sound", "x", {"rate": 1}]}, s, e) for s, e in ((None, None), (0.0, None), (0.0, 1.0))}
    assert len(keys) == 3
    assert clip_key({"b": 1, "a": 2}) == clip_key({"a": 2, "b": 1})


def test_content_is_read_once(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"one")
    link = tmp_path / "link"
    link.symlink_to(file)
    first = content_hashes(tmp_path, [file, link, tmp_path / "none"])
    assert first[file] == first[link] and isinstance(first[tmp_path / "none"], OSError)
    lines = (tmp_path / "hashes.jsonl").read_text()
    with (tmp_path / "hashes.jsonl").open("a") as torn:
        torn.write('["/x", 1')
    assert content_hashes(tmp_path, [file])[file] == first[file]
    assert (tmp_path / "hashes.jsonl").read_text().count("\n") == lines.count("\n")
    stat = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert content_hashes(tmp_path, [file])[file] != first[file]


def test_the_content_of_a_folder_is_that_of_its_files(tmp_path):
    def files_of(path):
        return sorted(path.iterdir())

    for name in ("one", "same", "other"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.jpg").write_bytes(b"%d" % (i + (name == "other")))
    paths = [tmp_path / name for name in ("one", "same", "other")]
    one, same, other = content_hashes(tmp_path, paths, files_of).values()
    assert one == same != other
    (tmp_path / "one" / "1.jpg").write_bytes(b"9")
    os.utime(tmp_path / "one" / "1.jpg", ns=(1, 1))
    assert content_hashes(tmp_path, paths, files_of)[paths[0]] not in (one, other)
    assert len((tmp_path / "hashes.jsonl").read_text().splitlines()) == 4, "a line a folder, not a file"


def test_default_place(monkeypatch, tmp_path):
    monkeypatch.delenv("MMSEARCH_STORE", raising=False)
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path))
    assert default_store() == tmp_path / "store"
    monkeypatch.setenv("MMSEARCH_STORE", "s3://bucket/clips")
    assert default_store() == "s3://bucket/clips"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://KEYID:SECRET@bucket/x", "what stands before the @"),
        ("s3://KEYID:SEC/RET@bucket/x", "what stands before the @"),
        ("s3://bucket/x?access_key=KEYID&secret_key=SECRET", "the parameter 'access_key'"),
        ("s3://bucket/x?endpoint_override=http://KEYID:SECRET@host", "what stands before the @"),
    ],
)
def test_credentials_are_refused_and_not_repeated(address, said):
    with pytest.raises(MMSearchError, match=f"credentials do not belong .*{said}") as mistake:
        Place(address)
    assert not re.search("KEYID|SEC|RET", str(mistake.value).replace("AWS_ACCESS_KEY_ID", ""))


@pytest.mark.parametrize("address", ["ftp://host/x", "s3://", "s3://bucket/x?regoin=here"])
def test_what_is_no_place(address):
    with pytest.raises(MMSearchError, match="no place for files"):
        Place(address)


def test_a_folder_as_address(tmp_path):
    assert Place(f"file://{tmp_path}").folder == tmp_path == Place(tmp_path).folder


MANY = """
import resource, sys
import numpy as np
from mmsearch.data.store import ShardWriter, Store
folder, n = sys.argv[1], 300
for i in range(n):
    with ShardWriter(folder, {"v": ("<f4", 1)}) as writer:
        writer.add(str(i), {"v": np.full(3, i)})
        writer.commit()
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
column = Store.open(folder).column([str(i) for i in range(n)], "v")
assert [column.read(i)[0] for i in range(n)] == list(range(n))
"""


def test_more_shards_than_open_files(tmp_path):
    done = subprocess.run([sys.executable, "-c", MANY, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
