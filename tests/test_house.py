"""The arrows of the house: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mmsearch"
GROUND = {"errors", "files", "knobs", "registry", "batch"}
BELOW = {
    "methods": {"fusion", "diagnostics"},
    "fusion": set(),
    "encoders": set(),
    "diagnostics": set(),
    "data": set(),
    "training": {"methods", "fusion", "encoders", "diagnostics"},
    "search": {"training", "methods", "fusion", "encoders", "diagnostics", "data"},
    "recommend": {"search", "training", "methods", "fusion", "encoders", "diagnostics", "data"},
}
FILES = sorted(ROOT.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Names of the modules a file imports, except those for type checking only."""
    tree = ast.parse(file.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_arrows_run_one_way(file: Path) -> None:
    room = file.relative_to(ROOT).parts[0]
    if room not in BELOW:
        return
    rooms = {p.name for p in ROOT.iterdir()} | {p.stem for p in ROOT.glob("*.py")}
    used = {i.split(".")[1] for i in imports(file) if i.startswith("mmsearch.")} & rooms
    assert used <= BELOW[room] | GROUND | {room}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_ray_and_optuna_stay_in_their_rooms(file: Path) -> None:
    where = file.relative_to(ROOT)
    used = {i.split(".")[0] for i in imports(file)}
    if where.parts[0] != "search" and where != Path("data/pipeline.py"):
        assert "ray" not in used
    if where.parts[0] != "search":
        assert "optuna" not in used


def test_nothing_is_unpickled_but_by_the_restricted_loader() -> None:
    for file in FILES:
        if file.relative_to(ROOT) == Path("data/_pickles.py"):
            continue
        assert not {"pickle", "cloudpickle", "joblib", "dill", "shelve"} & {i.split(".")[0] for i in imports(file)}, (
            file
        )
        assert "torch.load" not in file.read_text(), file


def test_a_name_given_twice_is_refused() -> None:
    from mmsearch.errors import MMSearchError
    from mmsearch.methods import METHODS
    from mmsearch.methods.joint import Joint

    class Other(Joint):
        name = "joint"

    with pytest.raises(MMSearchError, match="method 'joint' is given twice"):
        METHODS.register(Other)


def test_every_test_file_has_a_name_of_its_own() -> None:
    """Else pytest collects one of two files and not the other."""
    names = [file.name for file in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
