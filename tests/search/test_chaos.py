"""A sweep whose worker, driver and node are killed: the short form of `scripts/bench_chaos.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_chaos.py"


def test_kills_of_driver_worker_and_node_change_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--problems", "generated", "--slots", "1", "--kills", "3", "--nap", "0.02"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything holds" in done.stdout
    assert "killed: {'driver': 1, 'node': 1, 'worker': 1}" in done.stdout
