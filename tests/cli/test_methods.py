"""What goes with what, what a method declares, and the page of them all."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch.batch import Modality
from mmsearch.cli import main
from mmsearch.cli.components import describe, facts, knob_rows
from mmsearch.cli.matrix import Matrix
from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.methods import METHODS
from mmsearch.training import resolve

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
MODALITIES = {
    "sound": Modality("sound", "sound", (16000,), 16000),
    "frames": Modality("frames", "frames", (8, 64, 64, 3)),
}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_matrix_says_what_a_document_is_told() -> None:
    matrix = Matrix.of_all()
    assert matrix.fusions == FUSIONS.names() and list(matrix.rows) == METHODS.names()
    for name, cells in matrix.rows.items():
        modality = {"modality": "sound"} if name == "unimodal" else {}
        for fusion, cell in zip(matrix.fusions, cells, strict=True):
            document = {"method": {"name": name, **modality}, "fusion": {"name": fusion}}
            if METHODS.get(name)().needs_teachers:
                document["teachers"] = {u: "x" for u in MODALITIES}
            try:
                resolve(document, MODALITIES)
            except MMSearchError as refused:
                assert cell.answer == "own head" or cell.reason in str(refused)
            else:
                assert cell.answer == "works", (name, fusion)


def test_the_matrix_is_printed_with_every_reason_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--matrix"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    matrix = Matrix.of_all()
    assert all(m in text for m in matrix.rows) and "yes" in text and "own" in text
    assert [r for r in matrix.reasons if text.count(re.sub(r"\s+", " ", r)) != 1] == []


def test_the_matrix_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--matrix", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["modalities"] == ["sound", "frames"]
    assert found["methods"]["joint"]["concat"] == {"answer": "works", "reason": ""}
    assert found["methods"]["mla"]["concat"] == {"answer": "own head", "reason": ""}
    cells = [c for row in found["methods"].values() for c in row.values()]
    assert all((c["answer"] == "refused") == bool(c["reason"]) for c in cells)


def test_a_method_shows_what_it_declares(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "ogm"]) == 0
    text = capsys.readouterr().out
    assert "equals joint bit for bit with end 0" in text
    assert "the modality with the low k is the strong one" in text
    assert main(["methods", "mla"]) == 0
    assert "none: another architecture" in capsys.readouterr().out
    assert main(["methods", "ogm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["no_op"] == {"equals": "joint", "knobs": {"end": 0.0}, "tolerance": 0.0, "reason": ""}
    assert (found["dominance"], found["earliest"]) == ({"signal": "k", "strong": "low"}, 0.0)


def test_what_is_judged_late_says_so() -> None:
    method = {**describe(METHODS.get("ogm")), "earliest": 0.3}
    assert ("judged", "against others after 30% of the training at the earliest") in facts(method)


def test_the_page_in_the_repository_is_what_the_command_prints() -> None:
    command = [sys.executable, "-m", "mmsearch", "methods", "--markdown"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True).stdout
    assert PAGE.read_text() == printed, "python -m mmsearch methods --markdown > docs/methods.md"


def test_the_page_has_every_text_of_every_component(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--markdown"]) == 0
    page = capsys.readouterr().out
    for registry in (METHODS, FUSIONS):
        for name in registry.names():
            section = page.split(f"\n### {name}\n")[1].split("\n### ")[0]
            found = describe(registry.get(name))
            assert [text for _, text in facts(found) if text not in section] == []
            cells = [cell for row in knob_rows(found) for cell in row]
            assert [cell for cell in cells if cell.replace("|", "\\|") not in section] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ogm", "--matrix"], "--matrix is about all methods; leave ogm out"),
        (["ogm", "--markdown"], "--markdown is about all methods"),
        (["--markdown", "--json"], "give it alone"),
    ],
)
def test_arguments_that_do_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["methods", *arguments]) == 2
    assert message in capsys.readouterr().err
