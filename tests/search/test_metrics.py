"""A run's figures where Prometheus reads Ray's."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import socket, time, urllib.request

import ray

from mmsearch.search.metrics import Metrics

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
ray.init(address="local", num_cpus=1, include_dashboard=False, _metrics_export_port=port, logging_level="ERROR")
earlier = [
    {"event": "asked", "trial_id": "c", "method": "ogm"},
    {"event": "epoch", "trial_id": "c", "cost_joint_epochs": 7.0},
]
metrics = Metrics("mine", earlier)
for event in [
    {"event": "cluster", "nodes": 3},
    {"event": "asked", "trial_id": "a", "method": "ogm"},
    {"event": "asked", "trial_id": "b", "method": "ogm"},
    {"event": "started", "trial_id": "a"},
    {"event": "started", "trial_id": "b"},
    {"event": "epoch", "trial_id": "a", "cost_joint_epochs": 1.5},
    {"event": "epoch", "trial_id": "a", "cost_joint_epochs": 3.0},
    {"event": "lost", "trial_id": "b", "kind": "machine"},
    {"event": "told", "trial_id": "a", "state": "pruned"},
    {"event": "started", "trial_id": "b"},
    {"event": "started", "trial_id": "c"},
    {"event": "epoch", "trial_id": "c", "cost_joint_epochs": 9.0},
]:
    metrics(event)
until = time.monotonic() + 60
while time.monotonic() < until:
    time.sleep(1)
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    except OSError:
        continue
    if "mmsearch_trials_running" in text:
        break
print("\\n".join(line for line in text.splitlines() if line.startswith("ray_mmsearch")))
"""


def test_ray_exports_what_the_journal_says() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        name, _, rest = line.partition("{")
        labels, _, value = rest.rpartition("} ")
        assert 'run="mine"' in labels and (name == "ray_mmsearch_machines" or 'method="ogm"' in labels)
        found[name.removeprefix("ray_mmsearch_")] = float(value)
    assert found == {
        "machines": 3,
        "trials_running": 2,
        "trials_total": 1,
        "epochs_total": 3,
        "joint_epochs_total": 5,
        "workers_lost_total": 1,
    }
