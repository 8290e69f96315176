"""Modality-specific learning rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from mmsearch.batch import Batch, Output
from mmsearch.knobs import knob
from mmsearch.methods import Context, Dominance, Method, NoOp
from mmsearch.methods._base import collect


def ratio(history: Sequence[float], memory: int) -> float:
    """The last accuracy over the mean of the `memory` ones before it; 1 where there are not as many."""
    before = history[-memory - 1 : -1]
    return history[-1] * len(before) / sum(before) if len(before) == memory and sum(before) > 0 else 1.0


def bases(base: float, modalities: Sequence[str]) -> dict[str, float]:
    """`base` for the first modality, one value for the others, of mean 1."""
    if len(modalities) < 2:
        return dict.fromkeys(modalities, 1.0)
    other = (len(modalities) - base) / (len(modalities) - 1)
    return {u: other if i else base for i, u in enumerate(modalities)}


@dataclasses.dataclass
class MSLR(Method):
    """MSLR: every encoder has its own learning rate, which follows how its modality comes on.

    After every epoch the accuracy of a modality's own logits on the held clips over the mean of the epochs before
    (`memory`) is the factor ratio_u of the next epoch; until that many epochs are behind it is 1. Gradients of
    encoder u are scaled by base_u·ratio_u. A modality that still improves is sped up, one that falls is slowed.

    `base` is the factor of the dataset's first modality; the others share what keeps the mean at 1, as the
    published constants do (0.9/1.1 on CREMA-D, 1.3/0.7 on AV-MNIST, sound first). With one modality base_u = 1.
    The form is that of the AGM repository, which takes accuracies on test; here it is the held clips.

    Source: Modality-specific Learning Rates for Effective Multimodal Additive Late-fusion (Findings of ACL 2022),
    as in the repository of Boosting Multi-modal Model Performance with Adaptive Gradient Modulation (ICCV 2023).
    """

    name: ClassVar[str] = "mslr"
    summary: ClassVar[str] = "a learning rate per encoder that follows its held-out accuracy"
    paper: ClassVar[str] = (
        "Modality-specific Learning Rates for Effective Multimodal Additive Late-fusion (Findings of ACL 2022)"
    )
    formula: ClassVar[str] = "g_u ← base_u·ratio_u·g_u,  ratio_u = acc_u(e) / mean of the previous 5 acc_u"
    no_op: ClassVar[NoOp] = NoOp("joint", {"base": 1.0, "memory": 1.0})
    dominance: ClassVar[Dominance] = Dominance("accuracy", "high")

    base: float = knob(0.9, "factor of the first modality; the others keep the mean at 1", low=0.5, high=1.5)
    memory: float = knob(
        0.05, "epochs whose mean accuracy is the measure, share of training", low=0.0, high=1.0, search=False
    )
    apply_to: str = knob("grad", "scale the encoder's gradient or its learning rate", choices=("grad", "lr"))

    def __post_init__(self) -> None:
        self._history: dict[str, list[float]] = {}

    @property
    def needs_held(self) -> bool:
        """For the accuracies."""
        return True

    def after_backward(self, ctx: Context, out: Output, batch: Batch) -> None:
        """Scales the gradients of every encoder."""
        memory = max(round(self.memory * ctx.epochs), 1)
        for u, base_u in bases(self.base, ctx.modalities).items():
            k = base_u * (ratio(self._history[u], memory) if u in self._history else 1.0)
            ctx.log("k", k, u)
            if k != 1:
                ctx.scale(u, k, apply_to=self.apply_to)

    def on_epoch_end(self, ctx: Context) -> None:
        """Adds the accuracies of the epoch."""
        out, batch = collect(ctx.scan("held"))
        for u, z_u in out.unimodal.items():
            here = batch.present[u]
            acc_u = float(((z_u.argmax(1) == batch.label) & here).sum() / here.sum().clamp(min=1))
            ctx.log("accuracy", acc_u, u)
            self._history.setdefault(u, []).append(acc_u)

    def state_dict(self) -> dict[str, Any]:
        """The accuracies so far."""
        return {"history": self._history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._history = {u: list(h) for u, h in state["history"].items()}
