"""A cluster of three machines, one of which is lost: its trial goes on elsewhere from its checkpoint."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mmsearch.search.journal import read_events
from mmsearch.search.trials import records

ROOT = Path(__file__).parents[2]

SCRIPT = """
ray start --head --port=6380 --num-cpus=0 --object-store-memory=100000000 --include-dashboard=false > head.log 2>&1
for node in 1 2 3; do
  ray start --address=127.0.0.1:6380 --num-cpus=1 --object-store-memory=100000000 > node$node.log 2>&1
done
python {driver} run --address 127.0.0.1:6380 --slots 3 --cpus-per-trial 1 --trials 8 --epochs 12 \
    --behave '{{"sleep": 0.4}}' &
driver=$!
python - <<'END'
import os
import signal
import subprocess
import time
from pathlib import Path

from mmsearch.search.journal import read_events
from mmsearch.search.trials import records

until = time.monotonic() + 200
while True:
    assert time.monotonic() < until, "the sweep did not get so far"
    time.sleep(0.05)
    events = read_events(Path("run")) if Path("run/journal.jsonl").exists() else []
    busy = {{i for i, r in records(events).items() if not r.finished and r.document["method"].get("teacher") != "ume"}}
    reached = {{e["trial_id"]: e["epoch"] for e in events if e["event"] == "checkpointed"}}
    if sum(2 <= reached.get(i, 0) <= 8 for i in busy) == 3:
        break
raylets = subprocess.run(["pgrep", "-x", "raylet"], capture_output=True, text=True, check=True).stdout.split()
print("raylets", len(raylets))
os.kill(max(map(int, raylets)), signal.SIGKILL)
END
wait $driver
"""


def test_the_trial_of_a_lost_machine_goes_on_elsewhere_from_its_checkpoint(tmp_path: Path, on_a_host) -> None:
    printed = on_a_host(
        SCRIPT.format(driver=ROOT / "tests/search/driver.py"),
        {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        timeout=300,
    )
    assert "raylets 4" in printed.splitlines()
    events = read_events(tmp_path / "run")
    found = records(events)
    assert len(found) >= 8 and all(r.finished for r in found.values())
    assert set(Counter(e["trial_id"] for e in events if e["event"] == "told").values()) == {1}
    lost = [e["trial_id"] for e in events if e["event"] == "lost"]
    assert len(lost) == 1
    again = [e for e in events if e["event"] == "started" and e["attempt"] > 1]
    assert [e["trial_id"] for e in again] == lost and again[0]["epoch"] >= 2
    epochs = Counter((e["trial_id"], e["epoch"]) for e in events if e["event"] == "epoch")
    assert max(epochs.values()) == 1, "no epoch is reported twice"
    trained = Counter((tmp_path / "run/trained.log").read_text().splitlines())
    assert sum(trained.values()) - len(trained) <= 1, "only the epoch under way is trained again"
