"""Several processes train like one."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mmsearch.batch import Batch, View
from mmsearch.data.clips import ClipData
from mmsearch.errors import MMSearchError
from mmsearch.fusion import FUSIONS
from mmsearch.methods import METHODS, Context
from mmsearch.methods.joint import Joint
from mmsearch.methods.mla import MLA
from mmsearch.testing import MethodConformance, difference, finish, teachers_for, toy_data, weights
from mmsearch.training import Training, train
from mmsearch.training.world import World

SIZE = 2
CLIPS, BATCH = 90, 15  # odd batches are uneven slices, and the last one is smaller
MICRO_BATCH = 7  # of 8 and 7 clips: the processes must agree on their number
EPOCHS = 4


class OneRow:
    """Batches of one clip: fewer than processes."""

    def epoch_rows(self, ctx: Context, rows: np.ndarray) -> tuple[np.ndarray, None]:
        return rows[ctx.epoch : ctx.epoch + 1], None


@dataclasses.dataclass
class OneClip(OneRow, Joint):
    """One optimiser step a batch of one clip."""

    name = "z_one_clip"


@dataclasses.dataclass
class OneClipMLA(OneRow, MLA):
    """Several of them."""

    name = "z_one_clip_mla"


@dataclasses.dataclass
class Twice(Joint):
    """Gathers gradients in two calls before one update, and leaves an encoder without any in every second step."""

    name = "z_twice"

    def step(self, ctx: Context, batch: Batch) -> torch.Tensor:
        masks = [["m0"]] if ctx.epoch_progress else [None, ["m0"]]
        for mask in masks:
            _, loss = ctx.accumulate(batch, lambda out, part: self.compute_loss(ctx, out, part), mask=mask)
        ctx.update()
        return loss


OWN = (OneClip, OneClipMLA, Twice)


def register() -> list[str]:
    """The methods of mmsearch and those above."""
    names = METHODS.names()
    for method in OWN:
        if method.name not in names:
            METHODS.register(method)
    return METHODS.names()


def document(name: str, data: ClipData, normalise: bool = False) -> dict[str, Any]:
    """A method at its paper's settings."""
    conformance = MethodConformance()
    conformance.method = {"name": name}  # type: ignore[misc]
    encoders = {u: {"name": "vector", "normalise": normalise} for u in data.modalities}
    sizes = {"encoders": encoders, "epochs": EPOCHS, "batch_size": BATCH}
    return {**conformance.document(data), **sizes}


def result(run: Training) -> dict[str, Any]:
    """What must not depend on the number of processes."""
    last = finish(run)[-1]
    return {"weights": weights(run), "cost": last.cost_joint_epochs, "score": last.score}


def judge(task: dict[str, Any], data: ClipData) -> str:
    """What is wrong with this process's training of a task; empty for nothing."""
    teachers = {u: Path(p) for u, p in task["teachers"].items()}
    mine = result(train(task["document"], data, teachers=teachers, micro_batch=MICRO_BATCH))
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, mine["weights"])
    if difference(gathered[0], gathered[-1]):
        return f"the processes' weights differ by {difference(gathered[0], gathered[-1]):.2g}"
    if not task["alone"]:
        return ""
    alone = torch.load(task["alone"])
    d = difference(mine["weights"], alone["weights"])
    if not d < 1e-4:
        return f"weights differ by {d:.2g} from those of one process"
    # a method that must see the whole batch before its loss pays one more forward pass
    if not 0.95 * alone["cost"] <= mine["cost"] <= 1.5 * alone["cost"]:
        return f"{mine['cost']:.3f} joint epochs, in one process {alone['cost']:.3f}"
    return ""


def work(folder: Path, rank: int) -> None:
    """One of the processes: every task in a group of its own, so that one that fails leaves the others alone."""
    torch.set_num_threads(1)
    register()
    data = toy_data(clips=CLIPS)
    failures = {}
    for name, task in json.loads((folder / "tasks.json").read_text()).items():
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/group-{name}",
            rank=rank,
            world_size=SIZE,
            timeout=datetime.timedelta(seconds=20),
        )
        try:
            problem = judge(task, data)
        except Exception:
            problem = traceback.format_exc(limit=-4)
        finally:
            dist.destroy_process_group()
        if problem:
            failures[name] = problem
    (folder / f"failures-{rank}.json").write_text(json.dumps(failures))


def test_two_processes_train_every_method_and_fusion_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_found", {n: METHODS.get(n) for n in METHODS.names()})
    data = toy_data(clips=CLIPS)
    tasks: dict[str, dict[str, Any]] = {}
    documents = {name: document(name, data) for name in register()}
    joint = {**document("joint", data), "epochs": 2}
    documents |= {f"joint-{name}": {**joint, "fusion": {"name": name}} for name in FUSIONS.names()}
    for name, wanted in documents.items():
        try:
            arguments = teachers_for(wanted, data, tmp_path / "teachers" / name)
            run = train(data=data, **arguments)
        except MMSearchError as refused:
            raise AssertionError(f"{name} refuses two modalities: {refused}") from refused
        torch.save(result(run), tmp_path / f"{name}.pt")
        teachers = {u: str(p) for u, p in arguments["teachers"].items()}
        tasks[name] = {"document": arguments["document"], "teachers": teachers, "alone": str(tmp_path / f"{name}.pt")}
    batch_norm = document("uniform", data, normalise=True)
    tasks["uniform-with-batch-norm"] = {"document": batch_norm, "teachers": {}, "alone": ""}
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(r)], env=environment) for r in range(SIZE)]
    try:
        assert [p.wait(timeout=120) for p in processes] == [0] * SIZE
    finally:
        for p in processes:
            p.kill()
    failures = {r: json.loads((tmp_path / f"failures-{r}.json").read_text()) for r in range(SIZE)}
    assert not any(failures.values()), "\n".join(
        f"{name} (process {r}): {problem}" for r, found in failures.items() for name, problem in found.items()
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("clips", [1, 2, 7, 16])
def test_the_processes_share_a_batch_as_the_data_do(size: int, clips: int) -> None:
    data = toy_data(clips=80)
    rows = data.part("train")[:clips]
    views = {"m0": View()}
    whole = next(data.batches(rows, clips, views))
    counted = []
    for rank in range(size):
        world = World(rank, size)
        batch = next(data.batches(rows, clips, views, shard=world.shard))
        assert torch.equal(batch.inputs["m0"], whole.inputs["m0"][world.local(clips)])
        assert torch.equal(batch.label, whole.label)
        counted += rows[world.bounds(clips)[rank]].tolist()
    assert counted == rows.tolist()


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
