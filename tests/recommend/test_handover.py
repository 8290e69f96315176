"""What `RUN/best` holds: the recommended model, how it was made, and what may be said of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from sweep_here import (
    SWEEP,
    Killed,
    begin,
    concluded,
    drive,
    search,
    stored,
    study_of,
    write_vectors,
)

import mmsearch
from mmsearch.cli import train as train_command
from mmsearch.data import ClipData
from mmsearch.data.document import Document
from mmsearch.recommend import card, handover
from mmsearch.search.job import weights_dir
from mmsearch.search.journal import Journal
from mmsearch.search.refit import RefitSource
from mmsearch.search.trials import TrialRecord, records
from mmsearch.training import evaluate


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run whose decision has been made; read-only for tests."""
    folder = tmp_path_factory.mktemp("home")
    data = stored(write_vectors(folder / "clips"), folder / "store")
    run = folder / "run"
    begin(run, data)
    with Journal(run) as journal:
        search(study_of(run, data, journal), run)
        recommendation = concluded(journal, data, run)
        return SimpleNamespace(run=run, data=data, recommendation=recommendation, events=list(journal.events))


@pytest.fixture
def run(home: SimpleNamespace, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A copy of it that a test may go on with."""
    folder = shutil.copytree(home.run, tmp_path / "run")
    home.data.save(folder / "data.json")
    yield SimpleNamespace(folder=folder, data=home.data, recommendation=home.recommendation)


def recommending(run: SimpleNamespace, method: str, **knobs: object) -> dict:
    """The recommendation with another finalist chosen, whatever the seeds say."""
    rec = run.recommendation
    f = next(f for f in rec["finalists"] if f["method"] == method and knobs.items() <= f["config"]["method"].items())
    change = {k: f[k] for k in ("label", "method", "fusion", "modality", "config", "trial_ids")}
    return {**rec, "decision": {**rec["decision"], **change}}


def refitted(run: SimpleNamespace, recommendation: dict, **options: object) -> Path:
    """The folder after a refit."""
    with Journal(run.folder) as journal:
        study = study_of(run.folder, run.data, journal)
        source = RefitSource(study, recommendation["decision"]["trial_ids"])
        drive(source, study, run.folder, **options)
        return handover.write(run.folder, recommendation, study.records, run.data, source.trial_id)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    with safe_open(folder / "model.safetensors", "np") as file:
        return {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)


def test_it_was_trained_on_every_development_clip_and_on_no_other(run: SimpleNamespace) -> None:
    best = refitted(run, recommending(run, "joint"))
    assert {p.name for p in best.iterdir()} == {"README.md", "config.json", "model.safetensors", "train.yaml"}
    config = json.loads((best / "config.json").read_text())
    assert len({p.stat().st_mode for p in best.iterdir()}) == 1, "who may read one file may read all"
    assert config["origin"]["stage"] == "refit"
    assert config["origin"]["clips"] == int((~run.data.test).sum())
    assert config["document"]["fold"] is None
    assert (config["document"]["held"], config["document"]["post_hoc"]) == (False, []), "only post-hoc fusions held"
    assert config["classes"] == run.data.classes
    assert [m["column"] for m in config["modalities"]] == ["pose_path", "tone_path"]


def test_the_refit_is_no_evidence(run: SimpleNamespace) -> None:
    refitted(run, recommending(run, "unimodal_teacher", teacher="umt"))
    with Journal(run.folder) as journal:
        assert sum(e["event"] == "asked" and e["stage"] == "refit" for e in journal.events) == 3
        rebuilt = card.build(journal.events, run.data, SWEEP)
        assert concluded(journal, run.data, run.folder) == rebuilt
    assert json.dumps(rebuilt) == json.dumps(run.recommendation)


def test_a_kill_in_the_middle_changes_no_bit(run: SimpleNamespace, tmp_path: Path) -> None:
    recommendation = recommending(run, "ogm")
    other = SimpleNamespace(folder=shutil.copytree(run.folder, tmp_path / "other"), data=run.data)
    whole = refitted(run, recommendation)
    with pytest.raises(Killed):
        refitted(other, recommendation, kill_at=1)
    assert not (other.folder / "best").exists()
    assert same(tensors(refitted(other, recommendation)), tensors(whole))
    told = [e["trial_id"] for e in Journal(other.folder).events if e["event"] == "told"]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("teacher", ["ume", "umt"])
def test_what_rests_on_teachers_is_whole_without_them(run: SimpleNamespace, teacher: str, tmp_path: Path) -> None:
    best = refitted(run, recommending(run, "unimodal_teacher", teacher=teacher))
    trial = json.loads((best / "config.json").read_text())["origin"]["trial_id"]
    expected = evaluate(weights_dir(run.folder, trial), run.data, "test")
    moved = shutil.copytree(best, tmp_path / "elsewhere")
    shutil.rmtree(run.folder)
    predictor = mmsearch.load(moved).predictor
    found = evaluate(predictor, run.data, "test")
    assert np.array_equal(found.probabilities, expected.probabilities)


def test_without_a_refit_it_is_the_model_of_the_median_seed(run: SimpleNamespace) -> None:
    recommendation = recommending(run, "joint")
    found = records(Journal(run.folder).events)
    best = handover.write(run.folder, recommendation, found, run.data, None)
    origin = json.loads((best / "config.json").read_text())["origin"]
    assert origin["stage"] == "confirm"
    trial = handover.median_seed([found[i] for i in recommendation["decision"]["trial_ids"]])
    assert origin["trial_id"] == trial.trial_id
    a = evaluate(weights_dir(run.folder, trial.trial_id), run.data, "select")
    b = evaluate(mmsearch.load(best).predictor, run.data, "select")
    assert np.array_equal(a.probabilities, b.probabilities)
    assert "of the median seed" in (best / "README.md").read_text()


@pytest.mark.parametrize(
    ("accuracies", "seed"), [((0.9, 0.7, 0.8), 2), ((0.7, 0.9), 0), ((0.8, 0.8, 0.9), 0), ((0.5,), 0)]
)
def test_the_median_of_few_seeds(accuracies: tuple[float, ...], seed: int) -> None:
    trials = [
        TrialRecord(str(i), "confirm", "joint", "concat", {"seed": i}, {}, "", select={"accuracy": a})
        for i, a in enumerate(accuracies)
    ]
    assert handover.median_seed(trials[::-1]).document["seed"] == seed


def test_where_the_refit_fails_the_median_seed_is_handed_over_and_the_card_says_so(run: SimpleNamespace) -> None:
    recommendation = recommending(run, "joint")
    with Journal(run.folder) as journal:
        study = study_of(run.folder, run.data, journal)
        source = RefitSource(study, recommendation["decision"]["trial_ids"])
        study.issue(source.next())
        study.tell(source.trial_id, "failed", reason="the loss *exploded*")
        best = handover.write(run.folder, recommendation, study.records, run.data, source.trial_id)
    config = json.loads((best / "config.json").read_text())
    assert (config["origin"]["stage"], config["origin"]["refit_failed"]) == ("confirm", "the loss *exploded*")
    assert r"failed (the loss \*exploded\*)" in (best / "README.md").read_text()


def test_the_card_gives_figures_and_says_whose_they_are(run: SimpleNamespace) -> None:
    recommendation = recommending(run, "ogm")
    text = (refitted(run, recommendation) / "README.md").read_text()
    chosen = next(f for f in recommendation["finalists"] if f["label"] == recommendation["decision"]["label"])
    assert f"{100 * chosen['test']['mean']:.1f}%" in text and f"{100 * chosen['select']['mean']:.1f}%" in text
    assert "These figures are not this model's own" in text
    assert f"trained on {int((~run.data.test).sum())} development clips under one seed" in text
    assert "Classes: a, b, c." in text
    assert "## Licence\n\nNot chosen." in text
    assert "--dataset poses.yaml" in text and "/somewhere" not in text
    assert "\n\n\n\n" not in text and "Undefined" not in text and "{{" not in text


def test_the_card_names_what_is_not_in_the_folder_and_what_was_done_to_the_clips(run: SimpleNamespace) -> None:
    best = refitted(run, recommending(run, "unimodal"))
    text = (best / "README.md").read_text()
    (read,) = json.loads((best / "config.json").read_text())["inputs"]
    other = "tone" if read == "pose" else "pose"
    assert f"It does not read {other}." in text and f"A clip without {read} is not predicted." in text
    assert "clip.mp4" in text, "of one column a file is enough"
    predictor = mmsearch.load(best).predictor
    predictor.document["encoders"][read] = {"name": "hf_text", "folder": "/models/bert_base"}
    data = SimpleNamespace(decoding=run.data.decoding, quality={"seed": 0})
    origin = {"stage": "refit", "seed": 0, "clips": 1, "refit_failed": None}
    text = handover.card(predictor, origin, recommending(run, "unimodal"), data)
    assert rf"The encoder of {read} reads /models/bert\_base, which is not in this folder." in text
    assert "Clips were made worse on purpose" in text


def test_an_older_folder_is_replaced_as_a_whole(run: SimpleNamespace) -> None:
    best = refitted(run, recommending(run, "joint"))
    (best / "stray").touch()
    first = tensors(best)
    assert refitted(run, recommending(run, "ogm")) == best
    assert not (best / "stray").exists() and not same(tensors(best), first)
    assert [p.name for p in run.folder.iterdir() if p.name.startswith(".best")] == []


@pytest.mark.parametrize(("method", "teacher"), [("joint", None), ("unimodal_teacher", "umt")])
def test_its_recipe_trains_the_same_model_again(
    run: SimpleNamespace, tmp_path: Path, method: str, teacher: str | None
) -> None:
    best = refitted(run, recommending(run, method, **({"teacher": teacher} if teacher else {})))
    content = yaml.safe_load((best / "train.yaml").read_text())
    assert "data" not in content["document"] and content["threads"] == 1
    data = ClipData.open(run.folder / "data.json")
    train_command.train_again(Document(best / "train.yaml"), data, tmp_path / "again", "cpu")
    assert same(tensors(tmp_path / "again"), tensors(best))
    assert (tmp_path / "again" / "train.yaml").read_text() == (best / "train.yaml").read_text()
