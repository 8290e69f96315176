"""Fixtures for every test."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MMSEARCH_KNOWLEDGE"] = tempfile.mkdtemp(prefix="mmsearch-knowledge-")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Loads `scripts/NAME.py`, which is in no package, as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "scripts" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def real_clips() -> Path:
    """The folder of real clips."""
    folder = os.environ.get("MMSEARCH_CLIPS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real clips are not here: set MMSEARCH_CLIPS to their folder")
    return Path(folder)


@pytest.fixture
def small_space() -> str:
    """The search space of a sweep of a minute."""
    return """\
epochs: 2
batch_size: 16
encoders:
  frames: {name: frames, size: 32}
methods:
  joint:
  unimodal_teacher: {teacher: ume}
fusions:
  concat:
"""


ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """An S3 service (moto's); its address, and the log of what was asked of it."""
    pytest.importorskip("moto", reason="an S3 to test with: pip install 'mmsearch[test]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=out
        )
    try:
        until = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < until and process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """The address of a prefix in a new bucket; this node's cache is empty."""
    from pyarrow import fs

    for name, value in ACCOUNT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MMSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MMSEARCH_CACHE_GB", raising=False)
    name = "b" + re.sub("[^a-z0-9]+", "", tmp_path.name.lower())[-40:]
    fs.S3FileSystem(endpoint_override=server[0], region="us-east-1", allow_bucket_creation=True).create_dir(name)
    return f"s3://{name}/clips?endpoint_override={server[0]}&region=us-east-1"


_UNSHARE = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
_BEGIN = """
set -eu
ip link set lo up
mkdir -p /tmp/ray
mount -t tmpfs none /tmp/ray
"""


@pytest.fixture
def on_a_host(tmp_path: Path) -> Callable[..., str]:
    """Runs a shell script on a host of its own: with a network, processes and disks that nobody else has.

    The script begins in `tmp_path` with a loopback device and nothing below `/tmp/ray`; what it printed is given back.
    Skips where no host can be made.
    """
    missing = [tool for tool in ("unshare", "ip", "mount") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no hosts can be made here: there is no {missing[0]}")
    tried = subprocess.run([*_UNSHARE, "bash", "-c", _BEGIN], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no hosts can be made here: {tried.stderr.strip()}")

    def run(script: str, environment: Mapping[str, str], timeout: float) -> str:
        done = subprocess.run(
            [*_UNSHARE, "bash", "-c", _BEGIN + script],
            cwd=tmp_path, capture_output=True, text=True, timeout=timeout,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                 "RAY_USAGE_STATS_ENABLED": "0", **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
