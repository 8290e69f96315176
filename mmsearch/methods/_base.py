"""The interface of a balancing method: narrow hooks, never the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.batch import Batch, Output
from mmsearch.fusion import Fusion

Gradients = dict[str, list[Tensor]]
"""Per optimiser group the gradient of every parameter, in the order of :meth:`Context.parameters`."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A phase of a method's training, run by the one loop.

    Attributes:
        name: shown in progress and results.
        share: of the planned epochs; 0 for a stage that trains nothing and is evaluated once. The shares of the
            stages that are no rehearsals add up to 1.
        trains: optimiser groups that move; None for all. An encoder that does not move is in evaluation mode.
        rehearsal: the stage works on a copy of weights and optimisers that is thrown away at its end; progress
            stands still, its cost counts, and the learning rate goes on from here as if it were no rehearsal.
    """

    name: str
    share: float = 1.0
    trains: tuple[str, ...] | None = None
    rehearsal: bool = False


@dataclasses.dataclass(frozen=True)
class NoOp:
    """The setting under which a method does nothing.

    Attributes:
        equals: the method it then equals (`joint`, `uniform`), or None.
        knobs: the setting.
        tolerance: 0 for bit-equal, else the largest difference in a weight.
        reason: why there is none, where `equals` is None.
    """

    equals: str | None
    knobs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tolerance: float = 0.0
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Dominance:
    """Which logged signal says which modality is the strong one.

    Attributes:
        signal: logged per modality.
        strong: whether the strong modality has the `high` or the `low` value.
    """

    signal: str
    strong: str = "high"


class Context(Protocol):
    """What the one training loop offers a method.

    It owns autocast, accumulation over micro-batches, all-reduce over processes and the counting of cost; a method
    that replaces :meth:`Method.step` builds it from these calls alone.

    Attributes:
        model: `.encoders[u]`, `.fusion`, `.widths[u]`, `.n_classes`, `.extra[name]` for what a method adds.
        modalities: names, in the order of the dataset.
        epochs: planned.
        epoch_progress: share of the current epoch that is done, in [0, 1).
        stage: the one that runs.
        rows: of the dataset, int64: the clips the method trains on.
        n_clips: rows of the whole dataset; `batch.index` is below it.
    """

    model: Any
    modalities: list[str]
    epochs: int
    epoch_progress: float
    stage: Stage
    rows: np.ndarray
    n_clips: int

    @property
    def epoch(self) -> int:
        """0-based; stands still during a rehearsal."""
        ...

    @property
    def stage_progress(self) -> float:
        """Share of the stage that is done, in [0, 1)."""
        ...

    @property
    def progress(self) -> float:
        """Share of the planned training that is done, in [0, 1)."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    @property
    def teachers(self) -> Mapping[str, Any]:
        """Per modality the frozen model of a `unimodal` trial, where the method needs teachers."""
        ...

    def forward(
        self, batch: Batch, mask: Collection[str] | None = None, *, level: str = "feature", statistics: bool = True
    ) -> Output:
        """Encoders, `modify_features`, fusion.

        Args:
            batch: a micro-batch.
            mask: only these modalities; None: all.
            level: what of the others is zero, their `feature` or their `input`.
            statistics: False puts the encoders into evaluation mode (batch norm neither uses nor updates the
                statistics of the batch); gradients flow all the same.
        """
        ...

    def accumulate(
        self, batch: Batch, loss: Callable[[Output, Batch], Tensor], mask: Collection[str] | None = None
    ) -> tuple[Output, Tensor]:
        """Forward and backward of a batch: `p.grad` is then the gradient of the mean of `loss` over the batch.

        Args:
            batch: of the step.
            loss: of a micro-batch and its output, a mean over its clips.
            mask: as in :meth:`forward`.

        Returns:
            The detached output of the whole batch (every micro-batch, every process), and the loss.
        """
        ...

    def gradients(
        self, batch: Batch, losses: Callable[[Output, Batch], Mapping[str, Tensor]], of: Collection[str]
    ) -> tuple[Output, dict[str, Tensor], dict[str, Gradients]]:
        """One forward pass and the gradient of each of several losses, apart; `p.grad` is left alone.

        Returns:
            The detached output of the whole batch, the losses, and per loss the gradients of the groups in `of`
            (zeros where a loss does not reach a parameter).
        """
        ...

    def assign(self, gradients: Gradients) -> None:
        """Sets `p.grad` of these groups."""
        ...

    def scale(
        self,
        group: str,
        k: Tensor | float,
        *,
        apply_to: str = "grad",
        where: Callable[[nn.Parameter], bool] | None = None,
    ) -> None:
        """Multiplies a group's gradients by `k`, or for one update its learning rate (`apply_to="lr"`).

        Adam-type optimisers cancel a constant factor on the gradient, but not one on the learning rate.

        Args:
            group: an optimiser group.
            k: the factor, a scalar.
            apply_to: `grad` or `lr`.
            where: only these parameters; a learning rate is the whole group's.
        """
        ...

    def whole(self, features: dict[str, Tensor], part: Batch) -> tuple[Output, Batch]:
        """What the step's whole batch gives, detached, for coefficients that a loss or a feature needs beforehand.

        Where the batch is one micro-batch in one process this is the fusion of `features`; else it costs one pass
        without gradient a step. `modify_features` is not applied. The batch returned has no inputs.
        """
        ...

    def average(self, part: Batch, value: Tensor, of: Callable[[Output, Batch], Tensor]) -> Tensor:
        """What `value`, a mean over the clips of a micro-batch, is over the step's whole batch, detached.

        Where the batch is one micro-batch in one process this is `value`; else it costs one pass without gradient a
        call, so ask once a step.

        Args:
            part: the micro-batch.
            value: its mean.
            of: the same mean of any other micro-batch and its output; it may call :meth:`forward`.
        """
        ...

    def summed(self, value: Tensor) -> Tensor:
        """The sum over processes of what each found in its slice of the batch, where no output carries it."""
        ...

    def scan(self, part: str = "train", rows: np.ndarray | None = None) -> Iterator[tuple[Output, Batch]]:
        """The method's own predictions, in evaluation mode and without augmentation or gradient.

        Args:
            part: `train` (what the method trains on) or `held` (of a method with `needs_held`).
            rows: only these.

        Yields:
            Output and batch (without inputs) of up to 128 clips.
        """
        ...

    def sample(self, part: str, clips: int) -> Batch:
        """A few clips of `train` or `held` with their inputs, without augmentation; the same ones at every call."""
        ...

    def teacher_outputs(self, batch: Batch) -> dict[str, Output]:
        """Per modality the teacher's output for a micro-batch, in evaluation mode and without gradient."""
        ...

    def parameters(self, group: str) -> list[nn.Parameter]:
        """The parameters of a group: a modality (its encoder), `head` (the fusion), or what `build` added."""
        ...

    def update(self, groups: Collection[str] | None = None) -> None:
        """One optimiser step of these groups (None: all that the stage trains), then clears every gradient."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """A copy of weights and optimisers, fit for :meth:`Method.state_dict`."""
        ...

    def rollback(self, snapshot: dict[str, Any]) -> None:
        """Back to a :meth:`snapshot`."""
        ...

    def generator(self) -> torch.Generator:
        """Private randomness on the model's device: a pure function of seed, epoch and step."""
        ...

    def log(self, signal: str, value: Tensor | float, modality: str | None = None) -> None:
        """A signal of the method, averaged over the epoch under `<method>/<signal>[/<modality>]`."""
        ...


@dataclasses.dataclass
class Method:
    """Base of all methods. Fields made with :func:`mmsearch.knobs.knob` are its knobs.

    A subclass is a dataclass with the class attributes below; it overrides the hooks it needs and no more.
    Its whole state between epochs is in :meth:`state_dict`.

    Attributes:
        name: in documents and on the command line.
        summary: one line of what it does.
        paper: title and year of the source.
        formula: the heart of it, in the symbols of the paper.
        earliest: share of training before which a trial must not be judged against others.
        no_op: see :class:`NoOp`.
        dominance: see :class:`Dominance`; None: it measures none.
        needs_held: whether it needs clips held out of training (`ctx.scan("held")`).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    formula: ClassVar[str]
    earliest: ClassVar[float] = 0.0
    no_op: ClassVar[NoOp]
    dominance: ClassVar[Dominance | None] = None

    @property
    def own_fusion(self) -> bool:
        """Whether the method brings its own head, so that no fusion is chosen beside it."""
        return False

    @property
    def needs_teachers(self) -> bool:
        """Whether it needs a trained `unimodal` model of every modality."""
        return False

    @property
    def needs_held(self) -> bool:
        """Whether it needs clips held out of training."""
        return False

    def refuses(self, fusion: Fusion, modalities: Sequence[str]) -> str:
        """Why it cannot be trained with this fusion on these modalities; empty where it can."""
        return ""

    def modalities(self, available: Sequence[str]) -> list[str]:
        """The modalities it trains on, out of those of the dataset."""
        return list(available)

    def stages(self) -> tuple[Stage, ...]:
        """The phases of its training."""
        return (Stage("train"),)

    def kind(self, ctx: Context) -> str:
        """A word for the kind of step that comes now; steps of one kind cost the same."""
        return ""

    def build(self, model: Any) -> None:
        """Adds heads or parameters (`model.add(name, module)`) or replaces the head (`model.fusion = ...`)."""

    def predict(self, model: Any, out: Output) -> Output:
        """The output whose logits evaluation, prediction, export and diagnosis use."""
        return out

    def on_run_start(self, ctx: Context) -> None:
        """Once, after the weights are initialised (and again before a restored run goes on)."""

    def on_stage_start(self, ctx: Context) -> None:
        """Before the first epoch of a stage."""

    def on_epoch_start(self, ctx: Context) -> None:
        """Before the first batch of an epoch."""

    def epoch_rows(self, ctx: Context, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows of an epoch, in place of `rows`; they may repeat.

        Returns:
            The rows, and per row the position in `ctx.modalities` of the one modality it is to show (-1: all), or
            None. A modality that is not shown counts as missing; its encoder sees the clip all the same.
        """
        return rows, None

    def modify_features(self, ctx: Context, features: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Between encoders and fusion, in training only; features `[B, D_u]` per modality."""
        return features

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """The scalar loss, a mean over the clips; by default L_mm = CE(z, y)."""
        return F.cross_entropy(out.logits, batch.label)

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Gradients are ready (`p.grad`), the optimiser has not stepped; `out` is detached, of the whole batch."""

    def on_epoch_end(self, ctx: Context) -> None:
        """After the last step of an epoch, before evaluation."""

    def on_stage_end(self, ctx: Context) -> None:
        """After the last epoch of a stage; of a rehearsal, before its copy is thrown away."""

    def step(self, ctx: Context, batch: Batch) -> Tensor:
        """One step of training; returns the detached loss of the batch."""
        out, loss = ctx.accumulate(batch, lambda out, part: self.compute_loss(ctx, out, part))
        self.after_backward(ctx, out, batch)
        ctx.update()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """State that must survive a restart: tensors, numbers, texts, lists and dicts of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""


def unimodal_heads(model: Any) -> nn.ModuleDict:
    """A linear head g_u: h_u -> z_u for every modality, registered in the model as `unimodal_heads`."""
    heads = nn.ModuleDict({u: nn.Linear(d, model.n_classes) for u, d in model.widths.items()})
    model.add("unimodal_heads", heads)
    return heads


def with_unimodal_heads(model: Any, out: Output) -> Output:
    """The output with the unimodal logits of :func:`unimodal_heads`."""
    heads = model.extra["unimodal_heads"]
    return dataclasses.replace(out, unimodal={u: heads[u](h) for u, h in out.features.items()})


def start_from_teachers(ctx: Context) -> None:
    """Copies the teachers' encoders into the model."""
    for u, teacher in ctx.teachers.items():
        ctx.model.encoders[u].load_state_dict(teacher.encoders[u].state_dict())


def to_one_width(widths: Mapping[str, int]) -> nn.ModuleDict:
    """Per modality what brings its feature to the largest width: a linear projector, or nothing."""
    d = max(widths.values())
    return nn.ModuleDict({u: nn.Identity() if w == d else nn.Linear(w, d, bias=False) for u, w in widths.items()})


def unimodal_losses(out: Output, batch: Batch) -> dict[str, Tensor]:
    """L_u = CE(z_u, y) per modality, scalars; a clip without modality u does not count in L_u."""
    return {
        u: (F.cross_entropy(z_u, batch.label, reduction="none") * batch.present[u]).mean()
        for u, z_u in out.unimodal.items()
    }


def true_class_score(logits: Tensor, label: Tensor) -> Tensor:
    """s = sum over the batch of softmax(z)[i, y_i], a scalar; logits `[B, C]`, label `[B]`."""
    return F.softmax(logits.float() if logits.dtype != torch.float64 else logits, dim=1).gather(1, label[:, None]).sum()


def collect(scanned: Iterable[tuple[Output, Batch]]) -> tuple[Output, Batch]:
    """What :meth:`Context.scan` yields, as one output and one batch."""
    outs, batches = zip(*scanned, strict=True)
    return Output.cat(list(outs)), Batch.cat(list(batches))
