"""A run's folder on a cluster of two machines: one that both see, and one that only the driver sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from mmsearch.errors import MMSearchError
from mmsearch.search.cluster import check_shared

folder = Path(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
said = {}
ray.init(address=cluster.address, log_to_driver=False)
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()

# A name that leads to the folder in this process alone stands for a disk of this machine alone.
own = os.dup2(os.open(folder, os.O_RDONLY), 200, inheritable=False)
for name, place in {"shared": folder, "own": Path(f"/proc/self/fd/{own}")}.items():
    try:
        check_shared("--out", place)
        said[name] = ""
    except MMSearchError as error:
        said[name] = str(error)
print(json.dumps(said))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc: stands for the disk of one machine")
def test_a_folder_that_another_machine_cannot_see_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["shared"] == ""
    assert "of the cluster cannot see it" in said["own"] and said["own"].startswith("--out: ")
    assert list(folder.iterdir()) == []
