"""Samplers: which clips an epoch shows, and how often."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.errors import MMSearchError
from mmsearch.testing import difference, toy_data, weights
from mmsearch.training import resolve, train, trial_id
from mmsearch.training.samplers import SAMPLERS

LABEL = np.array([0] * 20 + [1] * 5 + [4] * 2)
ROWS = np.arange(27) * 3


def epochs(n: int, seed: int = 0, name: str = "class_balanced") -> list[np.ndarray]:
    sampler = SAMPLERS.create({"name": name})
    return [sampler.rows(ROWS, LABEL, seed=seed, epoch=e) for e in range(n)]


def test_shuffle_gives_every_clip_once() -> None:
    assert np.array_equal(epochs(1, name="shuffle")[0], ROWS)


def test_every_class_is_equally_often_in_an_epoch_of_the_same_length() -> None:
    for rows in epochs(5):
        assert len(rows) == len(ROWS) and rows.dtype == np.int64
        assert Counter(LABEL[rows // 3].tolist()) == {0: 9, 1: 9, 4: 9}


def test_a_class_is_used_up_before_a_clip_comes_again() -> None:
    for rows in epochs(4):
        small = Counter(r for r in rows.tolist() if LABEL[r // 3] == 4)
        assert sorted(small.values()) in ([4, 5], [5, 4])
    seen = Counter(np.concatenate(epochs(20)).tolist())
    large = [seen[r] for r in ROWS[:20].tolist()]
    assert max(large) == min(large) == 9, "from one epoch to the next too"


def test_it_is_a_function_of_seed_and_epoch() -> None:
    assert all(np.array_equal(a, b) for a, b in zip(epochs(3), epochs(3), strict=True))
    assert not np.array_equal(*epochs(2))
    assert not np.array_equal(epochs(1)[0], epochs(1, seed=1)[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 9))
def test_any_labels(label: list[int], epoch: int) -> None:
    given_label, rows = np.array(label), np.arange(len(label))
    drawn = SAMPLERS.create({"name": "class_balanced"}).rows(rows, given_label, seed=3, epoch=epoch)
    counts = Counter(given_label[drawn].tolist())
    assert len(drawn) == len(rows) and set(counts) == set(label)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_document_names_its_sampler() -> None:
    data = toy_data()
    plain = resolve({}, data.modalities)
    for same in ("shuffle", {"name": "shuffle"}):
        assert trial_id(resolve({"sampler": same}, data.modalities)) == trial_id(plain)
    assert "sampler" not in plain, "documents from before there were samplers keep their identity"
    other = resolve({"sampler": "class_balanced"}, data.modalities)
    assert other["sampler"] == {"name": "class_balanced"} and trial_id(other) != trial_id(plain)
    assert resolve(other, data.modalities) == other
    for wrong, said in (
        ("class_balance", "unknown sampler 'class_balance'; did you mean 'class_balanced'"),
        ({"name": "shuffle", "k": 1}, "unknown knob 'k'"),
        ([], "unknown sampler"),
    ):
        with pytest.raises(MMSearchError, match=said):
            resolve({"sampler": wrong}, data.modalities)


def test_training_sees_the_sampled_clips_and_a_method_adds_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_data(clips=120)
    data.label[data.label == 3] = 2
    method = {"name": "modality_valuation", "level": "sample", "warm_up": 1 / 60}
    run = train({"method": method, "sampler": "class_balanced", "epochs": 3}, data)
    asked = []
    batches = data.batches

    def spied(rows, *args, only=None, **options):
        if options.get("seed") is not None and len(rows) > 4:
            asked.append((rows, only))
        return batches(rows, *args, only=only, **options)

    monkeypatch.setattr(data, "batches", spied)
    results = list(run)
    for epoch, (rows, only) in enumerate(asked):
        sampled = SAMPLERS.create({"name": "class_balanced"}).rows(run.rows, data.label[run.rows], seed=0, epoch=epoch)
        assert np.array_equal(rows[: len(sampled)], sampled)
        assert max(counts := np.bincount(data.label[sampled])) - min(counts) <= 1
        assert only is None or set(rows[len(sampled) :]) <= set(sampled)
    assert len(asked) == 3 and len(asked[2][0]) > len(run.rows) == len(asked[0][0])
    assert results[0].cost_joint_epochs == pytest.approx(1.0)


def test_a_sampled_training_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    data = toy_data()
    data.label[::7] = 0
    sampled = {"sampler": "class_balanced", "epochs": 3}
    whole, first, again = train(sampled, data), train(sampled, data), train(sampled, data)
    list(whole)
    next(first)
    first.save(tmp_path / "c")
    again.restore(tmp_path / "c")
    list(again)
    assert difference(weights(whole), weights(again)) == 0
    plain = train({"epochs": 3}, data)
    list(plain)
    assert difference(weights(whole), weights(plain)) > 1e-3
