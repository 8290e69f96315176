"""Evaluation of a model on a part of the data, and models saved for others to use."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor

from mmsearch.batch import Batch, Modality, Output
from mmsearch.encoders import ENCODERS
from mmsearch.fusion import FUSIONS
from mmsearch.methods import Method
from mmsearch.training.checkpoint import load_state, save_state
from mmsearch.training.document import method_of, post_hoc_label
from mmsearch.training.model import Model

if TYPE_CHECKING:
    from mmsearch.data.clips import ClipData


@dataclasses.dataclass
class Evaluation:
    """What a model does on a part of the data.

    Attributes:
        accuracy: of the joint prediction, in [0, 1].
        macro_f1: unweighted mean of the classes' F1, 0 for a class without a hit.
        unimodal: accuracy of each modality's own logits, over the clips that have it.
        loss: mean cross-entropy of the joint prediction.
        probabilities: `[n, C]`.
        label: `[n]`.
        index: `[n]`, rows of the dataset.
        output: of all clips, on the CPU.
        batch: of all clips, without inputs.
    """

    accuracy: float
    macro_f1: float
    unimodal: dict[str, float]
    loss: float
    probabilities: np.ndarray
    label: np.ndarray
    index: np.ndarray
    output: Output = dataclasses.field(repr=False)
    batch: Batch = dataclasses.field(repr=False)

    def metrics(self, part: str) -> dict[str, float]:
        """Flat figures, named as in `val/accuracy/sound`."""
        return {
            f"{part}/accuracy": self.accuracy,
            f"{part}/macro_f1": self.macro_f1,
            f"{part}/loss": self.loss,
            **{f"{part}/accuracy/{u}": a for u, a in self.unimodal.items()},
        }


class Predictor:
    """A model together with the method that says how it predicts.

    Args:
        document: a resolved trial document.
        modalities: all of the dataset's, by name.
        classes: names, in the order of the logits.
    """

    def __init__(self, document: Mapping[str, Any], modalities: Mapping[str, Modality], classes: list[str]) -> None:
        self.document = dict(document)
        self.all_modalities = dict(modalities)
        self.classes = list(classes)
        self.method: Method = method_of(document)
        self.modalities = {u: modalities[u] for u in self.method.modalities(list(modalities))}
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            self.model = Model(document, self.modalities, len(classes))
            self.method.build(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def views(self, training: bool) -> dict[str, Any]:
        """The views of its encoders."""
        return {u: ENCODERS.create(self.document["encoders"][u]).view(training) for u in self.modalities}

    @torch.no_grad()
    def predict(self, batch: Batch) -> Output:
        """The method's output for a batch, in evaluation mode; logits in float32."""
        self.model.eval()
        with autocast(self.device, self.document["precision"]):
            out = self.model(batch.to(self.device))
            out = self.method.predict(self.model, out)
        return out.each(lambda x: x.float())

    def save(self, path: Path) -> None:
        """Writes weights, document and what is needed to rebuild the model."""
        save_state(
            path,
            {
                "document": self.document,
                "modalities": [m.to_dict() for m in self.all_modalities.values()],
                "classes": self.classes,
                "model": self.model.state_dict(),
                "method": self.method.state_dict(),
            },
        )

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Predictor:
        """The inverse of :meth:`save`, in evaluation mode.

        Raises:
            MMSearchError: nothing readable there.
        """
        state = load_state(path)
        modalities = [Modality.from_dict(d) for d in state["modalities"]]
        predictor = cls(state["document"], {m.name: m for m in modalities}, state["classes"])
        predictor.model.load_state_dict(state["model"])
        predictor.method.load_state_dict(state["method"])
        predictor.model.to(device).eval()
        return predictor


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 where the document asks for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def evaluate(
    model: Predictor | Path | str, data: ClipData, part: str, *, fold: int | None = None, batch_size: int = 128
) -> Evaluation:
    """Evaluates a model on a part of the data.

    Args:
        model: a predictor, or the directory where one was saved.
        data: the clips.
        part: `train`, `val`, `select` or `test`.
        fold: None for that of the model's document.
        batch_size: clips at once.
    """
    predictor = model if isinstance(model, Predictor) else Predictor.load(Path(model), pick_device("auto"))
    rows = data.part(part, predictor.document["fold"] if fold is None else fold)
    outs, batches = [], []
    read = data.batches(rows, batch_size, predictor.views(training=False), device=predictor.device)
    with contextlib.closing(read):
        for batch in read:
            outs.append(dataclasses.replace(predictor.predict(batch).each(Tensor.cpu), tokens={}))
            batches.append(batch.without_inputs())
    out, clips = Output.cat(outs), Batch.cat(batches)
    z, y = out.logits, clips.label
    predicted = z.argmax(1)
    hits = {u: (z_u.argmax(1) == y)[clips.present[u]] for u, z_u in out.unimodal.items()}
    return Evaluation(
        accuracy=float((predicted == y).double().mean()),
        macro_f1=float(f1_score(y.numpy(), predicted.numpy(), average="macro", zero_division=0.0)),
        unimodal={u: float(h.double().mean()) if len(h) else 0.0 for u, h in hits.items()},
        loss=float(F.cross_entropy(z, y)),
        probabilities=F.softmax(z, dim=1).numpy(),
        label=y.numpy(),
        index=clips.index.numpy(),
        output=out,
        batch=clips,
    )


def post_hoc(fusions: Sequence[Mapping[str, Any]], held: Evaluation, judged: Evaluation) -> dict[str, float]:
    """Accuracy of post-hoc fusions of a model's unimodal logits, by name and choices, as in `decision/vote`.

    Args:
        fusions: their documents.
        held: the model on clips held out of its training, to which a fusion is fitted.
        judged: the model on the clips that count.
    """
    accuracy = {}
    for document in fusions:
        z, present = judged.output.unimodal, judged.batch.present
        with torch.random.fork_rng([]):
            head = FUSIONS.create(document).build({u: 1 for u in z}, judged.output.logits.shape[1])
        head.fit(held.output.unimodal, held.batch.label, held.batch.present)
        hits = head.eval().combine(z, present).argmax(1) == judged.batch.label
        accuracy[post_hoc_label(document)] = float(hits.double().mean())
    return accuracy


def pick_device(device: str | torch.device) -> torch.device:
    """`auto` is the GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)
