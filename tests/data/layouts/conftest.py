"""Small trees in the shapes that datasets are published in, and the command that reads them."""

from __future__ import annotations

import csv
import dataclasses
import os
import wave
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from mmsearch import cli


class Tree:
    """Writes tiny real files below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, text: str | Iterable[str]) -> Path:
        path = self.path(name)
        path.write_bytes((text if isinstance(text, str) else "".join(f"{line}\n" for line in text)).encode())
        return path

    def sound(self, name: str) -> None:
        with wave.open(str(self.path(name)), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(b"\0\1" * 80)

    def picture(self, name: str) -> None:
        Image.new("L", (8, 8), 128).save(self.path(name))

    def pictures(self, folder: str, names: Iterable[str] = ("00001.jpg",)) -> None:
        for name in names:
            self.picture(f"{folder}/{name}")

    def array(self, name: str, array: np.ndarray) -> None:
        np.save(self.path(name), array)

    def files(self) -> set[str]:
        return {p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()}


@dataclasses.dataclass
class Written:
    """What `mmsearch manifest` said and wrote."""

    folder: Path
    said: str

    @property
    def yaml(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "dataset.yaml").read_text(encoding="utf-8"))

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def column(self, name: str) -> dict[str, str]:
        return {row["clip_id"]: row[name] for row in self.rows}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "set")


@pytest.fixture
def manifest(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., Written]:
    """Runs the command; it must succeed."""

    def run(layout: str, root: Path, *options: str, out: str = "out") -> Written:
        code = cli.main(["manifest", layout, str(root), "--out", str(tmp_path / out), *options])
        said = capsys.readouterr()
        assert code == 0, said.err
        return Written(tmp_path / out, said.out)

    return run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs the command; it must be refused in one line, with nothing written."""

    def run(layout: str, root: Path, *options: str, out: str = "out") -> str:
        before = sorted(tmp_path.rglob("*"))
        try:
            code = cli.main(["manifest", layout, str(root), "--out", str(tmp_path / out), *options])
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        assert code == 2, said
        assert said.err.startswith("error: ") and "Traceback" not in said.err
        assert sorted(tmp_path.rglob("*")) == before
        return said.err

    return run


@pytest.fixture
def real_lists() -> Path:
    """The folder of the published lists of CREMA-D and Kinetics-Sounds."""
    clips = os.environ.get("MMSEARCH_CLIPS")
    folder = os.environ.get("MMSEARCH_LISTS") or (str(Path(clips).parent / "lists") if clips else "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("published lists are not here: set MMSEARCH_LISTS to their folder")
    return Path(folder)
