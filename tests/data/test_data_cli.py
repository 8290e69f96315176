"""`mmsearch validate` and `mmsearch prepare`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmsearch.cli import main


@pytest.fixture
def dataset(clip_folder, tmp_path):
    text = f"name: sixteen\nmanifest: {clip_folder / 'manifest.csv'}\nmodalities:\n  sound:\n  frames: {{size: 16}}\n"
    path = tmp_path / "sixteen.yaml"
    path.write_text(text)
    return path


def test_validate_prints_a_summary(dataset, capsys):
    assert main(["validate", str(dataset)]) == 0
    out = capsys.readouterr().out
    assert "sixteen: 16 clips, 2 classes" in out and "classes (label): a 8, b 8" in out
    assert "modality frames: kind frames, column path, 16 files; frames 8, size 16" in out
    assert "splits: train 8, val 2, select 2, test 4 (drawn)" in out


def test_prepare_says_what_was_stored_and_set_aside(dataset, tmp_path, capsys, inline):
    assert main(["prepare", str(dataset), "--out", str(tmp_path / "store")]) == 0
    out = capsys.readouterr().out
    assert "16 clips stored" in out and "(16 decoded now)" in out and "0 clips set aside" in out
    assert main(["prepare", str(dataset), "--out", str(tmp_path / "store")]) == 0
    assert "(0 decoded now)" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["validate", "prepare"])
def test_a_mistake_is_one_line_and_code_2(dataset, command, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    dataset.write_text(dataset.read_text() + "lable: half\n")
    assert main([command, str(dataset)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "sixteen.yaml:6: unknown key 'lable'; did you mean 'label'?" in said.err
    assert not (tmp_path / "cache").exists(), "nothing was written"


LIGHT = """
import sys
import mmsearch.data, mmsearch.data.decode, mmsearch.data.pipeline
print("torch" in sys.modules, "ray" in sys.modules)
"""


def test_data_is_light_to_import():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
