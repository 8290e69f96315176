"""Two hosts with disks of their own, a bucket between them, a token, and the README's `ray job submit`."""

from __future__ import annotations

import json
from pathlib import Path

from mmsearch.data.demo import DemoConfig, write_demo

ROOT = Path(__file__).parents[1]

SCRIPT = r"""
mkdir disk
mount -t tmpfs none disk
cp -r clips disk/clips
cp space.yaml disk/space.yaml

# The other host: its own network, processes, /tmp/ray and disk.
unshare --net --pid --mount --fork --kill-child --mount-proc bash -eu -c '
  ip link set lo up
  mount -t tmpfs none /tmp/ray
  mount -t tmpfs none disk
  until ip link show other > /dev/null 2>&1; do sleep 0.1; done
  ip address add 10.200.0.2/24 dev other
  ip link set other up
  until ray health-check --address=10.200.0.1:6379 > /dev/null 2>&1; do sleep 0.5; done
  ray start --address=10.200.0.1:6379 --node-ip-address=10.200.0.2 --num-cpus=2 --object-store-memory=100000000 --block
' > other.log 2>&1 &
for child in $(seq 100); do
  other=$(pgrep -P $! | head -n 1 || true)
  if [ -n "$other" ] && [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; then break; fi
  sleep 0.1
done
ip link add here type veth peer name other netns "$other"
ip address add 10.200.0.1/24 dev here
ip link set here up

python -m moto.server -H 10.200.0.1 -p 5000 > moto.log 2>&1 &
until (: < /dev/tcp/10.200.0.1/5000) 2> /dev/null; do sleep 0.1; done
python -c '
from pyarrow import fs
fs.S3FileSystem(endpoint_override="http://10.200.0.1:5000", allow_bucket_creation=True).create_dir("bucket")'

ray start --head --node-ip-address=10.200.0.1 --port=6379 --num-cpus=0 --object-store-memory=100000000 \
  --dashboard-host=127.0.0.1 > head.log 2>&1
python -c '
import time, ray
ray.init(address="10.200.0.1:6379", logging_level="ERROR", log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < 2: time.sleep(0.2)'

query='endpoint_override=http://10.200.0.1:5000&region=us-east-1'
cd disk
submit() {
  ray job submit --address http://127.0.0.1:8265 --working-dir . -- python -m mmsearch.sweep \
    --space space.yaml --trials 5 --seeds 2 --plain "$@"
}
clips="$PWD/clips/dataset.yaml"
submit --dataset "$clips" --out "$PWD/run" > ../refused.log 2>&1 || echo "refused $?"
submit --dataset "$clips" --out "s3://bucket/refused?$query" --store "s3://bucket/store?$query" > ../blind.log 2>&1 \
  || echo "blind $?"
mmsearch prepare "$clips" --out "s3://bucket/store?$query" --clips "s3://bucket/clips.json?$query" > ../prepare.log 2>&1
submit --dataset "s3://bucket/clips.json?$query" --out "s3://bucket/run?$query" --resume > ../job.log 2>&1
MMSEARCH_CACHE=$PWD/elsewhere mmsearch status "s3://bucket/run?$query" --json > ../status.json
python - "s3://bucket/run?$query" <<'END'
import os, sys
from mmsearch.data.places import Place
place = Place(sys.argv[1])
files = {name: place.read(name) for name in place.tree()}
for secret in ("AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"):
    assert not [n for n, content in files.items() if os.environ[secret].encode() in content], secret
open("../journal.jsonl", "wb").write(b"".join(files[n] for n in sorted(files) if n.startswith("journal/")))
END
"""


def test_a_submitted_job_sweeps_on_another_host_through_a_bucket(tmp_path: Path, on_a_host, small_space: str) -> None:
    write_demo(tmp_path / "clips", DemoConfig.of("sound_dominates", n_clips=120, n_classes=2), workers=1)
    (tmp_path / "space.yaml").write_text(small_space)
    printed = on_a_host(
        SCRIPT,
        {
            "PYTHONPATH": str(ROOT),
            "MMSEARCH_CACHE": str(tmp_path / "disk/cache"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a-token-of-this-test-alone",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        timeout=400,
    )
    assert "refused 1" in printed and "blind 1" in printed
    refused = (tmp_path / "refused.log").read_text()
    assert "error: --out: " in refused and "10.200.0.2 of the cluster cannot see it" in refused
    assert "error: --dataset: " in (tmp_path / "blind.log").read_text()
    job = (tmp_path / "job.log").read_text()
    assert "report.html" in job and "run: s3://bucket/run" in job and "succeeded" in job
    assert "Traceback" not in job
    events = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert next(e for e in events if e["event"] == "decoded")["decoded"] == 0
    assert {e["nodes"] for e in events if e["event"] == "cluster"} == {2}
    told = [e for e in events if e["event"] == "told"]
    assert told and all(e["state"] in ("complete", "pruned") for e in told)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["phase"] == "done" and status["spending"]["device"] == "core"
    assert not list((tmp_path / "disk").iterdir()), "what these hosts wrote on their disks went with them"
