from __future__ import annotations

from pathlib import Path

import pytest

from mmsearch.cli import main
from mmsearch.errors import MMSearchError
from mmsearch.search.objectives import check, front, measured
from mmsearch.search.trials import TrialRecord


def trial(name: str, score: float, cost: float, *, state: str = "complete", stage: str = "search", **metrics: float):
    document = {"encoders": {"sound": {}, "frames": {}}, "fold": 0 if stage == "search" else 1, "teachers": {}}
    named = {key.replace("_", "/"): value for key, value in metrics.items()}
    return TrialRecord(
        name, stage, "joint", "concat", document, {}, "", state, score, metrics=named, cost_joint_epochs=cost
    )


def records(*trials: TrialRecord) -> dict[str, TrialRecord]:
    return {t.trial_id: t for t in trials}


def names(found: list[dict]) -> list[str]:
    return [f["trial_id"] for f in found]


def test_the_front_holds_what_nothing_betters_in_every_objective() -> None:
    known = records(trial("dear", 0.9, 20), trial("cheap", 0.7, 5), trial("worse", 0.7, 6), trial("between", 0.8, 9))
    assert names(front(known)) == ["dear", "between", "cheap"]
    assert front(known)[0]["objectives"] == {"accuracy": 0.9, "cost": 20}


def test_of_equal_trials_the_first_stands_for_all() -> None:
    assert names(front(records(trial("a", 0.9, 5), trial("b", 0.9, 5)))) == ["a"]


def test_only_complete_trials_of_the_search_count() -> None:
    known = records(trial("a", 0.5, 5), trial("stopped", 0.9, 1, state="pruned"), trial("c", 0.9, 1, stage="confirm"))
    assert names(front(known)) == ["a"]


def test_teachers_are_charged_in_full() -> None:
    student = trial("student", 0.9, 10)
    student.document["teachers"] = {"sound": "t1", "frames": "t2"}
    known = records(student, trial("t1", 0.5, 3, stage="teacher"), trial("t2", 0.5, 4, stage="teacher"))
    assert measured(student, known)["cost"] == 17


def test_a_model_of_one_modality_has_no_worst_one() -> None:
    alone = trial("alone", 0.9, 5, val_accuracy_sound=0.9)
    both = trial("both", 0.8, 9, val_accuracy_sound=0.8, val_accuracy_frames=0.6, parameters=100.0)
    known = records(alone, both)
    assert "worst_modality" not in measured(alone, known)
    assert measured(both, known) == {"accuracy": 0.8, "worst_modality": 0.6, "cost": 9, "size": 100.0}
    assert names(front(known, ["worst_modality", "size"])) == ["both"]


def test_an_unknown_objective_names_the_nearest() -> None:
    check(["accuracy", "worst_modality", "cost", "size"])
    with pytest.raises(MMSearchError, match=r"--objectives: unknown objective 'acuracy'; did you mean 'accuracy'\?"):
        check(["acuracy"])


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--objectives", "accuracy,sise", "--objectives: unknown objective 'sise'; did you mean 'size'?"),
        ("--log", "tensorbord", "--log: unknown tracker 'tensorbord'; did you mean 'tensorboard'?"),
    ],
)
def test_the_command_line_refuses_an_unknown_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, message: str
) -> None:
    assert main(["sweep", "--dataset", "demo", flag, value, "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "run").exists()
