"""Processes that decode into one store at once: every clip is decoded by one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmsearch.data import Dataset, Store, claims, prepare
from mmsearch.data.claims import Claim, live
from mmsearch.data.places import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_the_lower_ticket_has_the_clips(place):
    with Claim(place, "abc") as first, Claim(place, "cde") as second, Claim(place, "xy") as other:
        assert first.free("abc") == ({"a", "b", "c"}, None)
        free, holder = second.free("cde")
        assert free == {"d", "e"} and holder.pid == os.getpid() and str(holder).startswith(f"process {os.getpid()} on ")
        assert other.free("xy") == ({"x", "y"}, None), "other clips concern nobody"
    with Claim(place, "c") as again:
        assert again.free("c") == ({"c"}, None)
    assert place.files("claims") == {}


def test_one_after_the_other(place):
    """Twelve threads want the same clip; never do two believe that it is free for them."""
    inside, order, crowded = [], [], []

    def work(i):
        with Claim(place, {"clip"}) as claim:
            while not claim.free({"clip"})[0]:
                time.sleep(0.002)
            inside.append(i)
            crowded.append(len(inside))
            time.sleep(0.005)
            order.append(inside.pop())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(order) == list(range(12)) and set(crowded) == {1}


def test_a_claim_without_a_sign_of_life_expires(place, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.1)
    monkeypatch.setattr(claims, "EXPIRY", 1.0)
    dead = Claim(place, "a")
    dead._beat = threading.Thread(target=lambda: None)
    dead.__enter__()
    with Claim(place, "a") as waiting:
        assert waiting.free("a")[0] == set()
        until = time.monotonic() + 20
        while not waiting.free("a")[0]:
            assert time.monotonic() < until
            time.sleep(0.05)
        with Claim(place, "a") as third:
            time.sleep(2)
            assert third.free("a")[0] == set(), "whoever gives signs of life keeps it, however long"


def test_a_claim_of_a_process_that_is_gone_is_no_claim(place):
    killed = subprocess.Popen(["true"])
    killed.wait()
    content = {"ticket": 1, "machine": claims.machine(), "pid": killed.pid}
    for name, held in (("gone", content), ("elsewhere", content | {"machine": "other"})):
        place.write(f"claims/{name}.keys", b"a")
        place.write(f"claims/{name}.json", json.dumps(held).encode())
    found = live(place, place.files("claims"), place.now(), {})
    assert [holder.name for holder in found] == ["elsewhere"]
    assert set(place.files("claims")) == {"elsewhere.json", "elsewhere.keys"}


WORK = """
import contextlib, json, sys, time
from pathlib import Path
from mmsearch.data import Dataset, decode, pipeline, prepare
dataset, store, gate, diary = sys.argv[1:]
def run(items, shard_clips, address, modalities):
    for i in range(0, len(items), shard_clips):
        yield pipeline.decode_shard(items[i : i + shard_clips], address, modalities)
        while not Path(gate).exists():
            time.sleep(0.01)
pipeline._run, pipeline._ray, pipeline.POLL = run, lambda: contextlib.nullcontext(1), 0.1
seen = []
notes = dict(on_progress=lambda *a: seen.append(a), on_wait=lambda line: Path(diary).write_text(line))
done = prepare(Dataset.load(dataset), store, **notes)
print(json.dumps([done.stored, done.decoded, seen[-1:]]))
"""


def start(dataset, store, gate, diary):
    """A process that decodes one shard, then goes on when the gate is there."""
    command = [sys.executable, "-c", WORK, *map(str, (dataset, store, gate, diary))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def dataset(clip_folder, tmp_path):
    def write(name, ids):
        rows = [f"{i},c{i:02}.mp4,{'ab'[i % 2]}" for i in ids]
        (tmp_path / f"{name}.csv").write_text("\n".join(["clip_id,path,label", *rows]))
        path = tmp_path / f"{name}.yaml"
        settings = "modalities:\n  sound: {rate: 8000}\n  frames: {frames: 2, size: 16}\n"
        path.write_text(f"name: {name}\nmanifest: {name}.csv\nroot: {clip_folder}\n{settings}")
        return path

    return write


def test_three_processes_decode_every_clip_once(dataset, tmp_path):
    store, whole, gate = tmp_path / "store", dataset("whole", range(16)), tmp_path / "gate"
    first = start(whole, store, gate, tmp_path / "nobody")
    until(lambda: len(Store.open(store)) > 0)
    others = [start(d, store, gate, tmp_path / d.stem) for d in (whole, dataset("part", range(8)))]
    until((tmp_path / "whole").exists)
    until((tmp_path / "part").exists)
    gate.touch()
    results = [result(p) for p in (first, *others)]
    assert [r[:2] for r in results] == [[16, 16], [16, 0], [8, 0]]
    assert Store.open(store).decodes == 16
    said = f"waiting for another process that is decoding into this store (process {first.pid} on "
    assert all((tmp_path / name).read_text().startswith(said) for name in ("whole", "part"))
    assert not list((store / "claims").iterdir()) and not (tmp_path / "nobody").exists()


def test_a_waiting_process_takes_over_from_a_killed_one(dataset, tmp_path):
    store, whole = tmp_path / "store", dataset("whole", range(16))
    first = start(whole, store, tmp_path / "never", tmp_path / "nobody")
    until(lambda: len(Store.open(store)) > 0)
    second = start(whole, store, tmp_path, tmp_path / "waits")
    until((tmp_path / "waits").exists)
    kept = len(Store.open(store))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    stored, decoded, seen = result(second)
    assert (stored, decoded) == (16, 16 - kept) and 0 < kept < 16
    assert seen[-1][0] == seen[-1][1]
    assert Store.open(store).decodes == 16


def test_clips_of_another_dataset_are_not_waited_for(dataset, tmp_path, inline):
    store = Place(tmp_path / "store")
    other = Dataset.load(dataset("other", range(8, 16)))
    with Claim(store, ["somebody's"]):
        waited = []
        done = prepare(other, store.text, on_wait=waited.append)
    assert done.decoded == 8 and waited == []
