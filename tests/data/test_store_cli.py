"""`mmsearch store info|verify|gc`, and the documented way to read a store without mmsearch."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from mmsearch.cli import Parser
from mmsearch.cli import store as command
from mmsearch.data import Dataset, Store, clip_data, prepare
from mmsearch.data.claims import Claim
from mmsearch.data.places import Place
from mmsearch.data.store import ShardWriter
from mmsearch.errors import MMSearchError

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "data.md"
SETTINGS = "modalities:\n  sound: {rate: 8000}\n  frames: {frames: 2, size: 16}\n"


def run(*argv):
    parser = Parser(prog="mmsearch store")
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in argv]))


@pytest.fixture
def load(clip_folder, tmp_path):
    def load(name, ids=range(16), settings=SETTINGS):
        rows = [f"{i},c{i:02}.mp4,{'ab'[i % 2]}" for i in ids]
        (tmp_path / f"{name}.csv").write_text("\n".join(["clip_id,path,label", *rows]))
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"name: {name}\nmanifest: {name}.csv\nroot: {clip_folder}\n{settings}")
        return Dataset.load(path)

    return load


@pytest.fixture
def folder(load, tmp_path, inline):
    prepare(load("whole"), tmp_path / "store", shard_clips=2)
    return tmp_path / "store"


def damage(folder, bit=True):
    part = [s.parts["frames"] for s in Store.open(folder).shards if "frames" in s.parts][3]
    path = folder / "shards" / part.file
    content = bytearray(path.read_bytes())
    content[10] ^= 4
    path.write_bytes(content if bit else content[:-1])
    return part.file.split(".")[0]


def test_info_says_what_is_in_it(folder, capsys):
    with ShardWriter(folder, {"sound": ("<i2", 1)}) as writer:
        for i in range(12):
            writer.add(f"broken{i}", {}, f"sound: reason {i % 11}")
        writer.commit()
    damage(folder, bit=False)
    assert run("info", "--store", folder) == 0
    out = capsys.readouterr().out
    assert f"{folder}: 14 clips in 8 shards, 28 clips decoded into it\n" in out
    assert "modality sound: 14 clips, " in out and "modality frames: 14 clips, 21.5 kB, raw uint8\n" in out
    assert "12 clips set aside:\n  2 x sound: reason 0\n  1 x sound: reason 1\n" in out and "and 1 more" in out
    assert re.search(r"1 shard damaged:\n  \w{32}: \w{32}.frames.bin has 3071 bytes, not 3072\n", out)


def test_info_of_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MMSEARCH_STORE", str(tmp_path / "nothing"))
    assert run("info") == 0
    assert (
        capsys.readouterr().out
        == f"{tmp_path}/nothing: 0 clips in 0 shards, 0 clips decoded into it\n0 clips set aside\n"
    )
    assert not (tmp_path / "nothing").exists()


def test_verify_names_damage_and_repairs_it(folder, load, capsys):
    assert run("verify", "--store", folder) == 0
    assert capsys.readouterr().out == f"{folder}: 8 of 8 shards as written\n"
    name = damage(folder)
    assert run("verify", "--store", folder) == 1
    out = capsys.readouterr().out
    assert f"1 shard damaged:\n  {name}: {name}.frames.bin is not what was written (checksum)\n" in out
    assert out.endswith(f"{folder}: 7 of 8 shards as written\n")
    assert run("verify", "--store", folder, "--repair") == 0
    assert "removed 1 shard; `mmsearch prepare` decodes their clips again" in capsys.readouterr().out
    assert prepare(load("whole"), folder).decoded == 2
    assert run("verify", "--store", folder) == 0


def test_gc_removes_what_nobody_needs(folder, load, capsys, tmp_path):
    damage(folder, bit=False)
    other = prepare(load("other", settings=SETTINGS.replace("16", "24")), folder, shard_clips=2)
    ShardWriter(folder, {"sound": ("<i2", 1)})
    left = next((folder / "shards").glob(".*"))
    os.utime(left, (1, 1))
    files = sorted((folder / "shards").iterdir())
    assert run("gc", "--store", folder, "--keep", tmp_path / "other.yaml", "--dry-run") == 0
    said = capsys.readouterr().out
    assert sorted((folder / "shards").iterdir()) == files
    assert "left behind by killed decodes: 1 file, 0 bytes\ndamaged: 3 files, " in said
    assert "not needed: 21 files, " in said and "could be freed" in said
    assert run("gc", "--store", folder) == 0
    assert "not needed: 0 files, 0 bytes" in capsys.readouterr().out and not left.exists()
    assert run("gc", "--store", folder, "--keep", tmp_path / "other.yaml", tmp_path / "whole.yaml") == 0
    assert "not needed: 0 files" in capsys.readouterr().out
    assert run("gc", "--store", folder, "--keep", tmp_path / "other.yaml") == 0
    assert "not needed: 21 files" in capsys.readouterr().out
    store = Store.open(folder)
    assert len(store) == 16 and all(key in store for key in other.keys)
    assert prepare(load("whole"), folder).decoded == 16


def test_gc_keeps_what_a_sweep_uses(folder, load, tmp_path, capsys):
    with pytest.raises(MMSearchError, match=r"data.json: not the clips of a sweep: No such file"):
        run("gc", "--store", folder, "--keep", tmp_path)
    part = load("part", range(4))
    clip_data(part, folder, prepare(part, folder)).save(tmp_path / "data.json")
    assert run("gc", "--store", folder, "--keep", tmp_path) == 0
    assert "freed" in capsys.readouterr().out
    store = Store.open(folder)
    assert len(store) == 4 and all(key in store for key in json.loads((tmp_path / "data.json").read_text())["key"])


def test_gc_removes_nothing_where_it_cannot_know(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "clip_keys", lambda *args: ([None, "key"], {0: "sound: Permission denied"}))
    with pytest.raises(MMSearchError, match=r"1 of its files cannot be read \(sound: Permission denied\)"):
        run("gc", "--store", folder, "--keep", tmp_path / "whole.yaml")
    assert len(Store.open(folder)) == 16


def test_nothing_is_removed_while_a_process_decodes(folder):
    name = damage(folder)
    with Claim(Place(folder), ["k"]):
        for action in (["gc"], ["verify", "--repair"]):
            with pytest.raises(MMSearchError, match=rf"process {os.getpid()} on \S+ is decoding into this store"):
                run(*action, "--store", folder)
    assert list((folder / "shards").glob(f"{name}.*.arrow"))


def test_an_unknown_flag_is_answered_with_the_nearest(folder, capsys):
    with pytest.raises(SystemExit) as end:
        run("verify", "--repare")
    assert end.value.code == 2 and "did you mean '--repair'?" in capsys.readouterr().err


def test_the_documented_recipe_reads_a_store(folder, load, tmp_path):
    """The code of the documentation, as it stands there."""
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENTATION.read_text(), re.DOTALL | re.MULTILINE)
    [recipe] = [block for block in blocks if "pa.ipc" in block]
    namespace = {}
    assert "mmsearch" not in recipe
    exec(recipe, namespace)
    store = Store.open(folder)
    for modality in ("sound", "frames"):
        clips = dict(namespace["clips"](folder, modality))
        assert len(clips) == 16
        for key, array in clips.items():
            np.testing.assert_array_equal(array, store.read(key, modality))
            assert array.dtype == store.read(key, modality).dtype
