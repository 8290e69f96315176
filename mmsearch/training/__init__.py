"""Training: the model, the one loop, evaluation and checkpoints, in plain PyTorch."""

from mmsearch.training.document import (
    DEFAULTS,
    default_encoder,
    method_of,
    needs_held,
    refusal,
    resolve,
    seed_of,
    trial_id,
)
from mmsearch.training.evaluation import Evaluation, Predictor, evaluate
from mmsearch.training.loop import EpochResult, Training, train
from mmsearch.training.optimizers import OPTIMIZERS

__all__ = [
    "DEFAULTS",
    "OPTIMIZERS",
    "EpochResult",
    "Evaluation",
    "Predictor",
    "Training",
    "default_encoder",
    "evaluate",
    "method_of",
    "needs_held",
    "refusal",
    "resolve",
    "seed_of",
    "train",
    "trial_id",
]
