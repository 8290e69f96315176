"""A trained model as a folder that stands alone: weights, and a `config.json` with all that is needed to use them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmsearch.batch import Modality
from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.training.checkpoint import load_state, save_state
from mmsearch.training.evaluation import Predictor

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_bundle(
    folder: Path, predictor: Predictor, decoding: Mapping[str, Mapping[str, Any]] | None, about: Mapping[str, Any]
) -> None:
    """Writes the two files.

    `config.json` has the trial `document`, `classes` in the order of the logits, `inputs` (the modalities that the
    model reads), and of every modality of the dataset what :class:`~mmsearch.batch.Modality` says, how its files are
    decoded (`column`, `inline`, `settings`) and which part of a clip the model's encoder takes (`view`).

    Args:
        folder: made where it is missing.
        predictor: the model.
        decoding: as of :attr:`mmsearch.data.ClipData.decoding`.
        about: more keys of `config.json`.

    Raises:
        MMSearchError: the folder cannot be written to.
    """
    views = predictor.views(training=False)
    modalities = [
        {**m.to_dict(), **(decoding or {}).get(u, {}), "view": dataclasses.asdict(views[u]) if u in views else None}
        for u, m in predictor.all_modalities.items()
    ]
    config = {
        "format": FORMAT,
        "document": predictor.document,
        "classes": predictor.classes,
        "inputs": list(predictor.modalities),
        "modalities": modalities,
        **about,
    }
    save_state(folder, {"model": predictor.model.state_dict(), "method": predictor.method.state_dict()}, WEIGHTS)
    write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)


def load_bundle(folder: str | Path, device: str | torch.device = "cpu") -> tuple[Predictor, dict[str, Any]]:
    """The model in evaluation mode, and the content of `config.json`.

    Raises:
        MMSearchError: no model is there, it is damaged, or a newer version wrote it.
    """
    folder = Path(folder)
    config = read_config(folder)
    try:
        modalities = {d["name"]: Modality.from_dict(d) for d in config["modalities"]}
        predictor = Predictor(config["document"], modalities, config["classes"])
        state = load_state(folder, WEIGHTS)
        predictor.model.load_state_dict(state["model"])
        predictor.method.load_state_dict(state["method"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise MMSearchError(f"{folder}: {WEIGHTS} and {CONFIG} do not fit together ({reason})") from None
    predictor.model.to(device).eval()
    return predictor, config


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a model's `config.json`.

    Raises:
        MMSearchError: as of :func:`load_bundle`.
    """
    path = folder / CONFIG
    if not path.is_file():
        best = folder / "best"
        hint = f"; did you mean {best}?" if (best / CONFIG).is_file() else ""
        raise MMSearchError(f"{folder}: no model there (it has no {CONFIG}){hint}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = int(config["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MMSearchError(f"{path}: not the configuration of a model ({type(error).__name__}: {error})") from None
    if version > FORMAT:
        raise MMSearchError(f"{path}: format {version}; this version of mmsearch reads up to {FORMAT}: upgrade it")
    return config
