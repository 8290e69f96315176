"""The interface of a balancing method: narrow hooks, never the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmsearch.batch import Batch, Output


class Context(Protocol):
    """What the one training loop offers a method.

    It owns autocast, accumulation over micro-batches and the counting of cost; a method that replaces
    :meth:`Method.step` builds it from these calls alone.

    Attributes:
        model: `.encoders[u]`, `.fusion`, `.widths[u]`, `.n_classes`, `.extra[name]` for what a method adds.
        modalities: names, in the order of the dataset.
        epoch_progress: share of the current epoch that is done, in [0, 1).
        epoch: 0-based.
    """

    model: Any
    modalities: list[str]
    epoch_progress: float
    epoch: int

    @property
    def progress(self) -> float:
        """Share of the planned training that is done, in [0, 1)."""
        ...

    @property
    def teachers(self) -> Mapping[str, Any]:
        """Per modality the frozen model of a `unimodal` trial, where the method needs teachers."""
        ...

    def parts(self, batch: Batch) -> list[Batch]:
        """The micro-batches of a step (usually one)."""
        ...

    def forward(self, batch: Batch, mask: Collection[str] | None = None) -> Output:
        """Encoders, `modify_features`, fusion; with `mask` only these modalities, the others' features are zero."""
        ...

    def teacher_features(self, batch: Batch) -> dict[str, Tensor]:
        """Pooled features `[B, D_u]` of each teacher, in evaluation mode and without gradient."""
        ...

    def backward(self, loss: Tensor, share: float = 1.0) -> None:
        """Accumulates the gradient of `share * loss`."""
        ...

    def parameters(self, group: str) -> list[nn.Parameter]:
        """The parameters of a group: a modality (its encoder), `head` (the fusion), or what `build` added."""
        ...

    def update(self, groups: Collection[str] | None = None) -> None:
        """One optimiser step of these groups (None: all), then clears every gradient."""
        ...

    def generator(self) -> torch.Generator:
        """Private randomness: a pure function of seed, epoch and step, apart from the global stream."""
        ...

    def log(self, signal: str, value: Tensor | float, modality: str | None = None) -> None:
        """A signal of the method, averaged over the epoch under `<method>/<signal>[/<modality>]`."""
        ...


@dataclasses.dataclass(frozen=True)
class Stage:
    """A phase of a method's training, run by the one loop.

    Attributes:
        name: shown in progress and results.
        share: of the planned epochs; 0 for a stage that trains nothing and is evaluated once.
    """

    name: str
    share: float = 1.0


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
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    formula: ClassVar[str]
    earliest: ClassVar[float] = 0.0
    no_op: ClassVar[NoOp]

    @property
    def own_fusion(self) -> bool:
        """Whether the method brings its own head, so that no fusion is chosen beside it."""
        return False

    @property
    def needs_teachers(self) -> bool:
        """Whether it needs a trained `unimodal` model of every modality."""
        return False

    def modalities(self, available: Sequence[str]) -> list[str]:
        """The modalities it trains on, out of those of the dataset."""
        return list(available)

    def stages(self) -> tuple[Stage, ...]:
        """The phases of its training."""
        return (Stage("train"),)

    def build(self, model: Any) -> None:
        """Adds heads or parameters (`model.add(name, module)`) or replaces the head (`model.fusion = ...`)."""

    def predict(self, model: Any, out: Output) -> Output:
        """The output whose logits evaluation, prediction, export and diagnosis use."""
        return out

    def on_run_start(self, ctx: Context) -> None:
        """Once, after the weights are initialised (and again before a restored run goes on)."""

    def on_epoch_start(self, ctx: Context) -> None:
        """Before the first batch of an epoch."""

    def modify_features(self, ctx: Context, features: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Between encoders and fusion, in training only; features `[B, D_u]` per modality."""
        return features

    def compute_loss(self, ctx: Context, out: Output, batch: Batch) -> Tensor:
        """The scalar loss; by default L_mm = CE(z, y)."""
        return F.cross_entropy(out.logits, batch.label)

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Gradients are ready (`p.grad`), the optimiser has not stepped; `out` is detached, of the whole batch."""

    def on_epoch_end(self, ctx: Context) -> None:
        """After the last step of an epoch, before evaluation."""

    def step(self, ctx: Context, batch: Batch) -> Tensor:
        """One step of training; returns the detached loss of the batch."""
        outs, total = [], torch.zeros((), device=batch.label.device)
        for part in ctx.parts(batch):
            out = ctx.forward(part)
            loss = self.compute_loss(ctx, out, part)
            share = len(part) / len(batch)
            ctx.backward(loss, share)
            outs.append(out.detach())
            total += share * loss.detach()
        self.after_backward(ctx, Output.cat(outs), batch)
        ctx.update()
        return total

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


def true_class_score(logits: Tensor, label: Tensor) -> Tensor:
    """s = sum over the batch of softmax(z)[i, y_i], a scalar; logits `[B, C]`, label `[B]`."""
    return F.softmax(logits.float() if logits.dtype != torch.float64 else logits, dim=1).gather(1, label[:, None]).sum()
