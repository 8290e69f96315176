"""Times a training step of every method beside plain joint training, and compares it with what it should cost.

    python scripts/bench_methods.py                     # two cores: small inputs, a few minutes
    python scripts/bench_methods.py --device cuda       # sizes of the papers

Steps are interleaved in one process, round robin: one of joint, one of every method, then the next round, so that
whatever else the machine does falls on all alike. A step is forward, loss, backward, the method's own work and the
update; not the loading of the batch, nor what a method does between epochs (scans, clusterings). A method is timed
where it is at work: inside its window, in its main stage.

The prediction counts passes: EXTRA says how many forward and backward passes, passes over the parameters, draws of
noise, teachers' forward passes and optimiser steps a step has beyond joint's, and why. What one of each costs is
measured in the same rounds on a joint model. A method that takes more than 1.15 times its prediction, beyond the
bootstrap interval, is flagged.

Memory: on a GPU the peak of a step, the method's own weights, copies and teachers included. On a CPU the processes'
resident memory says nothing of one method among many; there it is the most that autograd keeps for the backward
pass at any one time, parameters and buffers not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mmsearch.batch import Batch, Modality
from mmsearch.data.clips import ClipData
from mmsearch.errors import MMSearchError
from mmsearch.knobs import MODALITIES, knobs_of
from mmsearch.methods import METHODS
from mmsearch.testing import fusion_for, teachers_for
from mmsearch.training import Training, train
from mmsearch.training.evaluation import pick_device

UNITS = ("forwards", "backwards", "passes", "draws", "teachers", "updates")
LIMIT = 1.15
RATE, HOP_MS = 16000, 10.0


@dataclasses.dataclass(frozen=True)
class Extra:
    """What a step costs beyond one of joint, in passes; negative where it saves some.

    Attributes:
        why: in a few words.
        forwards, backwards: of all encoders.
        passes: elementwise operations or reductions over all parameters.
        draws: normal numbers, one a parameter.
        teachers: forward passes of all teachers, in evaluation mode and without gradient.
        updates: optimiser steps of all parameters.
        window: share of training in which it is at work.
        stage: how the name of the stage begins that is meant.
    """

    why: str
    forwards: float = 0.0
    backwards: float = 0.0
    passes: float = 0.0
    draws: float = 0.0
    teachers: float = 0.0
    updates: float = 0.0
    window: tuple[float, float] = (0.0, 1.0)
    stage: str = ""


EXTRA: dict[str, Extra] = {
    "joint": Extra("itself"),
    "agm": Extra("heads on masked features; clipping", passes=2),
    "amco": Extra("heads; masks on features", window=(0.05, 1.0)),
    "cggm": Extra("classifiers on features; gradients scaled", passes=1),
    "cml": Extra("subsets of logits"),
    "diagnose_relearn": Extra("nothing in a step"),
    "frozen_probe": Extra("encoders in evaluation mode, no backward, no update", -1, -1, teachers=1, updates=-1),
    "g2d": Extra("teachers; gradients scaled", passes=1, teachers=1, window=(0.0, 0.5)),
    "gradient_blending": Extra("heads; rehearsals are not steps of its own", stage="blend"),
    "greedy": Extra("squares and sums of gradients and weights", passes=4),
    "inforeg": Extra("norms of gradients; one encoder pulled: θ - θ_start, added", passes=2, window=(0.0, 0.2)),
    "lfm": Extra("divergence of logits"),
    "mbsd": Extra("heads; distance of logits"),
    "mla": Extra("one encoder a turn; only the head is stepped once more"),
    "mmcosine": Extra("cosine head"),
    "mmpareto": Extra(
        "a second backward pass that writes gradients of its own; 3 products, an interpolation, a scaling",
        backwards=1,
        passes=6,
    ),
    "modality_valuation": Extra("nothing in a step", window=(0.1, 1.0)),
    "mses": Extra("nothing in a step"),
    "mslr": Extra("gradients scaled", passes=1),
    "ogm": Extra(
        "standard deviation, noise drawn, scaled and added; gradients scaled", passes=4, draws=1, window=(0, 0.5)
    ),
    "opm": Extra("masks on features", window=(0.06, 1.0)),
    "pmr": Extra("distances to prototypes", window=(0.0, 0.2)),
    "qmf": Extra("ranks of confidences"),
    "reconboost": Extra("a turn moves one of two encoders", backwards=-0.5, updates=-0.5, stage="boost"),
    "uniform": Extra("heads"),
    "unimodal": Extra("one of two encoders", -0.5, -0.5, updates=-0.5),
    "unimodal_teacher": Extra("teachers", teachers=1),
}


def declared(names: list[str]) -> dict[str, Extra]:
    """The predictions of these methods.

    Raises:
        MMSearchError: names every method that has none.
    """
    missing = [n for n in names if n not in EXTRA]
    if missing:
        raise MMSearchError(f"bench_methods: no prediction for {', '.join(missing)}; declare it in EXTRA")
    return {n: EXTRA[n] for n in names}


def clips(size: int, rows: int, classes: int) -> ClipData:
    """Noise: sound whose spectrogram is `size` by `size`, and frames of that side; enough that train has `rows`.

    Args:
        size: side of both pictures.
        rows: clips of train.
        classes: C.
    """
    rng = np.random.default_rng(0)
    n = 2 * rows + 8 * classes
    length = round((size - 1) * RATE * HOP_MS / 1000)
    label = np.arange(n) % classes
    modalities = {
        "sound": Modality("sound", "sound", (length,), RATE),
        "frames": Modality("frames", "frames", (1, size, size, 3), 1),
    }
    inputs: dict[str, np.ndarray | list[np.ndarray]] = {
        "sound": rng.integers(-9000, 9000, (n, length), dtype=np.int16),
        "frames": rng.integers(0, 256, (n, 1, size, size, 3), dtype=np.uint8),
    }
    return ClipData.from_arrays(inputs, label, modalities=modalities)


def documents(names: list[str], data: ClipData, recipe: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every method at its paper's settings; a knob that picks a modality picks the first."""
    found = {}
    for name in names:
        method: dict[str, Any] = {"name": name}
        for knob in knobs_of(METHODS.get(name)).values():
            if knob.choices == MODALITIES:
                method[knob.name] = next(iter(data.modalities))
        found[name] = {**recipe, "method": method, **fusion_for(method, data)}
    return found


def steps(run: Training) -> Iterator[Batch]:
    """The batches of a training, each when its step is due, without evaluation and counting of operations.

    Whoever iterates calls `run.method.step(run.context, batch)`.
    """
    while run.epoch < run.epochs:
        plan = run._plan()
        if run.ticks >= len(plan):
            return
        stage, position, length = plan[run.ticks]
        yield from run.steps(stage, position, length)
        if stage.rehearsal and position == length - 1:
            run.unshelve()
        run.ticks += 1
        run.epoch += not stage.rehearsal


class Kept:
    """The most bytes that autograd keeps for backward passes at one time; parameters and buffers are not counted."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.peak = self._now = 0
        self._times: dict[int, int] = {}
        self._known = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}

    def hooks(self) -> Any:
        """A context manager."""
        return torch.autograd.graph.saved_tensors_hooks(lambda x: _Held(self, x), lambda held: held.tensor)

    def take(self, storage: torch.UntypedStorage) -> None:
        """One more use of a storage; it counts once."""
        if storage.data_ptr() in self._known:
            return
        if storage.data_ptr() not in self._times:
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
        self._times[storage.data_ptr()] = self._times.get(storage.data_ptr(), 0) + 1

    def leave(self, storage: torch.UntypedStorage) -> None:
        """One use less."""
        if storage.data_ptr() in self._times:
            self._times[storage.data_ptr()] -= 1
            if self._times[storage.data_ptr()] == 0:
                del self._times[storage.data_ptr()]
                self._now -= storage.nbytes()


class _Held:
    def __init__(self, kept: Kept, tensor: torch.Tensor) -> None:
        self.kept, self.tensor = kept, tensor.detach()
        kept.take(tensor.untyped_storage())

    def __del__(self) -> None:
        self.kept.leave(self.tensor.untyped_storage())


class Runner:
    """A method whose steps are taken one at a time.

    Attributes:
        times: seconds a step.
        memory: bytes, see the head of this file.
    """

    def __init__(self, build: Callable[[], Training], extra: Extra) -> None:
        before = allocated()
        self.run = build()
        self.extra = extra
        self.batches = steps(self.run)
        self.times: list[float] = []
        self.memory = 0
        self._own = allocated() - before

    def warm(self) -> None:
        """A step that is not timed, for memory on a CPU."""
        batch = self._next()
        kept = Kept(self.run.model)
        with kept.hooks():
            self._step(batch)
        self.memory = 0 if self.run.device.type == "cuda" else kept.peak

    def step(self) -> None:
        """A timed step."""
        self.times.append(self._step(self._next()))

    def _next(self) -> Batch:
        """The next full batch at which the method is at work; what is before it is trained on without a clock."""
        ctx = self.run.context
        for batch in self.batches:
            low, high = self.extra.window
            here = low <= ctx.progress < high and ctx.stage.name.startswith(self.extra.stage)
            if here and not ctx.stage.rehearsal and len(batch) == self.run.document["batch_size"]:
                return batch
            self._step(batch)
        raise MMSearchError(f"bench_methods: {self.run.method.name} has too few steps at work; give more --epochs")

    def _step(self, batch: Batch) -> float:
        before = allocated()
        if self.run.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(lambda: self.run.method.step(self.run.context, batch))
        if self.run.device.type == "cuda":
            self.memory = max(self.memory, self._own + torch.cuda.max_memory_allocated() - before)
            self._own += allocated() - before
        return seconds


class Parts:
    """One of each unit, on a joint model.

    Attributes:
        times: seconds, by unit.
    """

    def __init__(self, build: Callable[[], Training]) -> None:
        self.run = build()
        self.batches = steps(self.run)
        self.times: dict[str, list[float]] = {u: [] for u in UNITS}

    def step(self, counted: bool = True) -> None:
        """A joint step in pieces, and what is not in it."""
        ctx, batch = self.run.context, next(self.batches)
        while len(batch) < self.run.document["batch_size"]:
            batch = next(self.batches)
        held: list[torch.Tensor] = []
        generator = ctx.generator()
        seconds = {
            "forwards": timed(lambda: held.append(F.cross_entropy(ctx.forward(batch).logits, batch.label))),
            "backwards": timed(lambda: held.pop().backward()),
        }
        grads = [p.grad for p in self.run.model.parameters() if p.grad is not None]
        seconds["passes"] = timed(lambda: torch._foreach_mul_(grads, 1.0))
        seconds["draws"] = timed(lambda: [torch.empty_like(g).normal_(generator=generator) for g in grads])
        seconds["updates"] = timed(ctx.update)
        seconds["teachers"] = timed(lambda: self.run.predictor.predict(batch))
        for unit, value in seconds.items() if counted else ():
            self.times[unit].append(value)


def allocated() -> int:
    """Bytes on the GPU now."""
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def timed(work: Callable[[], Any]) -> float:
    """Seconds, with the GPU's work done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


@dataclasses.dataclass
class Line:
    """What is said of a method; ratios with the bounds of their 95 % intervals.

    Attributes:
        seconds: median of a step.
        ratio: step over joint's: median, low, high.
        predicted: the same as declared.
        excess: ratio over predicted: median, low, high.
    """

    seconds: float
    ratio: tuple[float, float, float]
    predicted: float
    excess: tuple[float, float, float]

    @property
    def flagged(self) -> bool:
        """Whether it costs too much for chance."""
        return self.excess[1] > LIMIT


def judge(
    mine: list[float], joint: list[float], parts: Mapping[str, list[float]], extra: Extra, draws: int = 2000
) -> Line:
    """Compares a method with joint and with its prediction; rounds are resampled together.

    Args:
        mine, joint: seconds of a step, round by round.
        parts: per unit seconds, round by round.
        extra: the prediction.
        draws: resamplings.
    """
    rounds = len(mine)
    resampled = np.random.default_rng(0).integers(rounds, size=(draws, rounds))

    def medians(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step, base = (np.median(np.array(x)[rows], axis=-1) for x in (mine, joint))
        more = sum(getattr(extra, u) * np.median(np.array(parts[u])[rows], axis=-1) for u in UNITS)
        return step / base, (base + more) / base

    def bounds(x: np.ndarray) -> tuple[float, float]:
        low, high = np.quantile(x, (0.025, 0.975))
        return float(low), float(high)

    ratio, predicted = medians(np.arange(rounds))
    ratios, predictions = medians(resampled)
    return Line(
        float(np.median(mine)),
        (float(ratio), *bounds(ratios)),
        float(predicted),
        (float(ratio / predicted), *bounds(ratios / predictions)),
    )


def table(lines: Mapping[str, Line], memory: Mapping[str, float], names: Mapping[str, Extra]) -> str:
    """The Markdown table; `memory` is over joint's."""
    head = ["method", "step, ms", "over joint (95 %)", "predicted", "over prediction (95 %)", "memory over joint"]
    rows = ["| " + " | ".join([*head, *UNITS, "why"]) + " |", "|" + "---|" * (len(head) + len(UNITS) + 1)]

    def interval(x: tuple[float, float, float]) -> str:
        return f"{x[0]:.2f} ({x[1]:.2f} to {x[2]:.2f})"

    for name, line in lines.items():
        extra = names[name]
        cells = [
            name,
            f"{1000 * line.seconds:.1f}",
            interval(line.ratio),
            f"{line.predicted:.2f}",
            interval(line.excess) + (" **!**" if line.flagged else ""),
            f"{memory[name]:.2f}",
            *(f"{getattr(extra, u):+g}" if getattr(extra, u) else "" for u in UNITS),
            extra.why,
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def measure(
    names: list[str], data: ClipData, recipe: Mapping[str, Any], device: str, rounds: int, folder: Path
) -> tuple[dict[str, Line], dict[str, float], dict[str, float]]:
    """Runs the rounds.

    Returns:
        Per method its line and its memory over joint's, and per unit the median of its seconds.
    """
    predictions = declared(names)
    wanted = documents(names, data, recipe)
    plain = {f: {**recipe, "method": {"name": "joint"}, "fusion": {"name": f}} for f in _references(wanted)}
    taught: dict[bool, dict[str, Any]] = {}

    def build(document: dict[str, Any]) -> Training:
        method = METHODS.create(document["method"])
        if not method.needs_teachers:
            return train(document, data, device=device)
        if method.needs_held not in taught:
            taught[method.needs_held] = teachers_for({**document, "epochs": 1}, data, folder / str(method.needs_held))
        found = taught[method.needs_held]
        document = {**document, "teachers": found["document"]["teachers"]}
        return train(document, data, device=device, teachers=found["teachers"])

    torch.manual_seed(0)
    joint = {f: Runner(lambda d=d: build(d), EXTRA["joint"]) for f, d in plain.items()}  # type: ignore[misc]
    others = {n: Runner(lambda d=d: build(d), predictions[n]) for n, d in wanted.items() if n != "joint"}  # type: ignore[misc]
    parts = Parts(lambda: build(plain["concat"]))
    runners = [*joint.values(), *others.values()]
    for runner in runners:
        runner.warm()
    parts.step(counted=False)
    for i in range(rounds):
        print(f"round {i + 1} of {rounds}", file=sys.stderr, flush=True)
        for runner in runners:
            runner.step()
        parts.step()
    lines, memory = {}, {}
    for name, document in wanted.items():
        base = joint[document.get("fusion", {"name": "concat"})["name"]]
        mine = others.get(name, base)
        lines[name] = judge(mine.times, base.times, parts.times, predictions[name])
        memory[name] = mine.memory / base.memory
    return lines, memory, {u: float(np.median(t)) for u, t in parts.times.items()}


def _references(wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The fusions under which joint is stepped too, concat first."""
    fusions = [d["fusion"]["name"] for d in wanted.values() if "fusion" in d]
    return list(dict.fromkeys(["concat", *fusions]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="these only (default: all there are)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backbone", default="resnet18", help="of both encoders: small or any timm network")
    parser.add_argument("--size", type=int, help="side of frames and spectrograms (default: 224 on a GPU, else 32)")
    parser.add_argument("--batch", type=int, help="clips a step (default: 64 on a GPU, else 8)")
    parser.add_argument("--rounds", type=int, help="timed steps of every method (default: 40 on a GPU, else 15)")
    parser.add_argument("--epochs", type=int, default=10, help="of the training that the steps are taken from")
    args = parser.parse_args(arguments)
    device = pick_device(args.device)
    gpu = device.type == "cuda"
    if not gpu:
        torch.set_num_threads(1)
    size, batch, rounds = args.size or (224 if gpu else 32), args.batch or (64 if gpu else 8), args.rounds
    rounds = rounds or (40 if gpu else 15)
    names = args.methods or METHODS.names()
    try:
        declared(names)
        # the shortest window is a fifth of training, and an eighth of train may be held out
        rows = batch * (int((rounds + 3) / 0.2 / args.epochs / 0.85) + 1)
        data = clips(size, rows, 8)
        spectrogram = {"name": "spectrogram", "n_mels": size, "hop_ms": HOP_MS, "n_fft": 512 if size < 128 else 2048}
        encoders = {
            "sound": {**spectrogram, "backbone": args.backbone},
            "frames": {"name": "frames", "backbone": args.backbone},
        }
        optimizer = {"name": "sgd", "lr": 1e-3}
        recipe = {"encoders": encoders, "epochs": args.epochs, "batch_size": batch, "optimizer": optimizer}
        with tempfile.TemporaryDirectory() as folder:
            lines, memory, units = measure(names, data, recipe, args.device, rounds, Path(folder))
    except MMSearchError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    where = torch.cuda.get_device_name() if gpu else "one thread of the CPU"
    print(f"{args.backbone}, size {size}, batch {batch}, {where}, {rounds} rounds; medians\n")
    print(table(lines, memory, declared(names)))
    print("\nOne of each, ms: " + ", ".join(f"{u} {1000 * s:.1f}" for u, s in units.items()))
    print(
        "Memory: "
        + ("peak of a step" if gpu else "what autograd keeps for the backward pass; copies and teachers not counted")
    )
    flagged = [n for n, line in lines.items() if line.flagged]
    print(f"Above {LIMIT} times the prediction: {', '.join(flagged) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
