"""The diagnosis of a finished sweep: what joint training and the recommended model made of the modalities.

It is measured on the models that the confirmation left in the run's folder, on the *select* part of the fold that each
was trained on; nothing is trained but linear probes, and the test part is not touched. What it costs is bounded by the
number of clips that are looked at.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.data import ClipData
from mmsearch.diagnostics.clipwise import clip_mean
from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.methods.unimodal_teacher import ensemble, paired_features_help
from mmsearch.recommend import card, diagnosis_words, report
from mmsearch.recommend.inside import Models, Say, bounded, probe_hits
from mmsearch.search.job import clips, log_file, trial_dir, weights_dir
from mmsearch.search.journal import read_events
from mmsearch.search.trials import Records, TrialRecord, records
from mmsearch.training.checkpoint import has_state

FILE = "diagnosis.json"
FORMAT = 1


def diagnose(
    run_dir: Path,
    recommendation: Mapping[str, Any],
    data: ClipData,
    *,
    say: Say = lambda what: None,
) -> dict[str, Any]:
    """The diagnosis of a run, from what lies in its folder.

    Args:
        run_dir: the run's folder, with the models of its confirmation.
        recommendation: of the run.
        data: its clips.
        say: told what is being looked at.

    Returns:
        `part`; `models` by role, `joint` and, where it is another one, `chosen` (docs/diagnosis.md names what there is
        of each); `ume_umt`; `clips` that the chosen model fixes and breaks; `sentences`; `cost`. A figure that cannot
        be had is None. A model that is no longer there is left out, and a sentence says so.

    Raises:
        MMSearchError: no journal.
    """
    started = time.perf_counter()
    run = Models(run_dir, records(read_events(run_dir)), data, say)
    models: dict[str, Any] = {}
    missing = []
    subjects = _subjects(recommendation, run.records)
    for role, (label, trials) in subjects.items():
        trial = _median(trials)
        if trial is None or not has_state(weights_dir(run_dir, trial.trial_id)):
            missing.append(f"{label} is not diagnosed: no confirmed model of it is left in the run's folder.")
            continue
        models[role] = run.model(label, trial, trials)
    for u, m in models.get("chosen", {"modalities": {}})["modalities"].items():
        chosen, joint = subjects["chosen"][1], subjects["joint"][1]
        alone = chosen[0].method == "unimodal"
        m["over_joint"] = None if alone else run.over(chosen, joint, u, models["chosen"]["seed"])
    found: dict[str, Any] = {
        "format": FORMAT,
        "part": "select",
        "models": models,
        "ume_umt": _rule(run, models),
        "clips": _fixed_and_broken(run, recommendation, models),
        "cost": {
            "clips": max((m["clips"] for m in models.values()), default=0),
            "train_clips": max((m["train_clips"] for m in models.values()), default=0),
            "robustness_clips": max((m["robustness_clips"] for m in models.values()), default=0),
            "trial_seconds": recommendation["provenance"]["run_cost"]["trial_seconds"],
        },
    }
    found["cost"]["seconds"] = time.perf_counter() - started
    about = [*missing, *([diagnosis_words.cost(found["cost"])] if models else [])]
    found["sentences"] = [*diagnosis_words.sentences(found), *({"about": "Diagnosis", "text": text} for text in about)]
    return found


def diagnose_run(run_dir: Path) -> dict[str, Any]:
    """As :func:`diagnose`, of the recommendation that a run's folder has; for a worker of the cluster.

    Where it fails, that is the diagnosis, and the traceback is in `RUN/logs/diagnosis.log`.
    """
    try:
        return diagnose(run_dir, card.read(run_dir), clips(str(run_dir / "data.json")))
    except Exception as error:
        log = log_file(run_dir, "diagnosis")
        log.parent.mkdir(exist_ok=True)
        log.write_text(traceback.format_exc(), encoding="utf-8")
        return failed(str(error) if isinstance(error, MMSearchError) else f"{type(error).__name__}: {error}")


def attach(
    run_dir: Path,
    recommendation: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    make: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """The recommendation with its diagnosis, written together with its report.

    What a diagnosis needs may be gone, or be too much for the machine: a sweep does not fail with it.

    Args:
        run_dir: the run's folder.
        recommendation: as it was written there.
        events: the journal's.
        make: gives the diagnosis, where the folder has none of these models.
    """
    found = recorded(run_dir, recommendation)
    if found is None:
        try:
            found = make()
        except Exception as error:
            lines = str(error).strip().splitlines()
            found = failed(lines[-1] if lines else type(error).__name__)
        if found["models"]:
            write(run_dir, found)
    whole = {**recommendation, "diagnosis": found}
    card.write(run_dir, whole)
    report.write(run_dir, whole, events)
    return whole


def failed(reason: str) -> dict[str, Any]:
    """A diagnosis that came to nothing, as one line with its reason."""
    return {
        "format": FORMAT,
        "part": "select",
        "models": {},
        "ume_umt": None,
        "clips": {"fixed": [], "broken": []},
        "cost": None,
        "sentences": [{"about": "Diagnosis", "text": f"It failed and is not shown: {reason}"}],
    }


def write(run_dir: Path, diagnosis: Mapping[str, Any]) -> None:
    """`RUN/diagnosis.json`, replaced as a whole."""
    write_text(run_dir / FILE, json.dumps(diagnosis, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def recorded(run_dir: Path, recommendation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The diagnosis in the run's folder, where there is one of this recommendation's models, else None."""
    try:
        found = json.loads((run_dir / FILE).read_text(encoding="utf-8"))
        models = {role: m["trial_id"] for role, m in found["models"].items()}
        current = found["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    wanted = {
        role: trial.trial_id
        for role, (_, trials) in _subjects(recommendation, records(read_events(run_dir))).items()
        if (trial := _median(trials)) is not None
    }
    return found if current and models == wanted else None


def _subjects(rec: Mapping[str, Any], found: Records) -> dict[str, tuple[str, list[TrialRecord]]]:
    """By role the label and the confirmed trials: joint training, and the chosen one where it is another."""
    d = rec["decision"]
    roles = {"joint": d["reference"]} | ({"chosen": d["label"]} if d["label"] != d["reference"] else {})
    finalists = {f["label"]: f for f in rec["finalists"]}
    return {role: (label, [found[i] for i in finalists[label]["trial_ids"]]) for role, label in roles.items()}


def _median(trials: list[TrialRecord]) -> TrialRecord | None:
    """The trial of the median accuracy on select, of an even number the lower one; the first seed among equals."""
    ranked = sorted((t for t in trials if t.select), key=lambda t: (t.select["accuracy"], t.document["seed"]))  # type: ignore[index]
    return ranked[(len(ranked) - 1) // 2] if ranked else None


def _rule(run: Models, models: Mapping[str, Any]) -> dict[str, Any] | None:
    """The rule of Du et al. (ICML 2023) on the modalities' own models of the chosen (else joint) model's seed.

    Features that occur together matter where a classifier on the features of all of them beats the mean of their
    predictions by more than the standard error of the paired difference.
    """
    fused = [run.records[models[role]["trial_id"]] for role in ("chosen", "joint") if role in models]
    trial = next((t for t in fused if t.method != "unimodal"), None)
    if trial is None or len(run.data.modalities) < 2:
        return None
    teachers = {u: run.alone(trial, u) for u in run.data.modalities}
    if any(t is None for t in teachers.values()):
        return None
    fit, select = ({u: run.reading(t, part) for u, t in teachers.items() if t} for part in ("fit", "select"))
    first = next(iter(select.values()))
    train = np.concatenate([r.features(u) for u, r in fit.items()], axis=1)
    judged = np.concatenate([r.features(u) for u, r in select.items()], axis=1)
    probed = probe_hits(train, next(iter(fit.values())).label, judged, first.label)
    if probed is None:
        return None
    here = {u: r.batch.present[u] for u, r in select.items()}
    z = ensemble({u: r.output.unimodal[u] for u, r in select.items()}, "prob", None, here)
    averaged = (z.argmax(1) == first.batch.label).numpy()
    umt, se = paired_features_help(probed, averaged, 0.0)
    return {
        "rule": "umt" if umt else "ume",
        "acc_ume": float(averaged.mean()),
        "acc_probe": float(probed.mean()),
        "se": se,
        "lead": bounded(clip_mean(probed.astype(float) - averaged, run.group(first.batch.index.numpy()))),
        "seed": trial.document["seed"],
        "trial_ids": {u: t.trial_id for u, t in teachers.items() if t},
    }


def _fixed_and_broken(run: Models, rec: Mapping[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    """The clips of select that the chosen model gets right and joint training of the same seed does not, and the other
    way round, from what the confirmation kept of both.
    """
    nothing: dict[str, Any] = {"fixed": [], "broken": [], "of": 0, "seed": None, "change": None}
    if "chosen" not in models:
        return nothing
    chosen = run.records[models["chosen"]["trial_id"]]
    reference = next(f for f in rec["finalists"] if f["label"] == rec["decision"]["reference"])
    same = [i for i in reference["trial_ids"] if run.records[i].document["seed"] == chosen.document["seed"]]
    right = [_kept_hits(run.run_dir, i) for i in (chosen.trial_id, *same)]
    if len(right) < 2 or right[0] is None or right[1] is None or right[0].keys() != right[1].keys():
        return nothing
    mine, joint = right[0], right[1]
    rows = sorted(mine)
    d = np.array([mine[i] - joint[i] for i in rows], float)
    return {
        "fixed": [run.data.clip_ids[i] for i in rows if mine[i] > joint[i]],
        "broken": [run.data.clip_ids[i] for i in rows if mine[i] < joint[i]],
        "of": len(rows),
        "seed": chosen.document["seed"],
        "change": bounded(clip_mean(d, run.group(np.array(rows)))),
    }


def _kept_hits(run_dir: Path, trial_id: str) -> dict[int, int] | None:
    """Per row of select whether a confirmed model was right; None where the file is not there."""
    try:
        kept = json.loads((trial_dir(run_dir, trial_id) / "select.json").read_text(encoding="utf-8"))
        return {i: int(p == y) for i, p, y in zip(kept["index"], kept["predicted"], kept["label"], strict=True)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
