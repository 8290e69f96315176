"""Disks that are full: what was written before is whole, and the reason is told in one line."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mmsearch.errors import MMSearchError, StorageError
from mmsearch.files import storage_trouble
from mmsearch.search.journal import FILE, Journal, read_events

JOURNAL = """
import resource, signal, sys
from pathlib import Path
from mmsearch.errors import StorageError
from mmsearch.search.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
heard = []
journal.subscribe(heard.append)
try:
    for i in range(100):
        journal.append({"event": "epoch", "trial_id": "a", "epoch": i, "score": 0.5})
except StorageError as error:
    print(len(heard), error)
journal.close()
"""

CHECKPOINT = """
import resource, signal, sys
from pathlib import Path
import torch
from mmsearch.files import storage_trouble
from mmsearch.training.checkpoint import load_state, save_state
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
save_state(path, {"a": torch.ones(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_state(path, {"a": torch.zeros(10000)})
except Exception as error:
    print(storage_trouble(error, path))
print(float(load_state(path)["a"].sum()), sorted(p.name for p in path.iterdir()))
"""


def run(program: str, folder: Path) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_journal_on_a_full_disk_ends_with_its_last_whole_event(tmp_path: Path) -> None:
    [line] = run(JOURNAL, tmp_path)
    heard, _, reason = line.partition(" ")
    assert reason == f"{tmp_path / FILE}: file too large"
    assert len(read_events(tmp_path)) == 1 + int(heard) and (tmp_path / FILE).read_bytes().endswith(b"}\n")


def test_a_journal_that_is_gone_takes_no_more_events(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        (tmp_path / FILE).unlink()
        with pytest.raises(StorageError, match=r"journal.jsonl: the file is gone"):
            journal.append({"event": "told", "trial_id": "a"})


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before(tmp_path: Path) -> None:
    trouble, left = run(CHECKPOINT, tmp_path)
    assert trouble == f"{tmp_path}: file too large" and left == "10.0 ['state.safetensors']"


def test_only_the_storage_s_own_errors_are_its_trouble(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/runs/a")
    wrapped = MMSearchError("cannot write")
    wrapped.__cause__ = full
    assert storage_trouble(full, tmp_path) == storage_trouble(wrapped, tmp_path) == "/runs/a: no space left on device"
    assert storage_trouble(FileNotFoundError(errno.ENOENT, "no", "clip.mp4"), tmp_path) is None
    assert storage_trouble(ValueError("planted"), tmp_path) is None
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "trials"))
    assert storage_trouble(denied, tmp_path) == f"{tmp_path / 'trials'}: permission denied"
    assert storage_trouble(ValueError("planted"), tmp_path / "gone") == f"{tmp_path / 'gone'}: the folder is gone"
