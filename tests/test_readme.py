"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch.methods import METHODS
from mmsearch.testing import MethodConformance

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def agreement() -> Iterator[None]:
    """The README's own method, registered as a third party's would be, and only while this file is tested."""
    module = types.ModuleType("readme_method")
    sys.modules["readme_method"] = module
    exec(compile(next(b for b in BLOCKS if "class Agreement" in b), "README.md", "exec"), module.__dict__)
    METHODS.register(module.Agreement)
    yield
    assert METHODS._found is not None
    del METHODS._found["agreement"]


class TestTheReadmesMethod(MethodConformance):
    method = {"name": "agreement"}


def test_every_command_it_names_exists() -> None:
    from mmsearch.cli import COMMANDS

    named = set(re.findall(r"python -m mmsearch (\w+)", README)) | set(re.findall(r"`mmsearch (\w+)", README))
    assert named and named <= set(COMMANDS)


def test_every_picture_it_shows_exists() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    assert [p for p in pictures if not (Path(__file__).parents[1] / p).is_file()] == []
