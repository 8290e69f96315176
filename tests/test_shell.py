"""Shell scripts and the Dockerfile, held against their linters."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    p
    for folder in ("scripts", "cluster", ".ci")
    for p in (ROOT / folder).rglob("*")
    if p.is_file() and p.read_bytes().startswith(b"#!/usr/bin/env bash")
)
TOOLS = Path(sysconfig.get_path("scripts"))


def linted(tool: str, file: Path) -> str:
    done = subprocess.run([TOOLS / tool, file], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_there_are_scripts() -> None:
    assert {p.name for p in SCRIPTS} >= {"setup", "test", "demo", "run", "slurm.sh"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_script_has_no_finding(script: Path) -> None:
    assert linted("shellcheck", script) == ""


def test_dockerfile_has_no_finding() -> None:
    assert linted("hadolint", ROOT / "cluster" / "Dockerfile") == ""


def test_findings_are_found(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp\n")
    (tmp_path / "x.sh").write_text("#!/usr/bin/env bash\nrm $1/*\n")
    assert "DL3007" in linted("hadolint", tmp_path / "Dockerfile")
    assert "SC2086" in linted("shellcheck", tmp_path / "x.sh")
