"""The hand-over: `RUN/best`, the recommended model as a folder that leaves the run, with its card and its recipe."""

from __future__ import annotations

import os
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mmsearch.data import decode
from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.fusion import OWN
from mmsearch.recommend import words
from mmsearch.search.job import weights_dir
from mmsearch.search.trials import TrialRecord
from mmsearch.training import Predictor
from mmsearch.training.bundle import CONFIG, WEIGHTS, save_bundle

FOLDER = "best"
"""Below the run's folder."""

CARD, RECIPE = "README.md", "train.yaml"


class Data(Protocol):
    """What the hand-over needs to know of the clips; a `ClipData` has it."""

    name: str
    digest: str
    order: str

    @property
    def decoding(self) -> dict[str, dict[str, Any]] | None:
        """How they were decoded."""
        ...

    @property
    def quality(self) -> dict[str, Any] | None:
        """What was made worse of them on purpose."""
        ...

    def part(self, name: str, fold: int | None = 0) -> np.ndarray:
        """The rows of a part."""
        ...


def write(
    run_dir: Path,
    recommendation: Mapping[str, Any],
    records: Mapping[str, TrialRecord],
    data: Data,
    refit: str | None,
) -> Path:
    """Writes `RUN/best`, replacing an older one when all of the new one is there.

    Args:
        run_dir: the run's folder, with the weights of its trials.
        recommendation: the content of `recommendation.json`.
        records: of every trial.
        data: of the run.
        refit: the trial that trained the recommended configuration on the whole development part. Where there is none,
            or it has failed, the confirmation's model of the median seed is handed over.

    Returns:
        The folder.

    Raises:
        MMSearchError: the weights are gone, or the folder cannot be written.
    """
    confirmed = [records[i] for i in recommendation["decision"]["trial_ids"]]
    trial = records[refit] if refit is not None else None
    failed = trial.reason or "it failed" if trial is not None and trial.state != "complete" else None
    if trial is None or failed:
        trial = median_seed(confirmed)
    predictor = Predictor.load(weights_dir(run_dir, trial.trial_id))
    origin = {
        "trial_id": trial.trial_id,
        "stage": trial.stage,
        "seed": trial.document["seed"],
        "clips": len(data.part("fit" if trial.document["held"] else "train", trial.document["fold"])),
        "refit_failed": failed,
    }
    final = run_dir / FOLDER
    fresh, old = (run_dir / f".{FOLDER}.{what}.{os.getpid()}" for what in ("new", "old"))
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        about = {
            "data": {"name": data.name, "digest": data.digest, "quality": data.quality},
            "decode_version": decode.VERSION,
            "origin": origin,
            "versions": recommendation["provenance"]["versions"],
        }
        save_bundle(fresh, predictor, data.decoding, about)
        write_text(fresh / RECIPE, recipe(trial, records, data, recommendation))
        write_text(fresh / CARD, card(predictor, origin, recommendation, data))
        if final.exists():
            final.rename(old)
        fresh.rename(final)
    except OSError as e:
        raise MMSearchError(f"{final}: cannot be written: {e.strerror or e}") from e
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return final


def median_seed(confirmed: Sequence[TrialRecord]) -> TrialRecord:
    """The trial with the median accuracy on select, the lower of two in the middle; of equal ones the first seed's."""
    by_seed = sorted(confirmed, key=lambda r: r.document["seed"])
    accuracy = [(r.select or {})["accuracy"] for r in by_seed]
    return by_seed[accuracy.index(statistics.median_low(accuracy))]


def recipe(
    trial: TrialRecord, records: Mapping[str, TrialRecord], data: Data, recommendation: Mapping[str, Any]
) -> str:
    """`train.yaml`: what `mmsearch train` needs to train the model again, its teachers first."""
    arguments = recommendation["provenance"]["sweep"].get("arguments", {})
    teachers = {u: records[t].document for u, t in trial.document["teachers"].items()}
    content = {
        "document": _portable(trial.document),
        **({"teachers": {u: _portable(d) for u, d in teachers.items()}} if teachers else {}),
        "order": data.order,
        "threads": max(1, int(arguments.get("cpus_per_trial", 1))),
    }
    head = f"# Trains this model again: python -m mmsearch train {RECIPE} --dataset DATASET.yaml --out FOLDER\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _portable(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document without what other clips, or a training of their own, give it."""
    own = {"fusion"} if document["fusion"]["name"] == OWN else set()
    return {k: v for k, v in document.items() if k not in {"data", "teachers", *own}}


def card(predictor: Predictor, origin: Mapping[str, Any], recommendation: Mapping[str, Any], data: Data) -> str:
    """The model card, Markdown.

    Args:
        predictor: the model.
        origin: as in `config.json`.
        recommendation: the content of `recommendation.json`.
        data: of the run.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )
    environment.filters |= {"md": escaped, "interval": words.percent_interval, "count": words.count}
    decision = recommendation["decision"]
    by_label = {f["label"]: f for f in recommendation["finalists"]}
    chosen, joint = by_label[decision["label"]], by_label[decision["reference"]]
    document = predictor.document
    return environment.get_template("model_card.md.j2").render(
        decision=decision,
        chosen=chosen,
        joint=None if joint is chosen else joint,
        provenance=recommendation["provenance"],
        sentences=[s for s in decision["sentences"] if s["about"] not in ("Cost", "Failures")],
        knobs=words.knobs({k: v for k, v in document.items() if k not in ("data", "teachers")}),
        cost=words.joint_epochs(chosen["cost_joint_epochs"] + chosen["cost_shared_joint_epochs"]),
        teachers=bool(document["teachers"]),
        parameters=words.objective("size", predictor.model.size()),
        origin=origin,
        document=document,
        classes=predictor.classes,
        inputs=[predictor.all_modalities[u] for u in predictor.modalities],
        unread=[u for u in predictor.all_modalities if u not in predictor.modalities],
        decoding=data.decoding,
        one_file=_one_file(predictor, data.decoding),
        quality=data.quality,
        needed={u: found for u in predictor.modalities if (found := _folders(document["encoders"][u]))},
        files={"config": CONFIG, "weights": WEIGHTS, "recipe": RECIPE},
        dataset=_dataset(recommendation),
    )


def _one_file(predictor: Predictor, decoding: Mapping[str, Mapping[str, Any]] | None) -> bool:
    """Whether a file alone has all that the model reads."""
    read = [decoding[u] for u in predictor.modalities] if decoding else []
    return len({d["column"] for d in read}) < 2 and not any(d["inline"] for d in read)


def _dataset(recommendation: Mapping[str, Any]) -> str:
    """The name of the sweep's dataset file, without the folder it lay in."""
    return Path(recommendation["provenance"]["sweep"].get("arguments", {}).get("dataset", "DATASET.yaml")).name


def _folders(encoder: Mapping[str, Any]) -> list[str]:
    """Folders outside the model that an encoder reads."""
    return [encoder[k] for k in ("folder", "tokens") if encoder.get(k, "") not in ("", "words", "bytes")]


def escaped(text: object) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(str(text).split()))
