"""The one training loop: a generator that yields after every epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmsearch.batch import Batch, Output
from mmsearch.encoders import ENCODERS
from mmsearch.errors import MMSearchError
from mmsearch.training.checkpoint import load_state, save_state
from mmsearch.training.cost import CostMeter, joint_step_flops
from mmsearch.training.document import resolve, seed_of
from mmsearch.training.evaluation import Evaluation, Predictor, autocast, evaluate, pick_device
from mmsearch.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from mmsearch.data.clips import ClipData


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """What the loop yields after an epoch.

    Attributes:
        epoch: epochs done, from 1.
        epochs: planned.
        final: whether this is the last one.
        stage: the method's stage that was run.
        score: accuracy on val, the figure the search compares; the last epoch's is the trial's, none is picked.
        metrics: flat figures such as `val/accuracy/sound`, `train/loss`, `ogm/k/sound`.
        cost_joint_epochs: operations so far, in epochs of plain joint training.
        seconds: training and evaluation so far, over all restarts.
    """

    epoch: int
    epochs: int
    final: bool
    stage: str
    score: float
    metrics: dict[str, float]
    cost_joint_epochs: float
    seconds: float


class Training(Iterator[EpochResult]):
    """A training run under a trial document; an iterator over its epochs.

    Everything random is a pure function of the document's seed, the epoch and the step, so that a run restored
    at the end of an epoch goes on exactly as if it had never stopped, and the caller's random stream is left alone.

    Args:
        document: a trial document; what is left out takes its default.
        data: the clips.
        teachers: per modality the directory of a saved `unimodal` model, where the method needs teachers.
        device: `auto`, `cpu`, `cuda`, …
        micro_batch: clips a forward pass, for a GPU too small for the batch; no effect on the effective batch.

    Raises:
        MMSearchError: the document does not fit the data, or a teacher is missing.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        data: ClipData,
        *,
        teachers: Mapping[str, Path] | None = None,
        device: str = "auto",
        micro_batch: int | None = None,
    ) -> None:
        self.document = resolve({**document, "data": document.get("data") or data.digest}, data.modalities)
        if self.document["data"] != data.digest:
            raise MMSearchError(f"trial document: made for data {self.document['data']}, not {data.digest}")
        self.data = data
        self.device = pick_device(device)
        self.predictor = Predictor(self.document, data.modalities, data.classes)
        self.model = self.predictor.model.to(self.device)
        self.method = self.predictor.method
        self.epoch = 0
        self.meter = CostMeter()
        self._seconds = 0.0
        self._joint_flops: float | None = None
        optimizer = OPTIMIZERS.create(self.document["optimizer"])
        self._lr_at = optimizer.lr_at
        self.optimizers = {g: optimizer.build(p) for g, p in self.model.groups().items() if p}
        self.context = StepContext(self, self._load_teachers(teachers or {}), micro_batch)
        self._rows = data.part("train", self.document["fold"])
        with self._private_randomness("start"):
            self.method.on_run_start(self.context)

    def _load_teachers(self, teachers: Mapping[str, Path]) -> dict[str, Predictor]:
        if not self.method.needs_teachers:
            return {}
        for u in self.predictor.modalities:
            if u not in teachers:
                raise MMSearchError(f"method {self.method.name}: no teacher for modality {u!r}")
        return {u: Predictor.load(teachers[u], self.device) for u in self.predictor.modalities}

    @contextlib.contextmanager
    def _private_randomness(self, *purpose: str | int) -> Iterator[None]:
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.document["seed"], *purpose))
            yield

    @property
    def epochs(self) -> int:
        """Planned epochs, over all stages."""
        return self.document["epochs"]

    def _plan(self) -> list[str]:
        """The stage of every epoch."""
        plan: list[str] = []
        for stage in self.method.stages():
            plan += [stage.name] * round(stage.share * self.epochs)
        return plan

    def __next__(self) -> EpochResult:
        if self.epoch >= self.epochs:
            raise StopIteration
        started = time.perf_counter()
        plan = self._plan()
        metrics: dict[str, float] = {}
        if self.epoch < len(plan):
            stage = plan[self.epoch]
            metrics = self._train_epoch()
            self.epoch += 1
        else:
            stage = self.method.stages()[-1].name
            self.epoch = self.epochs
        result = self.evaluate("val")
        metrics |= result.metrics("val")
        self._seconds += time.perf_counter() - started
        return EpochResult(
            epoch=self.epoch,
            epochs=self.epochs,
            final=self.epoch == self.epochs,
            stage=stage,
            score=result.accuracy,
            metrics=metrics,
            cost_joint_epochs=self._cost(),
            seconds=self._seconds,
        )

    def _train_epoch(self) -> dict[str, float]:
        ctx = self.context
        ctx.start_epoch(self.epoch)
        views = self.predictor.views(training=True)
        batches = self.data.batches(
            self._rows, self.document["batch_size"], views, seed=self.document["seed"], epoch=self.epoch
        )
        loss_sum = torch.zeros((), device=self.device)
        done = 0
        with self._private_randomness("epoch", self.epoch):
            self.method.on_epoch_start(ctx)
            for batch in batches:
                ctx.start_step(done / len(self._rows))
                for optimizer in self.optimizers.values():
                    optimizer.param_groups[0]["lr"] = self._lr_at(ctx.progress)
                self.model.train()
                with self.meter.count("step", len(batch)):
                    loss_sum += self.method.step(ctx, batch.to(self.device)) * len(batch)
                done += len(batch)
            self.method.on_epoch_end(ctx)
        return {"train/loss": float(loss_sum) / done, "train/lr": self._lr_at(ctx.progress), **ctx.signals()}

    def _cost(self) -> float:
        if self.meter.total == 0:
            return 0.0
        if self._joint_flops is None:
            all_modalities = self.predictor.all_modalities
            encoders = self.document["encoders"]
            views = {u: ENCODERS.create(encoders[u]).view(training=True) for u in all_modalities}
            batch = next(iter(self.data.batches(self._rows[:4], 4, views))).to(self.device)
            with self._private_randomness("cost"):
                self._joint_flops = joint_step_flops(self.document, all_modalities, len(self.predictor.classes), batch)
        return self.meter.total / (self._joint_flops * len(self._rows))

    def evaluate(self, part: str) -> Evaluation:
        """Evaluates the model as it is on `train`, `val`, `select` or `test`."""
        return evaluate(self.predictor, self.data, part)

    def save(self, path: Path) -> None:
        """Writes the whole state as a directory, replacing an older one in one step."""
        save_state(
            path,
            {
                "document": self.document,
                "epoch": self.epoch,
                "seconds": self._seconds,
                "meter": self.meter.state_dict(),
                "model": self.model.state_dict(),
                "optimizers": {g: o.state_dict() for g, o in self.optimizers.items()},
                "method": self.method.state_dict(),
            },
        )

    def restore(self, path: Path) -> None:
        """Goes on from a saved state of the same document.

        Raises:
            MMSearchError: nothing readable there, or it belongs to another document.
        """
        state = load_state(path)
        if state["document"] != self.document:
            raise MMSearchError(f"{path}: a checkpoint of another trial document")
        self.epoch = state["epoch"]
        self._seconds = state["seconds"]
        self.meter.load_state_dict(state["meter"])
        self.model.load_state_dict(state["model"])
        for group, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][group])
        self.method.load_state_dict(state["method"])

    def save_weights(self, path: Path) -> None:
        """Writes the model for teachers, test reading and hand-over."""
        self.predictor.save(path)


def train(document: Mapping[str, Any], data: ClipData, **options: Any) -> Training:
    """Trains under a document: `for result in train(document, data): ...`; see :class:`Training`."""
    return Training(document, data, **options)


class StepContext:
    """The loop's side of :class:`mmsearch.methods.Context`."""

    def __init__(self, run: Training, teachers: dict[str, Predictor], micro_batch: int | None) -> None:
        self._run = run
        self._teachers = teachers
        self._micro_batch = micro_batch
        self._groups = run.model.groups()
        self.model = run.model
        self.modalities = list(run.predictor.modalities)
        self.teachers: dict[str, Any] = {u: t.model for u, t in teachers.items()}
        self.epoch = 0
        self.epoch_progress = 0.0
        self._step = 0
        self._signals: dict[str, list[Tensor]] = {}

    @property
    def progress(self) -> float:
        """Share of the planned training that is done."""
        return (self.epoch + self.epoch_progress) / self._run.epochs

    def start_epoch(self, epoch: int) -> None:
        """Called by the loop."""
        self.epoch, self.epoch_progress, self._step = epoch, 0.0, 0
        self._signals = {}

    def start_step(self, epoch_progress: float) -> None:
        """Called by the loop."""
        self.epoch_progress = epoch_progress
        self._step += 1

    def parts(self, batch: Batch) -> list[Batch]:
        """Micro-batches."""
        return batch.split(self._micro_batch or len(batch))

    def forward(self, batch: Batch, mask: Collection[str] | None = None) -> Output:
        """Encoders, the method's `modify_features`, fusion."""
        run = self._run
        with autocast(run.device, run.document["precision"]):
            encoded = self.model.encode(batch, mask)
            features = run.method.modify_features(self, {u: e.pooled for u, e in encoded.items()}, batch)
            out = self.model.fuse(features)
        return Output(out.logits.float(), out.features, {u: z.float() for u, z in out.unimodal.items()})

    def teacher_features(self, batch: Batch) -> dict[str, Tensor]:
        """Pooled features of the frozen teachers."""
        return {u: t.predict(batch).features[u] for u, t in self._teachers.items()}

    def backward(self, loss: Tensor, share: float = 1.0) -> None:
        """Accumulates gradients."""
        (loss if share == 1.0 else loss * share).backward()

    def parameters(self, group: str) -> list[nn.Parameter]:
        """Of a group."""
        return self._groups[group]

    def update(self, groups: Collection[str] | None = None) -> None:
        """Steps the optimisers of the groups and clears every gradient."""
        for name, optimizer in self._run.optimizers.items():
            if groups is None or name in groups:
                optimizer.step()
        for optimizer in self._run.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def generator(self) -> torch.Generator:
        """Private randomness of this step."""
        seed = seed_of(self._run.document["seed"], "method", self.epoch, self._step)
        return torch.Generator(self._run.device).manual_seed(seed)

    def log(self, signal: str, value: Tensor | float, modality: str | None = None) -> None:
        """A signal of the method."""
        name = "/".join([self._run.method.name, signal, *([modality] if modality else [])])
        self._signals.setdefault(name, []).append(torch.as_tensor(value).detach())

    def signals(self) -> dict[str, float]:
        """Means of the epoch."""
        return {k: float(torch.stack(v).double().mean()) for k, v in self._signals.items()}
