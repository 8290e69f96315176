"""A whole sweep on stored clips with real trainings, in this process: the sources, study and jobs of a real one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.data import ClipData, Dataset, clip_data, pipeline, prepare
from mmsearch.recommend.conclude import conclude
from mmsearch.search.finalists import finalists
from mmsearch.search.job import Job, figures_of, tidy, weights_dir
from mmsearch.search.journal import Journal
from mmsearch.search.sources import FINISHED, Chain, ConfirmSource, SearchSource, Source, TeacherSource
from mmsearch.search.space import Space
from mmsearch.search.study import Study
from mmsearch.training import evaluate

SPACE = """
epochs: 4
batch_size: 16
methods:
  joint:
  ogm:
  unimodal_teacher: {teacher: [ume, umt]}
fusions:
  concat:
  stacking:
optimizers:
  sgd: {lr: 0.004}
"""
SWEEP: dict[str, Any] = {"arguments": {"dataset": "/somewhere/poses.yaml", "seeds": 2, "cpus_per_trial": 1.0}}


def write_vectors(folder: Path, *, clips: int = 90, classes: int = 3) -> Path:
    """A dataset of two feature vectors a clip, in a column each; some lack the second."""
    rng = np.random.default_rng(0)
    places = {u: rng.normal(size=(classes, 6)) for u in ("pose", "tone")}
    rows = ["clip_id,pose_path,tone_path,label"]
    folder.mkdir()
    for i in range(clips):
        cells = []
        for u, at in places.items():
            vector = (0.6 * at[i % classes] + rng.normal(size=6)).astype(np.float32)
            np.save(folder / f"{u}{i}.npy", vector)
            cells.append(f"{u}{i}.npy" if u == "pose" or i % 7 else "")
        rows.append(f"c{i},{','.join(cells)},{'abcdef'[i % classes]}")
    (folder / "poses.csv").write_text("\n".join(rows) + "\n")
    yaml = folder / "poses.yaml"
    yaml.write_text(
        "name: poses\nmanifest: poses.csv\nmodalities:\n"
        "  pose: {kind: vector, column: pose_path}\n  tone: {kind: vector, column: tone_path}\n"
    )
    return yaml


def stored(yaml: Path, store: Path) -> ClipData:
    """The clips of a dataset, decoded without Ray."""
    dataset = Dataset.load(yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_ray", lambda: contextlib.nullcontext(1))
        patch.setattr(
            pipeline, "_run", lambda items, size, place, kinds: iter([pipeline.decode_shard(items, place, kinds)])
        )
        prepared = prepare(dataset, store)
    return clip_data(dataset, store, prepared)


def begin(run_dir: Path, data: ClipData) -> None:
    """A run's folder."""
    run_dir.mkdir()
    data.save(run_dir / "data.json")
    (run_dir / "space.yaml").write_text(SPACE)


def study_of(run_dir: Path, data: ClipData, journal: Journal) -> Study:
    """The study of a run that begins or goes on."""
    return Study(Space.load(run_dir / "space.yaml", data.modalities, data=data.digest), journal)


def search(study: Study, run_dir: Path) -> None:
    """Search and confirmation."""
    source = Chain(
        {
            "teachers": TeacherSource(study),
            "search": SearchSource(study, trials=7),
            "confirm": ConfirmSource(study, finalists, seeds=2),
        }
    )
    drive(source, study, run_dir)


def concluded(journal: Journal, data: ClipData, run_dir: Path) -> dict[str, Any]:
    """The recommendation, with test read."""

    def read(trial_ids: list[str]) -> dict[str, Any]:
        return {i: figures_of(evaluate(weights_dir(run_dir, i), data, "test")) for i in trial_ids}

    return conclude(run_dir, journal, data, SWEEP, read)


class Killed(Exception):
    """Where a driver with a worker ends."""


def drive(source: Source, study: Study, run_dir: Path, *, kill_at: int | None = None) -> None:
    """Runs what a source asks, one trial at a time.

    Args:
        kill_at: an epoch of the first trial that is trained, after which everything stops.
    """
    again = study.unfinished()
    while True:
        if again:
            record = again.pop(0)
        else:
            answer = source.next()
            if answer is FINISHED:
                return
            study.issue(answer)
            record = study.records[answer.trial_id]
        job = Job(run_dir, record.trial_id, record.stage, record.document, device="cpu", checkpoint_seconds=0)
        while not record.finished:
            for event in job.step():
                kind, fields = event["event"], {k: v for k, v in event.items() if k != "event"}
                if kind == "started":
                    study.started(record.trial_id, event["epoch"])
                elif kind == "epoch":
                    study.report(record.trial_id, fields)
                elif kind == "checkpointed":
                    if event["epoch"] == kill_at:
                        raise Killed
                elif kind == "finished":
                    study.tell(record.trial_id, "complete", **fields)
                else:
                    study.tell(record.trial_id, "failed", reason=str(event.get("reason")))
                if record.finished:
                    break
        tidy(run_dir, record.trial_id, keep=record.state == "complete" and record.stage != "search")
        source.told(record)
