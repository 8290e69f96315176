from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmsearch.recommend.explain import answers, clip_names, curves_of, metrics_by_epoch, signals


def epoch(trial: str, number: int, **metrics: float | None) -> dict:
    named = {k.replace("__", "/"): v for k, v in metrics.items()}
    return {"event": "epoch", "trial_id": trial, "epoch": number, "metrics": named}


def told(run: Path, trial: str, index: list[int], label: list[int], predicted: list[int]) -> None:
    (run / "trials" / trial).mkdir(parents=True)
    content = {"index": index, "label": label, "predicted": predicted}
    (run / "trials" / trial / "select.json").write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two seeds of joint training and of another model, with four clips each of which two are shared."""
    told(tmp_path, "j0", [0, 1, 2, 3], [0, 1, 0, 1], [1, 1, 1, 1])
    told(tmp_path, "c0", [0, 1, 2, 3], [0, 1, 0, 1], [0, 1, 1, 0])
    told(tmp_path, "j1", [2, 3, 4, 5], [0, 1, 0, 1], [0, 1, 1, 1])
    told(tmp_path, "c1", [5, 4, 3, 2], [1, 0, 1, 0], [1, 0, 0, 0])
    return tmp_path


def test_clips_are_compared_seed_by_seed(run: Path) -> None:
    found = answers(run, {0: "j0", 1: "j1"}, {0: "c0", 1: "c1"}, 2)
    assert found is not None
    assert found.seeds == 2
    assert found.errors == 3, "joint training is wrong on 0 and 2, then on 4"
    assert (found.fixes, found.breaks) == (2, 2)
    assert [(c.row, c.joint, c.chosen, c.seeds) for c in found.fixed] == [(0, [1], [0], 1), (4, [1], [0], 1)]
    assert [(c.row, c.joint, c.chosen, c.seeds) for c in found.broken] == [(3, [1, 1], [0, 0], 2)]


def test_confusion_counts_every_answer_of_every_seed(run: Path) -> None:
    found = answers(run, {0: "j0", 1: "j1"}, {0: "c0", 1: "c1"}, 2)
    assert found is not None
    assert found.confusion["joint"].tolist() == [[1, 3], [0, 4]]
    assert found.confusion["chosen"].tolist() == [[3, 1], [2, 2]]


def test_a_clip_that_is_won_and_lost_as_often_is_in_neither_list(tmp_path: Path) -> None:
    for seed, (joint, chosen) in enumerate([(0, 1), (1, 0)]):
        told(tmp_path, f"j{seed}", [7], [0], [joint])
        told(tmp_path, f"c{seed}", [7], [0], [chosen])
    found = answers(tmp_path, {0: "j0", 1: "j1"}, {0: "c0", 1: "c1"}, 2)
    assert found is not None
    assert (found.fixes, found.breaks, found.fixed, found.broken) == (1, 1, [], [])


def test_only_seeds_of_both_are_compared(run: Path) -> None:
    found = answers(run, {0: "j0", 1: "j1"}, {1: "c1"}, 2)
    assert found is not None and found.seeds == 1 and found.errors == 1


def test_joint_training_alone_has_a_confusion_and_no_comparison(run: Path) -> None:
    found = answers(run, {0: "j0"}, {0: "j0"}, 2)
    assert found is not None
    assert set(found.confusion) == {"joint"} and found.seeds == 0


def test_a_folder_without_models_has_no_answers(tmp_path: Path, run: Path) -> None:
    assert answers(tmp_path / "elsewhere", {0: "j0"}, {0: "c0"}, 2) is None
    (run / "trials/j0/select.json").write_text("{torn")
    assert answers(run, {0: "j0"}, {0: "c0"}, 2) is None


def test_an_epoch_that_was_repeated_counts_once() -> None:
    events = [epoch("a", 1, x=0.1), epoch("a", 2, x=0.2), epoch("a", 2, x=0.3), epoch("b", 1, x=0.5, y=None)]
    metrics = metrics_by_epoch([*events, {"event": "told", "trial_id": "a"}])
    assert curves_of(metrics, ["a", "b"], "x") == {1: [0.1, 0.5], 2: [0.3]}
    assert curves_of(metrics, ["b", "gone"], "y") == {}


def test_signals_are_those_of_the_method_by_modality() -> None:
    metrics = metrics_by_epoch([epoch("a", 1, ogm__k__sound=0.5, ogm__rho=2.0, val__accuracy=0.9, ogmx__k=1.0)])
    assert signals(metrics, ["a"], "ogm") == {"k": {"sound": {1: [0.5]}}, "rho": {"": {1: [2.0]}}}
    assert signals(metrics, ["a"], "joint") == {}


def test_names_are_those_of_the_rows_unless_clips_were_resampled(tmp_path: Path) -> None:
    assert clip_names(tmp_path) is None
    (tmp_path / "data.json").write_text(json.dumps({"clip_id": ["a", "b"], "quality": None}))
    assert clip_names(tmp_path) == ["a", "b"]
    (tmp_path / "data.json").write_text(json.dumps({"clip_id": ["a", "b"], "quality": {"seed": 1}}))
    assert clip_names(tmp_path) is None


def test_confusion_is_square_where_a_class_never_occurs(tmp_path: Path) -> None:
    told(tmp_path, "j", [0], [1], [1])
    found = answers(tmp_path, {0: "j"}, {0: "j"}, 3)
    assert found is not None and np.array_equal(found.confusion["joint"], np.diag([0, 1, 0]))
