"""The one training loop: a generator that yields after every epoch."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import operator
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmsearch.batch import Batch, Output
from mmsearch.encoders import ENCODERS
from mmsearch.errors import MMSearchError
from mmsearch.methods import Gradients, Stage
from mmsearch.training.checkpoint import load_state, save_state
from mmsearch.training.cost import CostMeter, joint_step_flops
from mmsearch.training.document import resolve, sampler_of, seed_of
from mmsearch.training.evaluation import Evaluation, Predictor, autocast, evaluate, pick_device, post_hoc
from mmsearch.training.model import PROBES, tokens_of
from mmsearch.training.optimizers import OPTIMIZERS
from mmsearch.training.world import World

if TYPE_CHECKING:
    from mmsearch.data.clips import ClipData


EVALUATED_AT_ONCE = 128
"""Clips a forward pass of an evaluation; fewer where a micro-batch is given."""


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """What the loop yields after an epoch.

    Attributes:
        epoch: epochs done, from 1.
        epochs: planned.
        final: whether this is the last one: of those planned, or the document's `until`.
        stage: the method's stage that was run.
        rehearsal: whether it was one on a copy that is thrown away; `epoch` then stands still.
        score: accuracy on val, the figure the search compares; the last epoch's is the trial's, none is picked. Of a
            training on the whole development part it is that of clips trained on, which says only whether it learned.
        metrics: flat figures such as `val/accuracy/sound`, `train/loss`, `ogm/k/sound`.
        cost_joint_epochs: operations so far, in epochs of plain joint training.
        seconds: training and evaluation so far, over all restarts.
    """

    epoch: int
    epochs: int
    final: bool
    stage: str
    rehearsal: bool
    score: float
    metrics: dict[str, float]
    cost_joint_epochs: float
    seconds: float


class Training(Iterator[EpochResult]):
    """A training run under a trial document; an iterator over its epochs.

    Everything random is a pure function of the document's seed, the epoch and the step, so that a run restored
    at the end of an epoch goes on exactly as if it had never stopped, and the caller's random stream is left alone.
    Where `torch.distributed` has been set up, the processes of its default group train together, each on its slice
    of every batch; the effective batch is the document's.

    Args:
        document: a trial document; what is left out takes its default.
        data: the clips.
        teachers: per modality the directory of a saved `unimodal` model, where the method needs teachers.
        device: `auto`, `cpu`, `cuda`, …
        micro_batch: clips a forward pass, for a GPU too small for the batch; no effect on the effective batch.

    Attributes:
        on_step: called after every step.

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
        self.world = World.current()
        self.predictor = Predictor(self.document, data.modalities, data.classes)
        self.model = self.predictor.model.to(self.device)
        self.method = self.predictor.method
        self.epoch = 0
        self.ticks = 0
        self.on_step: Callable[[], None] = lambda: None
        self.meter = CostMeter()
        self._seconds = 0.0
        self._joint_flops: float | None = None
        self._shelf: dict[str, Any] | None = None
        optimizer = OPTIMIZERS.create(self.document["optimizer"])
        self._lr_at = optimizer.lr_at
        self._sampler = sampler_of(self.document)
        self.groups = self.model.groups()
        self.optimizers = {g: optimizer.build(p) for g, p in self.groups.items() if p}
        fold = self.document["fold"]
        self.rows = data.part("fit" if self.document["held"] else "train", fold)
        self._train_size = len(data.part("train", fold))
        self.clips_at_once = EVALUATED_AT_ONCE if micro_batch is None else min(EVALUATED_AT_ONCE, 2 * micro_batch)
        self.context = StepContext(self, self._load_teachers(teachers or {}), micro_batch)
        with self._private_randomness("start"):
            self.method.on_run_start(self.context)

    def _load_teachers(self, teachers: Mapping[str, Path]) -> dict[str, Predictor]:
        if not self.method.needs_teachers:
            return {}
        for u in self.predictor.modalities:
            if u not in teachers:
                raise MMSearchError(f"method {self.method.name}: no teacher for modality {u!r}")
        loaded = {u: Predictor.load(teachers[u], self.device) for u in self.predictor.modalities}
        for u, teacher in loaded.items():
            if self.method.needs_held and not teacher.document["held"]:
                raise MMSearchError(
                    f"method {self.method.name}: the teacher of {u} was trained on the clips that this method needs "
                    "held out; train it with `held: true`"
                )
        return loaded

    @contextlib.contextmanager
    def _private_randomness(self, *purpose: str | int) -> Iterator[None]:
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed_of(self.document["seed"], *purpose))
            yield

    @property
    def epochs(self) -> int:
        """Planned epochs, over all stages that are no rehearsals."""
        return self.document["epochs"]

    @property
    def last(self) -> int:
        """The epoch after which the training ends."""
        return self.document.get("until", self.epochs)

    @property
    def least_at_once(self) -> int:
        """Clips that a forward pass of training must have: batch norm needs two, which micro-batches of three leave."""
        return 3 if any(isinstance(m, _BatchNorm) for m in self.model.modules()) else 1

    def _plan(self) -> list[tuple[Stage, int, int]]:
        """Of every tick the stage, the epoch within it and how many it has."""
        plan: list[tuple[Stage, int, int]] = []
        share = 0.0
        for stage in self.method.stages():
            if stage.rehearsal:
                length = max(1, round(stage.share * self.epochs))
            else:
                length = round((share + stage.share) * self.epochs) - round(share * self.epochs)
                share += stage.share
            plan += [(stage, i, length) for i in range(length)]
        return plan

    def __next__(self) -> EpochResult:
        if self.epoch >= self.last:
            raise StopIteration
        started = time.perf_counter()
        plan = self._plan()
        metrics: dict[str, float] = {}
        if self.ticks < len(plan):
            stage, position, length = plan[self.ticks]
            with self._private_randomness("rehearsal" if stage.rehearsal else "epoch", self._clock(stage)):
                metrics = self._train_epoch(stage, position, length)
            self.ticks += 1
            self.epoch += not stage.rehearsal
        else:
            stage = self.method.stages()[-1]
            metrics = self._pass_stage(stage)
            self.epoch = self.epochs
        final = self.epoch >= self.last
        held = self._fit_post_hoc()
        result = self.evaluate("val")
        metrics |= result.metrics("seen" if self.document["fold"] is None else "val")
        if final:
            metrics["parameters"] = self.model.size()
        if final and held is not None:
            scores = post_hoc(self.document["post_hoc"], held, result)
            metrics |= {f"val/accuracy/fusion/{name}": a for name, a in scores.items()}
        if stage.rehearsal and position == length - 1:
            self.unshelve()
        self._seconds += time.perf_counter() - started
        return EpochResult(
            epoch=self.epoch,
            epochs=self.epochs,
            final=final,
            stage=stage.name,
            rehearsal=stage.rehearsal,
            score=result.accuracy,
            metrics=metrics,
            cost_joint_epochs=self._cost(),
            seconds=self._seconds,
        )

    def unshelve(self) -> None:
        """Back to where the rehearsal that has ended began."""
        if self._shelf is not None:
            self._put_back(self._shelf)
            self._shelf = None

    def _pass_stage(self, stage: Stage) -> dict[str, float]:
        """The hooks of a stage that trains nothing; gives its signals."""
        ctx = self.context
        ctx.start_epoch(stage, 0, 1)
        method = self.method
        for hook in (method.on_stage_start, method.on_epoch_start, method.on_epoch_end, method.on_stage_end):
            hook(ctx)
        return ctx.signals()

    def _clock(self, stage: Stage) -> int:
        """Names the epoch in seeds; a rehearsal takes nothing away from the epochs that count."""
        return self.ticks if stage.rehearsal else self.epoch

    def _train_epoch(self, stage: Stage, position: int, length: int) -> dict[str, float]:
        ctx = self.context
        loss_sum = torch.zeros((), device=self.device)
        done = 0
        with contextlib.closing(self.steps(stage, position, length)) as steps:
            for batch in steps:
                mine = self.world.local(len(batch))
                with self.meter.count(f"{stage.name}/{self.method.kind(ctx)}", len(batch), mine.stop - mine.start):
                    loss_sum += self.method.step(ctx, batch) * len(batch)
                done += len(batch)
                self.on_step()
        return {"train/loss": float(loss_sum) / max(done, 1), "train/lr": ctx.learning_rate, **ctx.signals()}

    def steps(self, stage: Stage, position: int, length: int) -> Generator[Batch, None, None]:
        """The batches of an epoch, each when its step is due; the hooks around the steps are called in between.

        Args:
            stage: to which the epoch belongs.
            position: of the epoch within it.
            length: epochs that it has.
        """
        ctx = self.context
        ctx.start_epoch(stage, position, length)
        if position == 0:
            if stage.rehearsal:
                self._shelf = self._copy()
            self.method.on_stage_start(ctx)
        self.method.on_epoch_start(ctx)
        seed, epoch = self.document["seed"], self.epoch + (position if stage.rehearsal else 0)
        sampled = self._sampler.rows(self.rows, self.data.label[self.rows], seed=seed, epoch=epoch)
        rows, only = self.method.epoch_rows(ctx, sampled)
        batches = self.data.batches(
            rows,
            self.document["batch_size"],
            self.predictor.views(training=True),
            seed=seed,
            epoch=epoch,
            only=only,
            shard=self.world.shard,
            device=self.device,
        )
        done = 0
        with contextlib.closing(batches), self._moving(stage) as frozen:
            for batch in batches:
                batch = batch.to(self.device)
                ctx.start_step(batch, done / len(rows))
                self.model.train()
                for module in frozen:
                    module.eval()
                yield batch
                done += len(batch)
        self.world.average_buffers(self.model)
        self.method.on_epoch_end(ctx)
        if position == length - 1:
            self.method.on_stage_end(ctx)

    @contextlib.contextmanager
    def _moving(self, stage: Stage) -> Iterator[list[nn.Module]]:
        """Freezes what the stage does not train; gives the frozen modules that are to be in evaluation mode."""
        parts = self.model.parts()
        frozen = [] if stage.trains is None else [m for g, m in parts.items() if g not in (*stage.trains, PROBES)]
        held = [p for m in frozen for p in m.parameters() if p.requires_grad]
        for p in held:
            p.requires_grad_(False)
        try:
            yield [m for m in frozen if not (m is self.model.fusion and self.model.kind.post_hoc)]
        finally:
            for p in held:
                p.requires_grad_(True)

    def _fit_post_hoc(self) -> Evaluation | None:
        """Fits a post-hoc fusion to the held clips; gives the model's evaluation on them where it is needed."""
        posthoc = self.model.kind.post_hoc
        last = self.epoch >= self.last
        if not posthoc and not (last and self.document["post_hoc"]):
            return None
        held = self.evaluate("held")
        if posthoc:
            with torch.no_grad():  # a method may predict with other unimodal logits than the head's
                own = self.model.fusion.unimodal({u: h.to(self.device) for u, h in held.output.features.items()})
            held_clips = held.batch.to(self.device)
            self.model.fusion.fit(own, held_clips.label, held_clips.present)
        return held

    def _cost(self) -> float:
        if self.meter.total == 0:
            return 0.0
        if self._joint_flops is None:
            all_modalities = self.predictor.all_modalities
            encoders = self.document["encoders"]
            views = {u: ENCODERS.create(encoders[u]).view(training=True) for u in all_modalities}
            batch = next(self.data.batches(self.rows[:4], 4, views, seed=self.document["seed"])).to(self.device)
            with self._private_randomness("cost"):
                self._joint_flops = joint_step_flops(self.document, all_modalities, len(self.predictor.classes), batch)
        return self.meter.total / (self._joint_flops * self._train_size)

    def evaluate(self, part: str) -> Evaluation:
        """Evaluates the model as it is on `train`, `val`, `select`, `test` or `held`."""
        return evaluate(self.predictor, self.data, part, batch_size=self.clips_at_once)

    def save(self, path: Path) -> None:
        """Writes the whole state as a directory, replacing an older one in one step."""
        save_state(
            path,
            {
                "document": self.document,
                "epoch": self.epoch,
                "ticks": self.ticks,
                "seconds": self._seconds,
                "meter": self.meter.state_dict(),
                "method": self.method.state_dict(),
                "shelf": self._shelf,
                **self._copy(),
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
        self.ticks = state["ticks"]
        self._seconds = state["seconds"]
        self._shelf = state["shelf"]
        self.meter.load_state_dict(state["meter"])
        self._put_back(state)
        self.method.load_state_dict(state["method"])

    def _copy(self) -> dict[str, Any]:
        """Weights and optimisers, apart from those that go on."""
        return copy.deepcopy(
            {
                "model": dict(self.model.state_dict()),
                "optimizers": {g: o.state_dict() for g, o in self.optimizers.items()},
            }
        )

    def _put_back(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for group, optimizer in self.optimizers.items():
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][group]))

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
        self.model = run.model
        self.modalities = list(run.predictor.modalities)
        self.teachers: dict[str, Any] = {u: t.model for u, t in teachers.items()}
        self.rows = run.rows
        self.n_clips = len(run.data)
        self.epochs = run.epochs
        self.epoch_progress = 0.0
        self.stage = Stage("train")
        self._position, self._length = 0, 1
        self._step = 0
        self._batch: Batch | None = None
        self._preview: Output | None = None
        self._share = 1.0
        self._lr_factors: dict[str, float] = {}
        self._signals: dict[str, list[Tensor]] = {}
        self._taught: dict[str, dict[int, Output]] = {}
        fixed = not any(v.random or v.draws for v in run.predictor.views(training=True).values())
        self._keep_taught = fixed and run.world.size == 1

    @property
    def epoch(self) -> int:
        """0-based."""
        return self._run.epoch

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self._run.device

    @property
    def progress(self) -> float:
        """Share of the planned training that is done."""
        return (self.epoch + (0.0 if self.stage.rehearsal else self.epoch_progress)) / self.epochs

    @property
    def stage_progress(self) -> float:
        """Share of the stage that is done."""
        return (self._position + self.epoch_progress) / self._length

    @property
    def learning_rate(self) -> float:
        """Of this step; a rehearsal goes on with the schedule from where the training stands."""
        ahead = (self._position + self.epoch_progress) / self.epochs if self.stage.rehearsal else 0.0
        return self._run._lr_at(self.progress + ahead)

    def start_epoch(self, stage: Stage, position: int, length: int) -> None:
        """Called by the loop."""
        self.stage, self._position, self._length = stage, position, length
        self.epoch_progress, self._step = 0.0, 0
        self._signals = {}

    def start_step(self, batch: Batch, epoch_progress: float) -> None:
        """Called by the loop."""
        self.epoch_progress = epoch_progress
        self._step += 1
        self._batch, self._preview = batch, None

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """The micro-batches of this process; while one is out, what it adds to a gradient is weighted by its share.

        Every process has as many, so that a loss may ask for a sum over processes; for that a micro-batch may be one
        clip too large.
        """
        world = self._run.world
        local = dataclasses.replace(
            batch.without_inputs().cut(world.local(len(batch))), inputs=batch.inputs, draws=batch.draws
        )
        stand_in = world.rank >= len(batch)
        for part in local.pieces(world.micro_batches(len(batch), self._micro_batch)):
            self._share = 0.0 if stand_in else len(part) / len(batch)
            yield part
        self._share = 1.0

    def forward(
        self, batch: Batch, mask: Collection[str] | None = None, *, level: str = "feature", statistics: bool = True
    ) -> Output:
        """Encoders, the method's `modify_features`, fusion."""
        run = self._run
        seen = mask
        if mask is not None and level == "input":
            hidden = {u: torch.zeros_like(x) if u not in mask else x for u, x in batch.inputs.items()}
            batch, seen = dataclasses.replace(batch, inputs=hidden), None
        still = contextlib.nullcontext() if statistics else self._still()
        with autocast(run.device, run.document["precision"]), still:
            encoded = self.model.encode(batch, seen)
            features = run.method.modify_features(self, {u: e.pooled for u, e in encoded.items()}, batch)
            out = self.model.fuse(features, tokens_of(encoded))
        out = out.float()
        if len(self.model.probes) and torch.is_grad_enabled() and (mask is None or level == "feature"):
            losses = [nn.functional.cross_entropy(z, batch.label) for z in out.unimodal.values()]
            (torch.stack(losses).sum() * self._share).backward(inputs=list(self.model.probes.parameters()))
            out = dataclasses.replace(out, unimodal={u: z.detach() for u, z in out.unimodal.items()})
        return out

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """Encoders in evaluation mode for a while."""
        training = [m for m in self.model.encoders.modules() if m.training]
        self.model.encoders.eval()
        try:
            yield
        finally:
            for m in training:
                m.training = True

    def accumulate(
        self, batch: Batch, loss: Callable[[Output, Batch], Tensor], mask: Collection[str] | None = None
    ) -> tuple[Output, Tensor]:
        """Forward and backward of a batch."""
        outs, total = [], torch.zeros((), device=self.device)
        world = self._run.world
        with world.summed_gradients(self._trained()):
            for part in self._parts(batch):
                out = self.forward(part, mask)
                value = loss(out, part)
                if value.requires_grad:
                    (value if self._share == 1.0 else value * self._share).backward()
                outs.append(dataclasses.replace(out.detach(), tokens={}))
                total += self._share * value.detach()
        world.sum([total])
        return world.gather(Output.cat(outs), len(batch)), total

    def gradients(
        self, batch: Batch, losses: Callable[[Output, Batch], Mapping[str, Tensor]], of: Collection[str]
    ) -> tuple[Output, dict[str, Tensor], dict[str, Gradients]]:
        """The gradient of each of several losses."""
        groups = {g: self.parameters(g) for g in of}
        parameters = [p for ps in groups.values() for p in ps]
        outs: list[Output] = []
        totals: dict[str, Tensor] = {}
        sums: dict[str, list[Tensor]] = {}
        world = self._run.world
        with world.summed_gradients(list(self.model.probes.parameters())):
            for part in self._parts(batch):
                out = self.forward(part)
                values = losses(out, part)
                for i, (name, value) in enumerate(values.items()):
                    found = torch.autograd.grad(
                        value * self._share, parameters, retain_graph=i < len(values) - 1, allow_unused=True
                    )
                    new = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
                    sums[name] = [a + b for a, b in zip(sums[name], new, strict=True)] if name in sums else new
                    totals[name] = totals.get(name, torch.zeros_like(value)) + self._share * value.detach()
                outs.append(dataclasses.replace(out.detach(), tokens={}))
        world.sum([*totals.values(), *(g for gs in sums.values() for g in gs)])
        found_by = {name: _grouped(groups, gs) for name, gs in sums.items()}
        return world.gather(Output.cat(outs), len(batch)), totals, found_by

    def assign(self, gradients: Gradients) -> None:
        """Sets `p.grad`."""
        for group, values in gradients.items():
            for p, g in zip(self.parameters(group), values, strict=True):
                p.grad = g

    def scale(
        self,
        group: str,
        k: Tensor | float,
        *,
        apply_to: str = "grad",
        where: Callable[[nn.Parameter], bool] | None = None,
    ) -> None:
        """Multiplies gradients, or the learning rate of the next update."""
        if apply_to == "lr":
            self._lr_factors[group] = self._lr_factors.get(group, 1.0) * float(k)
            return
        grads = [p.grad for p in self.parameters(group) if p.grad is not None and (where is None or where(p))]
        if grads:
            torch._foreach_mul_(grads, k if isinstance(k, float) else torch.as_tensor(k).to(grads[0]))

    def whole(self, features: dict[str, Tensor], part: Batch) -> tuple[Output, Batch]:
        """The output of the step's whole batch, without gradient."""
        batch = self._batch
        assert batch is not None
        run = self._run
        with torch.no_grad(), autocast(run.device, run.document["precision"]):
            if len(part) == len(batch) and not self.model.kind.reads_tokens:
                return self.model.fuse({u: h.detach() for u, h in features.items()}).float(), part.without_inputs()
            if self._preview is None:
                share, outs = self._share, []
                with self._statistics_kept():
                    outs = [self.model(p).float() for p in self._parts(batch)]
                self._share = share
                self._preview = run.world.gather(Output.cat(outs), len(batch))
        return self._preview, batch.without_inputs()

    def average(self, part: Batch, value: Tensor, of: Callable[[Output, Batch], Tensor]) -> Tensor:
        """The mean over the step's whole batch, without gradient."""
        batch = self._batch
        assert batch is not None
        if len(part) == len(batch):
            return value.detach()
        share, total = self._share, torch.zeros_like(value)
        with torch.no_grad(), self._statistics_kept():
            for p in self._parts(batch):
                total += self._share * of(self.forward(p), p)
        self._share = share
        self._run.world.sum([total])
        return total

    def summed(self, value: Tensor) -> Tensor:
        """The sum over processes; one that sees only a stand-in adds nothing."""
        assert self._batch is not None
        total = value.clone() if self._run.world.rank < len(self._batch) else torch.zeros_like(value)
        self._run.world.sum([total])
        return total

    @contextlib.contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """Batch norm uses the statistics of the batch but does not remember them.

        It writes to copies: a graph that waits for its backward pass holds the buffers themselves.
        """
        norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm)]
        kept = [dict(m.named_buffers()) for m in norms]
        try:
            for m, buffers in zip(norms, kept, strict=True):
                for k, b in buffers.items():
                    setattr(m, k, b.clone())
            yield
        finally:
            for m, buffers in zip(norms, kept, strict=True):
                for k, b in buffers.items():
                    setattr(m, k, b)

    def scan(self, part: str = "train", rows: np.ndarray | None = None) -> Iterator[tuple[Output, Batch]]:
        """Predictions in evaluation mode."""
        run = self._run
        rows = self._rows_of(part) if rows is None else rows
        batches = run.data.batches(rows, run.clips_at_once, run.predictor.views(training=False), device=run.device)
        with contextlib.closing(batches):
            for batch in batches:
                with run.meter.count("scan", len(batch)):
                    out = run.predictor.predict(batch)
                yield out, batch.without_inputs().to(run.device)

    def _rows_of(self, part: str) -> np.ndarray:
        return self.rows if part == "train" else self._run.data.part(part, self._run.document["fold"])

    def sample(self, part: str, clips: int) -> Batch:
        """A few clips with their inputs."""
        run = self._run
        rows = np.random.default_rng(seed_of(run.document["seed"], "sample")).permutation(self._rows_of(part))[:clips]
        return next(run.data.batches(rows, clips, run.predictor.views(training=False))).to(run.device)

    def teacher_outputs(self, batch: Batch) -> dict[str, Output]:
        """Outputs of the frozen teachers; computed once a clip where nothing is augmented."""
        return {u: self._teach(u, t, batch) for u, t in self._teachers.items()}

    def _teach(self, u: str, teacher: Predictor, batch: Batch) -> Output:
        known = self._taught.setdefault(u, {})
        index = batch.index.tolist() if self._keep_taught else []
        if index and all(i in known for i in index):
            return Output.cat([known[i] for i in index])
        out = teacher.predict(batch)
        for i, row in enumerate(index):
            known[row] = out.each(operator.itemgetter(slice(i, i + 1)))
        return out

    def parameters(self, group: str) -> list[nn.Parameter]:
        """Of a group."""
        return self._run.groups[group]

    def _trained(self) -> list[nn.Parameter]:
        """What the stage trains."""
        return [p for ps in self._run.groups.values() for p in ps if p.requires_grad]

    def update(self, groups: Collection[str] | None = None) -> None:
        """Steps the optimisers of the groups and clears every gradient."""
        rate = self.learning_rate
        for name, optimizer in self._run.optimizers.items():
            if groups is None or name in groups or name == PROBES:
                optimizer.param_groups[0]["lr"] = rate * self._lr_factors.get(name, 1.0)
                optimizer.step()
        for optimizer in self._run.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self._lr_factors = {}

    def snapshot(self) -> dict[str, Any]:
        """Weights and optimisers."""
        return self._run._copy()

    def rollback(self, snapshot: dict[str, Any]) -> None:
        """Back to them."""
        self._run._put_back(snapshot)

    def generator(self) -> torch.Generator:
        """Private randomness of this step."""
        seed = seed_of(self._run.document["seed"], "method", self._run.ticks, self._step)
        return torch.Generator(self.device).manual_seed(seed)

    def log(self, signal: str, value: Tensor | float, modality: str | None = None) -> None:
        """A signal of the method."""
        name = "/".join([self._run.method.name, signal, *([modality] if modality else [])])
        self._signals.setdefault(name, []).append(torch.as_tensor(value).detach())

    def signals(self) -> dict[str, float]:
        """Means of the epoch."""
        return {k: float(torch.stack([x.double() for x in v]).mean()) for k, v in self._signals.items()}


def _grouped(groups: Mapping[str, list[nn.Parameter]], gradients: list[Tensor]) -> Gradients:
    """A list of gradients, cut into those of every group."""
    found: Gradients = {}
    start = 0
    for group, parameters in groups.items():
        found[group] = gradients[start : start + len(parameters)]
        start += len(parameters)
    return found
