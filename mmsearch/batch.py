"""What travels between data, encoders, fusion and methods: modality, view, batch and output."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

KINDS = ("sound", "frames", "image", "flow", "text", "series", "vector")
"""The kinds of modality. A modality's name is the user's own; its kind says what it holds."""


@dataclasses.dataclass(frozen=True)
class Modality:
    """What a model must know of a modality before the first clip.

    Attributes:
        name: as in the dataset YAML.
        kind: one of :data:`KINDS`.
        shape: of one stored clip: `[T]` samples for sound (the longest clip), `[F, H, W, 3]` for frames,
            `[1, H, W, 3]` for an image, `[F, H, W, 2]` for flow, `[L]` bytes of UTF-8 for text (the longest clip),
            `[T, D]` for a series (the longest clip), `[D]` for a vector.
        rate: samples a second (sound), frames a second (frames), 0 where it means nothing.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    rate: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name, "kind": self.kind, "shape": list(self.shape), "rate": self.rate}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Modality:
        """The inverse of :meth:`to_dict`."""
        return cls(d["name"], d["kind"], tuple(d["shape"]), d["rate"])


@dataclasses.dataclass(frozen=True)
class View:
    """Which part of a stored clip a batch carries, asked for by an encoder.

    Attributes:
        frames: how many frames (None: all). The clip is cut into that many equal segments.
        random: a random frame of each segment (training) or its middle (evaluation); for sound, a random
            or a centred crop.
        seconds: the length of the sound (None: the longest clip); shorter clips are padded with zeros.
        length: steps of a series (None: the longest clip) or tokens of a text; shorter clips are padded with zeros.
        tokenizer: how a text becomes tokens; see :func:`mmsearch.data.tokens.tokenise`.
        draws: how many random numbers a clip the encoder's augmentation needs; 0: it augments nothing.
    """

    frames: int | None = None
    random: bool = False
    seconds: float | None = None
    length: int | None = None
    tokenizer: str = "words"
    draws: int = 0


@dataclasses.dataclass
class Batch:
    """Clips of one step.

    Attributes:
        inputs: per modality; sound float32 `[B, T]` in [-1, 1], frames uint8 `[B, F, 3, H, W]`,
            image uint8 `[B, 1, 3, H, W]`, flow uint8 `[B, F, 2, H, W]` (128 is no motion), text int64 `[B, L]` (0 is
            no token), series float32 `[B, T, D]`, vector float32 `[B, D]`.
        label: int64 `[B]`.
        index: int64 `[B]`, the clip's row in the dataset.
        present: bool `[B]` per modality; where False the input is zeros and means nothing.
        draws: float32 `[B, K]` in [0, 1) for the modalities whose encoder augments; a pure function of seed, epoch
            and clip, so that every pass over a step sees the same augmented clips.
    """

    inputs: dict[str, Tensor]
    label: Tensor
    index: Tensor
    present: dict[str, Tensor]
    draws: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.label.shape[0])

    def _each(self, f: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            {k: f(v) for k, v in self.inputs.items()},
            f(self.label),
            f(self.index),
            {k: f(v) for k, v in self.present.items()},
            {k: f(v) for k, v in self.draws.items()},
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch where a GPU can fetch it without waiting."""
        return self._each(lambda x: x.pin_memory())

    def pieces(self, n: int) -> list[Batch]:
        """The batch cut into `n`, in order."""
        return [self] if n == 1 else [self.cut(c) for c in even_slices(len(self), n)]

    def cut(self, c: slice) -> Batch:
        """Some of the clips."""
        return self._each(lambda x: x[c])

    def without_inputs(self) -> Batch:
        """The same clips with nothing to see of them."""
        return dataclasses.replace(self, inputs={}, draws={})

    @staticmethod
    def cat(parts: list[Batch]) -> Batch:
        """Several batches as one."""
        if len(parts) == 1:
            return parts[0]
        return Batch(
            {k: torch.cat([p.inputs[k] for p in parts]) for k in parts[0].inputs},
            torch.cat([p.label for p in parts]),
            torch.cat([p.index for p in parts]),
            {k: torch.cat([p.present[k] for p in parts]) for k in parts[0].present},
            {k: torch.cat([p.draws[k] for p in parts]) for k in parts[0].draws},
        )


@dataclasses.dataclass
class Output:
    """What a model says of a batch.

    Attributes:
        logits: joint, `[B, C]`.
        features: pooled, per modality `[B, D_u]`.
        unimodal: logits per modality `[B, C]`; for a decomposable fusion they add up to `logits`.
        tokens: per modality `[B, N, D_u]`, where the fusion reads them.
    """

    logits: Tensor
    features: dict[str, Tensor]
    unimodal: dict[str, Tensor]
    tokens: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    @staticmethod
    def cat(parts: list[Output]) -> Output:
        """The outputs of micro-batches as one."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        return Output(
            torch.cat([p.logits for p in parts]),
            {k: torch.cat([p.features[k] for p in parts]) for k in first.features},
            {k: torch.cat([p.unimodal[k] for p in parts]) for k in first.unimodal},
            {k: torch.cat([p.tokens[k] for p in parts]) for k in first.tokens},
        )

    def detach(self) -> Output:
        """Cut from the graph."""
        return self.each(lambda x: x.detach())

    def float(self) -> Output:
        """Logits, features and unimodal logits in float32, or what is finer."""
        return dataclasses.replace(
            self,
            logits=_fine(self.logits),
            features={k: _fine(v) for k, v in self.features.items()},
            unimodal={k: _fine(v) for k, v in self.unimodal.items()},
        )

    def each(self, f: Callable[[Tensor], Tensor]) -> Output:
        """`f` of every tensor."""
        return Output(
            f(self.logits),
            {k: f(v) for k, v in self.features.items()},
            {k: f(v) for k, v in self.unimodal.items()},
            {k: f(v) for k, v in self.tokens.items()},
        )


def even_slices(clips: int, n: int) -> list[slice]:
    """So many clips cut into `n` slices, sizes as equal as can be and the larger ones first."""
    small, extra = divmod(clips, n)
    ends = [small * (i + 1) + min(i + 1, extra) for i in range(n)]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _fine(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
