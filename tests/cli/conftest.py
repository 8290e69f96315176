"""A tiny dataset on disk, for what is checked before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dataset of twelve (empty) clips in two classes; arguments change what is written."""

    def write(
        rows: list[str] | None = None,
        header: str = "clip_id,path,label,split",
        yaml: str = "name: tiny\nmanifest: m.csv\n",
    ) -> Path:
        folder = tmp_path / "set"
        folder.mkdir()
        names = [f"c{i}" for i in range(12)]
        for name in names:
            (folder / f"{name}.mp4").write_bytes(b"")
        rows = rows or [f"{n},{n}.mp4,{'ab'[i % 2]},{'test' if i > 7 else 'train'}" for i, n in enumerate(names)]
        (folder / "m.csv").write_text("\n".join([header, *rows]) + "\n")
        (folder / "tiny.yaml").write_text(yaml)
        return folder / "tiny.yaml"

    return write


def rows(change: dict[int, str] | None = None) -> list[str]:
    """The default rows with some replaced."""
    plain = [f"c{i},c{i}.mp4,{'ab'[i % 2]},{'test' if i > 7 else 'train'}" for i in range(12)]
    return [(change or {}).get(i, row) for i, row in enumerate(plain)]
