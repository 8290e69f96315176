"""The clip store: shards are visible as a whole or not at all."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mmsearch.data.store import ShardWriter, Store, clip_key, content_hashes, default_store, remove_orphans
from mmsearch.errors import MMSearchError

LAYOUT = {"sound": ("<i2", 1), "frames": ("|u1", 4)}


def write(folder, clips, **kwargs):
    with ShardWriter(folder, LAYOUT) as writer:
        for key, arrays in clips.items():
            writer.add(key, arrays, **kwargs)
        writer.commit()


def arrays(i, length=5):
    return {"sound": np.arange(length, dtype=np.int16) + i, "frames": np.full((2, 3, 3, 3), i, np.uint8)}


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
    assert store.column(["a", "b"], "frames").present.tolist() == [True, False]
    assert store.column(["a"], "touch").present.tolist() == [False]


def test_set_aside_is_remembered_and_not_stored(tmp_path):
    write(tmp_path, {"a": {}}, reason="broken")
    store = Store.open(tmp_path)
    assert "a" in store and len(store) == 0 and store.reason("a") == "broken"
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
    assert remove_orphans(tmp_path) == 0, "it may be under way"
    assert remove_orphans(tmp_path, age=-1) == 2
    assert Store.open(tmp_path).read("b", "sound") is not None


def test_damage_is_named(tmp_path):
    write(tmp_path, {"a": arrays(1)})
    index = next((tmp_path / "shards").glob("*.arrow"))
    sound = index.with_name(f"{index.stem}.sound.bin")
    sound.write_bytes(b"12")
    with pytest.raises(MMSearchError, match="damaged"):
        Store.open(tmp_path).read("a", "sound")
    sound.unlink()
    with pytest.raises(MMSearchError, match="missing or damaged"):
        Store.open(tmp_path).read("a", "sound")
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(MMSearchError, match=f"{index.name}: not a readable shard"):
        Store.open(tmp_path)


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


def test_default_place(monkeypatch, tmp_path):
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path))
    assert default_store() == tmp_path / "store"
