"""`mmsearch cluster check`: the files of `cluster/` validate, and planted mistakes are found with their line."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import yaml

from mmsearch.cli import main

CLUSTER = Path(__file__).parents[2] / "cluster"
FILES = sorted(str(p.relative_to(CLUSTER)) for p in CLUSTER.rglob("*.yaml"))
AWS, RAYCLUSTER, RAYJOB = "aws.yaml", "kuberay/raycluster.yaml", "kuberay/rayjob.yaml"
JOB = "runtime_env.yaml"


def changed(tmp_path: Path, name: str, old: str, new: str) -> tuple[Path, int]:
    """A file with its first `old` replaced, and the line where that is."""
    text = (CLUSTER / name).read_text()
    assert old in text
    path = tmp_path / Path(name).name
    path.write_text(text.replace(old, new, 1))
    return path, text[: text.index(old)].count("\n") + 1


@pytest.mark.parametrize("name", FILES)
def test_file_of_the_project_validates(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "check", str(CLUSTER / name)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{CLUSTER / name}: valid\n" and told.err == ""


@pytest.mark.parametrize("name", FILES)
def test_file_begins_with_what_to_edit_and_how_to_check_it(name: str) -> None:
    edit, check = (CLUSTER / name).read_text().splitlines()[:2]
    assert all(f"{i}. " in edit for i in (1, 2, 3)) and f"mmsearch cluster check cluster/{name}" in check


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        (AWS, "min_workers: 0", "min_worker: 0", "has no 'min_worker'; did you mean 'min_workers'?"),
        (AWS, "head_node_type: head", "head_node_type: haed", "no node type 'haed'; did you mean 'head'?"),
        (AWS, "idle_timeout_minutes: 5", "idle_timeout_minutes: soon", "is 'soon', not of type number"),
        (AWS, "provider:\n  type: aws\n  region: us-west-2\n", "provider: aws\nx:\n", "is 'aws', not of type object"),
        (AWS, "head_node_type: head", "head_node_type: []", "is [], not of type string"),
        (AWS, "type: aws", "type: awss", "unknown provider 'awss'; did you mean 'aws'?"),
        (AWS, "ray2.60.0", "ray2.59.0", "ray 2.59.0, but 2.60.0 is installed here"),
        (AWS, "mmsearch:0.1.0-ray2.60.0", "mmsearch:0.0.9-ray2.60.0", "mmsearch 0.0.9, but 0.1.0 is installed"),
        (AWS, ":0.1.0-ray2.60.0", ":latest", "is another image tomorrow"),
        (RAYCLUSTER, "enableInTreeAutoscaling", "enableInTreeAutoscalng", "did you mean 'enableInTreeAutoscaling'?"),
        (RAYCLUSTER, "minReplicas: 0", 'minReplicas: "0"', "is '0', not of type integer"),
        (RAYCLUSTER, "kind: RayCluster", "kind: RayClutser", "did you mean 'RayCluster'?"),
        (RAYCLUSTER, 'rayVersion: "2.60.0"', 'rayVersion: "2.9.0"', "ray 2.9.0, but 2.60.0 is installed here"),
        (RAYCLUSTER, "mountPath: /dev/shm", "montPath: /dev/shm", "has no 'montPath'; did you mean 'mountPath'?"),
        (RAYCLUSTER, "ray.io/v1", "ray.io/v1alpha1", "'ray.io/v1alpha1', not 'ray.io/v1'"),
        (RAYJOB, "backoffLimit: 5", "backofLimit: 5", "has no 'backofLimit'; did you mean 'backoffLimit'?"),
        (RAYJOB, "maxReplicas: 8", "maxReplicas: many", "is 'many', not of type integer"),
        (JOB, "env_vars:", "env_var:", "has no 'env_var'; did you mean 'env_vars'?"),
        (JOB, "env_vars:", "pip: [torch]\nenv_vars:", "pip installs on every machine at every start"),
    ],
)
def test_planted_mistake_is_found_in_its_line(
    name: str, old: str, new: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.metadata.version("ray") == "2.60.0"
    path, line = changed(tmp_path, name, old, new)
    assert main(["cluster", "check", str(path)]) == 2
    err = capsys.readouterr().err
    assert f"{path}:{line}: " in err and says in err and "Traceback" not in err


def test_every_mistake_of_every_file_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    aws, _ = changed(tmp_path, AWS, "max_workers: 8", "max_worker: 8")
    job, _ = changed(tmp_path, RAYJOB, "backoffLimit", "backof")
    assert main(["cluster", "check", str(aws), str(CLUSTER / "gcp.yaml"), str(job)]) == 2
    told = capsys.readouterr()
    assert "'max_worker'" in told.err and "'backof'" in told.err and "2 mistakes found" in told.err
    assert told.out == f"{CLUSTER / 'gcp.yaml'}: valid\n"


def test_head_takes_no_trial_and_workers_go_to_zero() -> None:
    for name in ("aws.yaml", "gcp.yaml"):
        types = yaml.safe_load((CLUSTER / name).read_text())["available_node_types"]
        assert types.pop("head")["resources"] == {"CPU": 0, "GPU": 0}
        assert all(t["min_workers"] == 0 < t["max_workers"] for t in types.values())
    spec = yaml.safe_load((CLUSTER / RAYCLUSTER).read_text())["spec"]
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert [g["minReplicas"] for g in spec["workerGroupSpecs"]] == [0]


def test_job_runs_the_cluster_of_the_other_file() -> None:
    job = yaml.safe_load((CLUSTER / RAYJOB).read_text())["spec"]
    assert job["rayClusterSpec"] == yaml.safe_load((CLUSTER / RAYCLUSTER).read_text())["spec"]


def test_a_manifest_may_stand_beside_its_volume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: mmsearch}\n---\n"
    path = tmp_path / "all.yaml"
    path.write_text(claim + (CLUSTER / RAYJOB).read_text().replace("backoffLimit", "backof"))
    assert main(["cluster", "check", str(path)]) == 2
    line = path.read_text().splitlines().index("  backof: 5") + 1
    assert f"{path}:{line}: spec has no 'backof'; did you mean 'backoffLimit'?" in capsys.readouterr().err
    path.write_text(claim)
    assert main(["cluster", "check", str(path)]) == 2
    assert f"{path}:1: neither a Ray launcher file" in capsys.readouterr().err


def test_another_kind_of_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services: {}\n")
    assert main(["cluster", "check", str(path)]) == 2
    assert f"{path}:1: neither a Ray launcher file" in capsys.readouterr().err


def test_storage_is_written_to_read_and_left_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "check", str(CLUSTER / AWS), "--storage", str(tmp_path)]) == 0
    assert f"{tmp_path}: can be written to" in capsys.readouterr().out and list(tmp_path.iterdir()) == []


def test_storage_that_cannot_be_written_to_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["cluster", "check", str(CLUSTER / AWS), "--storage", str(tmp_path / "file/below")]) == 2
    assert f"{tmp_path / 'file/below'}: " in capsys.readouterr().err
