from __future__ import annotations

import numpy as np
import pytest

from mmsearch.search.importance import ENOUGH, Importance, declared, importances, shared_importance
from mmsearch.search.trials import TrialRecord


def trial(i: int, score: float | None, method: str = "ogm", state: str = "complete", **params: object) -> TrialRecord:
    document = {"method": {"name": method}, "fold": 0, "epochs": 9, "seed": 0}
    named = {key.replace("__", "."): value for key, value in params.items()}
    return TrialRecord(f"{method}{i}", "search", method, "concat", document, named, "tpe", state=state, score=score)


def searched(n: int = 40, *, noise: float = 0.0, method: str = "ogm", level: float = 0.8) -> list[TrialRecord]:
    """Trials whose score depends on the learning rate alone, on its logarithmic scale."""
    rng = np.random.default_rng(0)
    lrs = 10 ** rng.uniform(-3, 0, n)
    alphas = rng.uniform(0, 1, n)
    scores = level - 0.05 * np.abs(np.log10(lrs) + 1.5) + noise * rng.normal(size=n)
    return [
        trial(i, float(s), method, sgd__lr=float(lr), ogm__alpha=float(a), fusion=("concat", "sum")[i % 2])
        for i, (s, lr, a) in enumerate(zip(scores, lrs, alphas, strict=True))
    ]


def test_the_knob_that_decides_is_the_most_important() -> None:
    found = importances(searched())["ogm"]
    assert next(iter(found.shares)) == "sgd.lr"
    assert found.shares["sgd.lr"] > 0.8 and sum(found.shares.values()) <= 1 + 1e-9
    assert found.told and found.unseen is not None and found.unseen > 0.5


def test_scores_that_no_knob_decides_are_told_apart_from_those_that_one_does() -> None:
    rng = np.random.default_rng(1)
    trials = [trial(i, float(rng.normal()), sgd__lr=float(rng.uniform(0.01, 1))) for i in range(40)]
    found = importances(trials)["ogm"]
    assert found.shares and not found.told


def test_too_few_trials_say_nothing() -> None:
    assert importances(searched(ENOUGH - 1))["ogm"] == Importance(ENOUGH - 1, {}, None)


def test_stopped_and_failed_trials_do_not_count() -> None:
    trials = searched(ENOUGH)
    trials[0].state = "pruned"
    trials[1].state, trials[1].score = "failed", None
    assert importances(trials)["ogm"].trials == ENOUGH - 2


def test_a_knob_that_never_varied_and_one_that_some_lack_are_left_out() -> None:
    trials = searched(20)
    for i, r in enumerate(trials):
        r.params["sgd.momentum"] = 0.9
        if i % 2:
            r.params["gated.width"] = i
    assert set(importances(trials)["ogm"].shares) == {"sgd.lr", "ogm.alpha", "fusion"}


def test_equal_scores_say_nothing() -> None:
    trials = [trial(i, 0.5, sgd__lr=0.1 + i) for i in range(20)]
    assert importances(trials)["ogm"].shares == {}


def test_methods_together_are_compared_within_each() -> None:
    good = searched(12, method="mla", level=0.95)
    bad = searched(12, method="ogm", level=0.5)
    for i, r in enumerate(good):
        r.params["sgd.weight_decay"] = 1.0 + i / 100
    for i, r in enumerate(bad):
        r.params["sgd.weight_decay"] = 0.1 + i / 100
    found = shared_importance([*good, *bad])
    assert found.trials == 24
    assert next(iter(found.shares)) == "sgd.lr"
    assert found.shares["sgd.weight_decay"] < 0.2, "that the methods differ in it is no merit of it"


def test_a_method_without_the_common_knobs_does_not_silence_the_others() -> None:
    alone = [trial(i, 0.6, "unimodal", unimodal__modality=m) for i, m in enumerate(("sound", "frames"))]
    found = shared_importance([*searched(12, method="mla"), *searched(12), *alone])
    assert found.trials == 24 and next(iter(found.shares)) == "sgd.lr"


def test_nothing_searched_is_nothing() -> None:
    assert importances([]) == {}
    assert shared_importance([]) == Importance(0, {}, None)


@pytest.mark.parametrize("name", ["sgd.lr", "ogm.alpha", "encoder.sound.spectrogram.n_mels"])
def test_parameters_are_traced_to_their_declaration(name: str) -> None:
    knob = declared(name)
    assert knob is not None and knob.name == name.rpartition(".")[2]
    assert declared("nobody.knows") is None


def test_the_same_trials_give_the_same_answer() -> None:
    assert importances(searched(noise=0.02)) == importances(searched(noise=0.02))
