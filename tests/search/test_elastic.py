"""A cluster that is empty at first: trials that wait bring machines, which go when the sweep has ended."""

from __future__ import annotations

import json
from pathlib import Path

from mmsearch.search.journal import read_events
from mmsearch.search.trials import records

ROOT = Path(__file__).parents[2]

CLUSTER = {
    "cluster_name": "here",
    "max_workers": 3,
    "upscaling_speed": 10,
    "idle_timeout_minutes": 0.05,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "auth": {},
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 10**8},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 3,
        },
    },
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    **{
        name: []
        for name in (
            "cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands",
            "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
        )
    },
}  # fmt: skip

SCRIPT = """
ray start --head --num-cpus=0 --object-store-memory=100000000 --autoscaling-config=cluster.json \
    --include-dashboard=false > head.log 2>&1
python {driver} run --address auto --slots 3 --cpus-per-trial 1 --trials 8 --epochs 6 --behave '{{"sleep": 0.3}}'
python - <<'END'
import time

import ray

ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
until = time.monotonic() + 60
while sum(node["Alive"] for node in ray.nodes()) > 1 and time.monotonic() < until:
    time.sleep(0.5)
print("left", sum(node["Alive"] for node in ray.nodes()))
END
"""


def test_trials_that_wait_bring_machines_and_let_them_go(tmp_path: Path, on_a_host) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps(CLUSTER))
    printed = on_a_host(
        SCRIPT.format(driver=ROOT / "tests/search/driver.py"),
        {
            "PYTHONPATH": str(ROOT),
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTH_MODE": "disabled",
        },
        timeout=300,
    )
    events = read_events(tmp_path / "run")
    sizes = [e["cpus"] for e in events if e["event"] == "cluster"]
    assert sizes[0] == 0 and max(sizes) == 3
    found = records(events)
    assert all(r.finished and not r.retries for r in found.values()) and len(found) >= 8
    assert printed.splitlines()[-1] == "left 1"
