"""`mmsearch manifest`: the layouts as one finds them on the command line."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import ClassVar

import pytest

from mmsearch import cli, files
from mmsearch.data.layouts import LAYOUTS, Layout, Listing, Row
from mmsearch.errors import MMSearchError
from mmsearch.knobs import knob, knobs_of

NAMES = LAYOUTS.names()


def run(*arguments: object) -> int:
    try:
        return cli.main(["manifest", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for label in "ab":
        for i in range(3):
            path = tmp_path / "set" / label / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path / "set"


def test_every_layout_of_the_issue_is_there():
    assert NAMES == [
        "ave", "avmnist", "cremad", "csv", "folder", "food101", "kinetics_sounds", "modelnet40", "mosei", "paired",
        "ucf101", "vggsound",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_has_to_be_on_disk_and_every_option(name, capsys):
    assert run(name, "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    layout = LAYOUTS.get(name)
    assert layout.summary in said and " ".join(layout.expects.split()) in said
    assert all(f"--{option.replace('_', '-')}" in said for option in knobs_of(layout))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_root_is_refused_by_every_layout(name, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    assert run(name, tmp_path / "set", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'set'}") and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_mistakes_on_the_command_line(clips, tmp_path, capsys):
    for arguments, says in (
        (["fodler", clips, "--out", tmp_path / "out"], "'fodler'"),
        ([], "LAYOUT"),
        (["folder", clips], "--out"),
        (["folder", clips, "--out", tmp_path / "out", "--clases", "x"], "unknown argument '--clases'; did you mean"),
        (["folder", tmp_path / "no", "--out", tmp_path / "out"], "no: no such file or folder"),
        (["folder", clips, "--out", clips / "a" / "0.mp4"], "0.mp4: cannot be written"),
    ):
        assert run(*arguments) == 2
        said = capsys.readouterr().err
        assert says in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_an_unknown_layout_is_answered_with_the_nearest(clips, tmp_path, capsys):
    assert run("fodler", clips, "--out", tmp_path / "out") == 2
    assert "did you mean 'folder'?" in capsys.readouterr().err


def test_a_folder_that_cannot_be_read(clips, tmp_path, capsys, monkeypatch):
    def closed(_):
        raise PermissionError(errno.EACCES, "Permission denied", str(clips / "a"))

    monkeypatch.setattr("os.scandir", closed)
    assert run("folder", clips, "--out", tmp_path / "out") == 2
    assert "Permission denied" in capsys.readouterr().err


def test_both_files_are_whole_or_what_was_there_before(clips, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert run("folder", clips, "--out", out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    (clips / "a" / "more.mp4").touch()
    monkeypatch.setattr(files.Path, "write_bytes", full)
    assert run("folder", clips, "--out", out, "--force") == 2
    assert "manifest.csv: cannot be written: No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_output_may_lie_in_the_dataset(clips, capsys):
    assert run("folder", clips, "--out", clips) == 0
    assert "root:" not in (clips / "dataset.yaml").read_text()
    assert run("folder", clips, "--out", clips) == 2
    assert cli.main(["validate", str(clips / "dataset.yaml")]) == 0
    assert "6 clips, 2 classes" in capsys.readouterr().out


@dataclasses.dataclass
class Shouting(Layout):
    """A layout from elsewhere."""

    name: ClassVar[str] = "shouting"
    summary: ClassVar[str] = "a layout from elsewhere"
    expects: ClassVar[str] = "anything"

    loud: bool = knob(False, "upper case", search=False)
    times: int = knob(1, "how often", low=1, high=3, search=False)

    def read(self, root: Path) -> Listing:
        label = "WOOF" if self.loud else "woof"
        rows = [Row(f"{label}{i}", label, {"path": "a/0.mp4"}) for i in range(self.times)]
        return Listing(root, "shouting", [label], {"frames": {"kind": "frames", "column": "path"}}, rows)


def test_a_layout_from_elsewhere_has_its_flags_from_its_fields(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(LAYOUTS, "_found", dict(LAYOUTS._scan()))
    LAYOUTS.register(Shouting)
    assert run("shouting", clips, "--out", tmp_path / "out", "--loud", "--times", "3") == 0
    assert "shouting: 3 clips listed" in capsys.readouterr().out
    assert "WOOF2" in (tmp_path / "out" / "manifest.csv").read_text()
    assert run("shouting", clips, "--out", tmp_path / "more", "--times", "4") == 2
    assert "times is 4; allowed: 1 to 3" in capsys.readouterr().err
    with pytest.raises(MMSearchError, match="layout 'shouting' is given twice"):
        LAYOUTS.register(dataclasses.dataclass(type("Other", (Shouting,), {"name": "shouting"})))
