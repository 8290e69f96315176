"""The main job as a user runs it: real mp4 files in, a recommendation and a report out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import mmsearch
from mmsearch.data import ClipData, Dataset, Store
from mmsearch.data.demo import DemoConfig, write_demo
from mmsearch.training import evaluate

SPACE = """\
epochs: 2
batch_size: 16
encoders:
  frames: {name: frames, size: 32}
methods:
  joint:
  ogm:
  unimodal_teacher: {teacher: [ume, umt]}
fusions:
  concat:
"""
TRIALS = 7


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "mmsearch.sweep", *map(str, arguments), "--plain"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small demo clips, a second task on them, and a search space."""
    home = tmp_path_factory.mktemp("home")
    write_demo(home / "clips", DemoConfig.of("sound_dominates", n_clips=150, n_classes=3), workers=1)
    with (home / "clips/manifest.csv").open() as f:
        table = list(csv.DictReader(f))
    classes = sorted({row["label"] for row in table})
    with (home / "clips/first.csv").open("w") as f:
        writer = csv.DictWriter(f, [*table[0], "first"])
        writer.writeheader()
        writer.writerows([{**row, "first": "yes" if row["label"] == classes[0] else "no"} for row in table])
    yaml = (home / "clips/dataset.yaml").read_text().splitlines()
    modalities = yaml[yaml.index("modalities:") :]
    (home / "clips/first.yaml").write_text(
        "\n".join(["name: first", "manifest: first.csv", "label: first", *modalities]) + "\n"
    )
    (home / "space.yaml").write_text(SPACE)
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> tuple[Path, str]:
    """A finished sweep: its folder and what it printed."""
    out = home / "run"
    arguments = command(
        "--dataset", home / "clips/dataset.yaml", "--space", home / "space.yaml", "--out", out, "--trials", TRIALS,
        "--seeds", 2,
    )  # fmt: skip
    result = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "MMSEARCH_CACHE": str(home / "cache")},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return out, result.stdout + result.stderr


def test_it_ends_with_a_recommendation_and_a_report(run: tuple[Path, str]) -> None:
    out, printed = run
    recommendation = json.loads((out / "recommendation.json").read_text())
    decision = recommendation["decision"]
    assert decision["kind"] in {"method", "baseline", "unimodal", "no_clear_winner"}
    assert {"method", "fusion", "modality", "config"} <= decision.keys()
    assert decision["headline"] in printed.replace("\n", " ") or decision["headline"][:30] in printed
    assert "report.html" in printed
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    finalists = {f["method"] for f in recommendation["finalists"]}
    assert {"joint", "unimodal", "unimodal_teacher"} <= finalists
    for f in recommendation["finalists"]:
        assert len(f["seeds"]) in ([2] if f["method"] in ("joint", "unimodal") else [1, 2]), "the beaten are dropped"
        assert len(f["select"]["ci95"]) == len(f["test"]["ci95"]) == 2


def test_it_ends_with_a_diagnosis_of_confirmed_models(run: tuple[Path, str]) -> None:
    out, _ = run
    recommendation = json.loads((out / "recommendation.json").read_text())
    found = recommendation["diagnosis"]
    assert found == json.loads((out / "diagnosis.json").read_text())
    confirmed = {f["label"]: f["trial_ids"] for f in recommendation["finalists"]}
    assert "joint" in found["models"]
    for model in found["models"].values():
        assert model["trial_id"] in confirmed[model["label"]]
        assert all(m["gap"] is not None for m in model["modalities"].values()) or model["label"].endswith(" alone")
    assert set(found["models"]["joint"]["robustness"]) == {"sound/snr_db", "frames/severity"}
    names = [e["name"] for e in lines(out / "journal.jsonl") if e["event"] == "phase"]
    assert names.index("decide") < names.index("diagnose") < names.index("done")


def test_nothing_of_ray_reaches_the_user(run: tuple[Path, str]) -> None:
    printed = run[1]
    for noise in ("ray", "Ray", "raylet", "WARNING", "Traceback", "Tuner", "\x1b["):
        assert noise not in printed.replace("logs/ray.log", ""), noise


def test_every_trial_is_one_line(run: tuple[Path, str]) -> None:
    trials = lines(run[0] / "trials.jsonl")
    keys = {
        "trial_id", "state", "stage", "method", "fusion", "config", "seed", "epochs", "score", "cost_joint_epochs",
        "seconds", "reason", "retries",
    }  # fmt: skip
    assert all(keys <= t.keys() for t in trials)
    assert len({t["trial_id"] for t in trials}) == len(trials)
    assert {t["state"] for t in trials} <= {"complete", "pruned"}
    assert {"search", "confirm", "teacher", "refit"} == {t["stage"] for t in trials}


def test_two_trials_that_need_the_same_teacher_train_it_once(run: tuple[Path, str]) -> None:
    asked = [e for e in lines(run[0] / "journal.jsonl") if e["event"] == "asked"]
    assert len({e["trial_id"] for e in asked}) == len(asked)
    users = [e for e in asked if e["document"]["teachers"] and e["document"]["seed"] == 0]
    teachers = [e for e in asked if e["stage"] == "teacher" and e["document"]["seed"] == 0]
    assert len(users) >= 2
    assert len(teachers) == 2


def test_test_is_read_once_and_after_the_decision(run: tuple[Path, str]) -> None:
    events = lines(run[0] / "journal.jsonl")
    kinds = [e["event"] if e["event"] != "phase" else e["name"] for e in events]
    assert kinds.count("test_read") == 1
    assert kinds.index("decide") < kinds.index("test_read") < kinds.index("test") < kinds.index("done")


def test_another_label_column_on_the_same_clips_decodes_nothing(home: Path, run: tuple[Path, str]) -> None:
    before = Store.open(home / "cache/store").decodes
    assert before == 150
    result = subprocess.run(
        [sys.executable, "-m", "mmsearch", "prepare", str(home / "clips/first.yaml")],
        capture_output=True,
        text=True,
        env={**os.environ, "MMSEARCH_CACHE": str(home / "cache")},
    )
    assert "150 clips stored" in result.stdout and "(0 decoded now)" in result.stdout, result.stdout + result.stderr
    assert Store.open(home / "cache/store").decodes == before


def test_the_model_handed_over_says_of_raw_files_what_its_evaluation_says(home: Path, run: tuple[Path, str]) -> None:
    best = run[0] / "best"
    assert f"model: {best}" in run[1].replace("\n", "")
    config = json.loads((best / "config.json").read_text())
    data = ClipData.open(run[0] / "data.json")
    assert config["origin"]["stage"] == "refit"
    assert config["origin"]["clips"] == int((~data.test).sum())
    files = {c.clip_id: c.paths["frames"] for c in Dataset.load(home / "clips/dataset.yaml").clips}
    evaluation = evaluate(mmsearch.load(best).predictor, data, "test")
    asked = [str(files[data.clip_ids[i]]) for i in evaluation.index]
    content = Path(asked[0]).read_bytes()
    bad = {"damaged": content[:600] + bytes(len(content) - 600), "empty": b"", "text": b"no film\n" * 99}
    for name, bytes_ in bad.items():
        (home / f"{name}.mp4").write_bytes(bytes_)
    asked[3:3] = [str(home / f"{name}.mp4") for name in bad]
    result = subprocess.run(
        [sys.executable, "-m", "mmsearch", "predict", str(best), *asked, "--json"], capture_output=True, text=True
    )
    assert result.returncode == 1 and not result.stderr, result.stderr
    found = json.loads(result.stdout)
    assert [p["path"] for p in found] == asked
    assert [bool(p["error"]) for p in found] == [3 <= i < 6 for i in range(len(found))]
    good = [p for p in found if not p["error"]]
    assert len(good) >= 20
    assert [p["label"] for p in good] == [data.classes[i] for i in evaluation.probabilities.argmax(1)]
    probabilities = np.array([[p["probabilities"][c] for c in data.classes] for p in good])
    assert np.abs(probabilities - evaluation.probabilities).max() < 1e-6


def test_the_model_is_trained_again_by_its_own_command(home: Path, run: tuple[Path, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mmsearch", "train", str(run[0] / "best/train.yaml"), "--dataset",
         str(home / "clips/dataset.yaml"), "--out", str(home / "again")],
        capture_output=True, text=True, env={**os.environ, "MMSEARCH_CACHE": str(home / "cache")},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    a, b = (mmsearch.load(folder).predictor.model.state_dict() for folder in (run[0] / "best", home / "again"))
    assert all(torch.equal(a[k], b[k]) for k in a | b)


def test_the_views_show_it(run: tuple[Path, str], capsys: pytest.CaptureFixture) -> None:
    from mmsearch.cli import main

    out = run[0]
    one = lines(out / "trials.jsonl")[0]["trial_id"]
    for argv in (["status", out, "--json"], ["show", out], ["show", out, one], ["recommend", out], ["report", out]):
        assert main([str(a) for a in argv]) == 0
    assert main(["status", str(out)]) == 0
    assert "joint" in capsys.readouterr().out


def test_a_finished_sweep_is_extended(home: Path, run: tuple[Path, str]) -> None:
    before = lines(run[0] / "journal.jsonl")
    out = shutil.copytree(run[0], home / "extended")
    result = subprocess.run(
        [sys.executable, "-m", "mmsearch", "extend", str(out), "--methods", "opm", "--trials", "1", "--plain"],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "MMSEARCH_CACHE": str(home / "cache")},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    events = lines(out / "journal.jsonl")
    assert events[: len(before)] == before
    asked = [e for e in events[len(before) :] if e["event"] == "asked"]
    assert [e["method"] for e in asked if e["stage"] == "search"] == ["opm"]
    assert not {e["trial_id"] for e in asked} & {e["trial_id"] for e in before if e["event"] == "asked"}
    assert sum(e["event"] == "test_read" for e in events) == 1
    assert json.loads((out / "recommendation.json").read_text())["provenance"]["extensions"] == 1


def test_ctrl_c_stops_cleanly_and_says_how_to_resume(home: Path, run: tuple[Path, str]) -> None:
    out, other = home / "stopped", home / "other"
    shutil.copytree(run[0], other)
    (home / "points.yaml").write_text("ogm:\n  - alpha: 0.111\n")
    environment = {**os.environ, "MMSEARCH_CACHE": str(home / "cache")}
    process = subprocess.Popen(
        command("--dataset", home / "clips/dataset.yaml", "--space", home / "space.yaml", "--out", out,
                "--trials", TRIALS + 3, "--seeds", 1, "--sampler", "gp", "--points", home / "points.yaml",
                "--warm-start", other),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not (out / "trials.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 130, printed
    assert f"mmsearch resume {out}" in printed
    assert "Traceback" not in printed
    done = {t["trial_id"] for t in lines(out / "trials.jsonl")}
    shutil.rmtree(other)
    (home / "points.yaml").unlink()
    again = subprocess.run(
        [sys.executable, "-m", "mmsearch", "resume", str(out), "--plain"],
        capture_output=True, text=True, timeout=400, env=environment,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    told = [e["trial_id"] for e in lines(out / "journal.jsonl") if e["event"] == "told"]
    assert len(told) == len(set(told))
    assert done <= set(told)
    assert (out / "report.html").exists()
    asked = [e for e in lines(out / "journal.jsonl") if e["event"] == "asked"]
    assert "point" in {e["why"] for e in asked}, "what it started from is in its own folder"
