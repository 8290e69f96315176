"""`scripts/written_digits.py`: spoken-with-written digits as a dataset."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmsearch.batch import View
from mmsearch.cli import main
from mmsearch.data import Dataset, clip_data, pipeline, prepare

SCRIPT = Path(__file__).parents[1] / "scripts" / "written_digits.py"
CLIPS = 60


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("written_digits", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset YAML of sixty clips; read-only for tests."""
    return script.write(tmp_path_factory.mktemp("set") / "digits", CLIPS, 0)


def content(yaml: Path) -> dict[str, bytes]:
    folder = yaml.parent
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_validate_accepts_it(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(digits)]) == 0
    out = capsys.readouterr().out
    assert "written_digits: 60 clips, 10 classes" in out
    assert "modality image: kind image, column image, 60 files; size 32" in out
    assert "modality sound: kind sound, column sound, 60 files; rate 16000, seconds 1" in out
    assert "groups: 60" in out


def test_every_clip_decodes_to_its_digit(
    digits: Path, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inline(items: list, shard_clips: int, folder: str, kinds: dict) -> Iterator[list]:
        yield pipeline.decode_shard(items, folder, kinds)

    monkeypatch.setattr(pipeline, "_run", inline)
    monkeypatch.setattr(pipeline, "_ray", lambda: contextlib.nullcontext(1))
    dataset = Dataset.load(digits)
    prepared = prepare(dataset, tmp_path / "store")
    assert (prepared.stored, prepared.quarantined) == (CLIPS, [])
    data = clip_data(dataset, tmp_path / "store", prepared)
    assert {u: (m.kind, m.shape) for u, m in data.modalities.items()} == {
        "sound": ("sound", (16000,)),
        "image": ("image", (1, 32, 32, 3)),
    }
    batch = next(data.batches(np.arange(CLIPS), CLIPS, {"sound": View(), "image": View()}))
    bunch = load_digits()
    for i, (digit, source) in enumerate(script.cast(CLIPS, 0)):
        assert data.classes[data.label[i]] == script.WORDS[digit] and bunch.target[source] == digit
        small = batch.inputs["image"][i, 0].float().mean(0).reshape(8, 4, 8, 4).mean((1, 3))
        assert np.corrcoef(small.numpy().ravel(), bunch.images[source].ravel())[0, 1] > 0.6
    loudest = batch.inputs["sound"].abs().amax(1)
    assert float(loudest.min()) > 0.05 and float(loudest.max()) <= 1


def test_the_seed_decides_the_content(digits: Path, script: Any, tmp_path: Path) -> None:
    same, other = script.write(tmp_path / "same", CLIPS, 0), script.write(tmp_path / "other", CLIPS, 1)
    assert content(same) == content(digits)
    assert content(other).keys() == content(digits).keys()
    changed = [k for k, v in content(other).items() if v != content(digits)[k]]
    assert len(changed) > 1.9 * CLIPS


def test_clips_that_share_a_picture_are_one_group(script: Any) -> None:
    cast = script.cast(2000, 0)
    assert {digit for digit, _ in cast} == set(range(10))
    assert len({source for _, source in cast}) == 1797


def test_groups_are_the_pictures(digits: Path, script: Any) -> None:
    with (digits.parent / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["group"] for r in rows] == [f"picture-{source:04d}" for _, source in script.cast(CLIPS, 0)]


def test_nothing_is_left_of_a_set_that_failed(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(script, "write_sound", full)
    assert script.main([str(tmp_path / "out")]) == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").touch()
    assert script.main([str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
