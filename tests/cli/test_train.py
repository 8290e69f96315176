"""`mmsearch train`: what it refuses before anything is decoded, and what it says of a recipe that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsearch.batch import Modality
from mmsearch.cli import main, train
from mmsearch.data import ClipData
from mmsearch.data.document import Document
from mmsearch.errors import MMSearchError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("documnt: {}\n", "train.yaml:1: unknown key 'documnt'; did you mean 'document'"),
        ("threads: 1\n", "train.yaml:1: document must be a mapping"),
        ("document: {}\nteachers: [a]\n", "train.yaml:2: teachers must be a mapping"),
    ],
)
def test_a_recipe_is_checked_first(tmp_path: Path, capsys, text: str, message: str) -> None:
    (tmp_path / "train.yaml").write_text(text)
    argv = ["train", str(tmp_path / "train.yaml"), "--dataset", "none.yaml", "--out", str(tmp_path / "out")]
    assert main(argv) == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, capsys) -> None:
    (tmp_path / "train.yaml").write_text("document: {}\n")
    assert main(["train", str(tmp_path / "train.yaml"), "--dataset", "none.yaml", "--out", str(tmp_path)]) == 2
    assert "is there already and is not an empty folder" in capsys.readouterr().err


def vectors() -> ClipData:
    rng = np.random.default_rng(0)
    inputs = {u: rng.normal(size=(48, 4)).astype(np.float32) for u in ("a", "b")}
    kinds = {u: Modality(u, "vector", (4,)) for u in inputs}
    return ClipData.from_arrays(inputs, np.arange(48) % 2, modalities=kinds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("document: {epochs: 2, encoders: {c: {name: vector}}}\n", "train.yaml: .*unknown modality 'c'"),
        ("document: {epochs: 2, until: 3}\n", "train.yaml: .*until must be"),
        ("document: {epochs: 2, method: {name: ogn}}\n", "unknown method 'ogn'; did you mean 'ogm'"),
        ("document: {epochs: 2, method: {name: unimodal_teacher}}\n", "needs a teacher for each of a, b"),
    ],
)
def test_what_does_not_fit_the_clips_is_named_with_the_recipe(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(MMSearchError, match=message):
        train.train_again(Document(tmp_path / "train.yaml"), vectors(), tmp_path / "out", "cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["train.yaml"], "nothing is left behind"


def test_on_other_clips_it_says_how_far_it_is(tmp_path: Path, capsys) -> None:
    (tmp_path / "train.yaml").write_text("document: {epochs: 2, fold: 0}\nthreads: 1\n")
    train.train_again(Document(tmp_path / "train.yaml"), vectors(), tmp_path / "out", "cpu")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["model: epoch 1 of 2", "model: epoch 2 of 2"]
    assert all(line.endswith("% on val") for line in lines)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors", "train.yaml"}
