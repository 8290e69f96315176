"""A store on S3 (moto's server): written whole, and fetched by every node once."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmsearch.data import Dataset, Store, clip_data, prepare
from mmsearch.data.claims import Claim
from mmsearch.data.clips import ClipData
from mmsearch.data.places import Place
from mmsearch.data.store import ShardWriter
from mmsearch.data.upkeep import files_of_shards, leftovers, remove, verify
from mmsearch.errors import MMSearchError

QUIET = lambda done, total: None  # noqa: E731


def fill(address, shards=3, clips=4, length=500):
    """Shards whose clip k is `length` times k."""
    keys = []
    for s in range(shards):
        with ShardWriter(address, {"v": ("<f4", 1), "w": ("<f4", 1)}) as writer:
            for c in range(clips):
                keys.append(f"k{s * clips + c:03}")
                writer.add(keys[-1], {"v": np.full(length, s * clips + c), "w": np.zeros(3)})
            writer.commit()
    return keys


def fetched(folder):
    """How often every file of a store was fetched to a node's cache."""
    return Counter(line.split()[2] for log in Path(folder).glob("shards/*/fetched.log") for line in log.open())


def test_reads_back_what_was_written(bucket, tmp_path):
    keys = fill(bucket)
    store = Store.open(bucket)
    assert len(store) == 12 and len(store.shards) == 3 and not store.damaged
    assert fetched(tmp_path / "cache").total() == 3, "indexes only"
    column = store.column(keys, "v")
    assert [column.read(i)[0] for i in range(12)] == list(range(12)) and len(column.read(3)) == 500
    counts = fetched(tmp_path / "cache")
    assert set(counts.values()) == {1} and len(counts) == 6, "no other modality was fetched"
    assert Store.open(bucket).read("k007", "v")[0] == 7
    assert fetched(tmp_path / "cache") == counts, "a second process fetches nothing"
    assert not list((tmp_path / "cache").glob("**/*.tmp")) and not list((tmp_path / "cache").glob("**/*.part"))


def test_prepare_and_train_from_a_bucket(bucket, clip_folder, tmp_path, inline):
    path = tmp_path / "sixteen.yaml"
    modalities = "modalities:\n  sound: {rate: 8000}\n  frames: {frames: 2, size: 16}\n"
    path.write_text(f"name: sixteen\nmanifest: {clip_folder / 'manifest.csv'}\n{modalities}")
    dataset = Dataset.load(path)
    first = prepare(dataset, bucket, shard_clips=4)
    assert (first.stored, first.decoded) == (16, 16)
    assert prepare(dataset, bucket).decoded == 0
    data = clip_data(dataset, bucket, first)
    data.save(tmp_path / "data.json")
    saved = (tmp_path / "data.json").read_text()
    assert bucket in saved and not any(secret in saved for secret in ("testing-secret", "AKIA"))
    opened = ClipData.open(tmp_path / "data.json")
    opened.warm()
    counts = fetched(tmp_path / "cache")
    assert set(counts.values()) == {1} and len(counts) == 3 * len(Store.open(bucket).shards)
    assert opened._sources["frames"].read(3).shape == (2, 16, 16, 3)
    assert fetched(tmp_path / "cache") == counts


FETCH = """
import sys
from mmsearch.data.store import Store
address, keys = sys.argv[1], sys.argv[2].split(",")
store = Store.open(address)
assert store.warm(keys, ["v"])
column = store.column(keys, "v")
print(sum(int(column.read(i)[0]) for i in range(len(keys))))
"""


def test_processes_of_a_node_fetch_every_file_once(bucket, server, tmp_path):
    keys = fill(bucket, shards=6, length=50_000)
    command = [sys.executable, "-c", FETCH, bucket, ",".join(keys)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [int(p.communicate()[0]) for p in processes] == [sum(range(24))] * 4
    counts = fetched(tmp_path / "cache")
    assert set(counts.values()) == {1} and len(counts) == 12
    asked = re.findall(r"GET /\S*/shards/(\S+?\.(?:bin|arrow))\S* HTTP", server[1].read_text())
    of_bins = Counter(name for name in asked if name in counts and name.endswith(".bin"))
    assert set(of_bins.values()) == {1} and len(of_bins) == 6, "and so says the server"


def test_what_arrives_damaged_is_fetched_again(bucket, tmp_path, monkeypatch):
    keys = fill(bucket, shards=1)
    store, real, bad = Store.open(bucket), Place.open, [1]

    def garbled(place, name):
        stream = real(place, name)
        if not bad:
            return stream
        bad.pop()
        data = stream.read()
        return io.BytesIO(b"\1" + data[1:])

    monkeypatch.setattr(Place, "open", garbled)
    assert store.column(keys, "v").read(2)[0] == 2
    file = store.shards[0].parts["v"].file
    assert fetched(tmp_path / "cache")[file] == 2
    bad += [1] * 5
    with pytest.raises(MMSearchError, match=rf"{store.shards[0].name}.w.bin is damaged; `mmsearch store verify"):
        store.column(keys, "w").read(0)


def test_damage_in_the_bucket_is_found_and_repaired(bucket):
    fill(bucket, shards=2)
    place, store = Place(bucket), Store.open(bucket)
    part = store.shards[0].parts["v"]
    place.write(f"shards/{part.file}", bytes(part.bytes))
    found = verify(store, QUIET)
    assert found == {store.shards[0].index: f"{part.file} is not what was written (checksum)"}
    place.delete(f"shards/{store.shards[1].parts['w'].file}")
    assert list(Store.open(bucket).damaged) == [store.shards[1].index]
    remove(place, files_of_shards(place, [*found, store.shards[1].index]))
    assert len(Store.open(bucket).shards) == 0 and leftovers(place, age=-1) == {}


def test_a_fetch_that_was_killed_leaves_nothing_to_read(bucket, tmp_path):
    keys = fill(bucket, shards=1)
    store = Store.open(bucket)
    part = store.shards[0].parts["v"]
    (store.place.near / f"{part.file}.part").write_bytes(b"half")
    (store.place.near / part.file).write_bytes(b"cut short")
    assert store.column(keys, "v").read(3)[0] == 3
    assert not list(store.place.near.glob("*.part"))


def test_what_was_used_longest_ago_makes_room(bucket, tmp_path, monkeypatch):
    """A store of six shards through a cache for three: everything is read, never more than three are there."""
    keys = fill(bucket, shards=6, clips=2, length=25_000)
    store = Store.open(bucket)
    column = store.column(keys, "v")
    monkeypatch.setenv("MMSEARCH_CACHE_GB", str(3.5 * 200_000 / 1e9))
    held = lambda: sorted(p.name for p in store.place.near.glob("*.bin"))  # noqa: E731
    for i in range(12):
        assert column.read(i)[0] == i
        assert len(held()) <= 3
    files = [store.shards[s].parts["v"].file for s in dict.fromkeys(column.shard_of.tolist())]
    assert held() == sorted(files[3:])
    assert len(store.files._mapped) <= 3, "what is gone is let go, so that its space is free"
    first = Store.open(bucket).column(keys, "v")
    first.read(6)
    first.read(0)
    assert held() == sorted([files[3], files[5], files[0]]), "the one not asked for since made room"
    assert not column.warm() and column.warm([6, 8, 10])
    monkeypatch.setenv("MMSEARCH_CACHE_GB", str(100_000 / 1e9))
    with pytest.raises(MMSearchError, match=r"may hold 0.0001 GB, less than one file of 0.0002 GB; set MMSEARCH_CACHE"):
        Store.open(bucket).column(keys, "v").read(2)
    monkeypatch.setenv("MMSEARCH_CACHE_GB", "plenty")
    with pytest.raises(MMSearchError, match="MMSEARCH_CACHE_GB is 'plenty'"):
        Store.open(bucket).column(keys, "v").read(2)


def test_threads_share_a_small_cache(bucket, tmp_path, monkeypatch):
    """Eight threads read all of a store through a cache for two of its shards."""
    keys = fill(bucket, shards=6, clips=2, length=25_000)
    monkeypatch.setenv("MMSEARCH_CACHE_GB", str(2.5 * 200_000 / 1e9))
    wrong = []

    def work(seed):
        column = Store.open(bucket).column(keys, "v")
        for i in np.random.default_rng(seed).permutation(12):
            if column.read(i)[0] != i:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    assert len(list(Path(Store.open(bucket).place.near).glob("*.bin"))) <= 2


def test_a_claim_in_a_bucket(bucket):
    place = Place(bucket)
    with Claim(place, "ab") as first, Claim(place, "bc") as second:
        assert first.free("ab")[0] == {"a", "b"} and second.free("bc")[0] == {"c"}
    assert place.files("claims") == {}


def test_a_bucket_that_is_not_there(bucket, clip_folder, tmp_path, inline):
    path = tmp_path / "sixteen.yaml"
    path.write_text(f"name: sixteen\nmanifest: {clip_folder / 'manifest.csv'}\n")
    missing = bucket.replace("s3://b", "s3://no-such-b")
    with pytest.raises(MMSearchError, match=r"the clip store cannot be written: .*bucket does not exist") as mistake:
        prepare(Dataset.load(path), missing)
    assert "\n" not in str(mistake.value)


SLOWLY = """
import os, time
import mmsearch.data.decode as decode
original = decode.decode_clip
def decode_clip(*args):
    if "MMSEARCH_NODE" in os.environ:
        time.sleep(0.1)
        with open(os.environ["MMSEARCH_NODE"], "a") as file:
            file.write("decoded\\n")
    return original(*args)
decode.decode_clip = decode_clip
"""

TWO_NODES = """
import json, pathlib, sys
import ray
from ray.cluster_utils import Cluster
from mmsearch.data import Dataset, Store, prepare
dataset, other, address, folder = sys.argv[1:]
folder = pathlib.Path(folder)
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [
    cluster.add_node(
        num_cpus=1,
        resources={f"node{i}": 1},
        env_vars={"MMSEARCH_CACHE": str(folder / f"node{i}"), "MMSEARCH_NODE": str(folder / f"decoded{i}")},
    )
    for i in range(2)
]
ray.init(address=cluster.address, log_to_driver=False)
first = prepare(Dataset.load(dataset), address, shard_clips=4)
decoded = [len((folder / f"decoded{i}").read_text().split()) for i in range(2)]

@ray.remote(num_cpus=0.3)
class Trial:
    def read(self, keys):
        store = Store.open(address)
        warm = store.warm(keys, ["sound", "frames"])
        column = store.column(keys, "frames")
        return warm, sum(int(column.read(i).sum()) for i in range(len(keys)))

trials = [Trial.options(resources={f"node{i}": 0.1}).remote() for i in range(2) for _ in range(2)]
read = ray.get([trial.read.remote(first.keys) for trial in trials])
for trial in trials:
    ray.kill(trial)

killed = []
def kill(done, total):
    if done >= 6 and not killed:
        killed.append(done)
        nodes[1].kill_raylet(check_alive=False)
second = prepare(Dataset.load(other), address, shard_clips=2, on_progress=kill)
alive = sum(node["Alive"] for node in ray.nodes())
print(json.dumps({
    "first": [first.stored, first.decoded], "on": decoded, "read": read, "killed": killed, "alive": alive,
    "second": [second.stored, second.decoded, second.quarantined],
}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def segments(make_clip, tmp_path):
    """Writes a dataset of forty clips that are segments of one film."""
    make_clip(tmp_path / "film.mp4", seconds=5)
    rows = [f"s{i},film.mp4,{'ab'[i % 2]},{i / 10},{i / 10 + 1}" for i in range(40)]
    (tmp_path / "segments.csv").write_text("\n".join(["clip_id,path,label,start,end", *rows]))

    def write(name, size):
        path = tmp_path / f"{name}.yaml"
        settings = f"modalities:\n  sound: {{rate: 8000}}\n  frames: {{frames: 2, size: {size}}}\n"
        path.write_text(f"name: {name}\nmanifest: segments.csv\n{settings}")
        return path

    return write


def test_two_nodes(bucket, segments, tmp_path):
    """Both decode; each fetches every shard once for all its trials; killing one while it decodes loses nothing."""
    (tmp_path / "sitecustomize.py").write_text(SLOWLY)
    command = [sys.executable, "-c", TWO_NODES, segments("first", 16), segments("other", 24), bucket, tmp_path]
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["first"] == [40, 40] and sum(found["on"]) == 40 and min(found["on"]) > 0
    store = Store.open(bucket)
    first = [shard for shard in store.shards if shard.parts["frames"].shape[0, 1] == 16]
    files = {part.file for shard in first for part in shard.parts.values()}
    for node in ("node0", "node1"):
        counts = fetched(tmp_path / node)
        assert set(counts.values()) == {1} and files <= set(counts), "each shard once on each node"
    assert len({tuple(read) for read in found["read"]}) == 1 and found["read"][0][0]
    assert found["killed"] and found["killed"][0] < 40 and found["alive"] == 2
    assert found["second"] == [40, 40, []]
    assert len(store) == 80 and not store.damaged
