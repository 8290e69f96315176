"""Splits: test is fixed, groups stay together, folds rotate over development."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.batch import Modality
from mmsearch.data import ClipData
from mmsearch.data.splits import PARTS, RESHUFFLE_ABOVE, development_fold, test_part
from mmsearch.errors import MMSearchError

test_part.__test__ = False  # a function of the product, not a test


def clips(label, **kwargs) -> ClipData:
    vectors = np.arange(len(label), dtype=np.float32)[:, None]
    return ClipData.from_arrays({"v": vectors}, label, modalities={"v": Modality("v", "vector", (1,))}, **kwargs)


@given(st.lists(st.integers(0, 4), min_size=12, max_size=60), st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_parts_cover_every_clip_once(label, fold):
    data = clips(label)
    rows = np.concatenate([data.part(name, fold) for name in PARTS])
    assert sorted(rows.tolist()) == list(range(len(label)))
    assert all(len(data.part(name, fold)) for name in PARTS)


@given(st.integers(0, 10_000), st.integers(4, 30), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_no_group_in_two_parts(seed, groups, fold):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, 120)
    group = rng.integers(0, groups, 120)
    data = clips(label, group=group)
    seen = [set(group[data.part(name, fold)]) for name in PARTS]
    assert sum(map(len, seen)) == len(set(group)), "every group is in exactly one part"
    assert all(seen)


def test_test_part_never_changes_with_the_fold():
    data = clips(np.arange(100) % 5)
    test = data.part("test")
    assert len(test) == 20 and np.bincount(data.label[test]).tolist() == [4] * 5
    assert all(np.array_equal(data.part("test", fold), test) for fold in range(12))
    assert np.array_equal(clips(np.arange(100) % 5).part("test"), test)


def test_a_published_test_part_is_honoured():
    split = ["test" if i in (3, 7, 8) else ("train", "val", None)[i % 3] for i in range(40)]
    assert clips(np.arange(40) % 2, split=split).part("test").tolist() == [3, 7, 8]


def test_folds_rotate_then_reshuffle():
    label = np.arange(160) % 4
    folds = [development_fold(label, None, k) for k in range(8)]
    for fold in folds:
        assert np.bincount(fold).tolist() == [120, 20, 20]
        assert np.bincount(label[fold == 1]).tolist() == [5] * 4
    held = [frozenset(np.flatnonzero(fold == part)) for fold in folds[:4] for part in (1, 2)]
    assert frozenset().union(*held) == set(range(160)), "four folds use every clip once as val or select"
    assert len({fold.tobytes() for fold in folds}) == 8


def test_large_sets_reshuffle_every_fold():
    label = np.arange(RESHUFFLE_ABOVE) % 10
    a, b = development_fold(label, None, 0), development_fold(label, None, 1)
    overlap = ((a == 1) & (b == 1)).sum()
    assert 0 < overlap < (a == 1).sum(), "a fresh draw meets the old one by chance"


def test_few_groups_make_fewer_pieces():
    group = np.repeat(np.arange(5), 24)
    data = clips(np.arange(120) % 3, group=group)
    assert {len(set(group[data.part(name)])) for name in ("val", "select", "test")} == {1}


def test_too_few_groups_or_clips():
    with pytest.raises(MMSearchError, match="groups are too few"):
        clips(np.arange(20) % 2, group=np.zeros(20))
    with pytest.raises(MMSearchError, match="3 are needed"):
        clips(np.arange(20) % 2, group=np.arange(20) % 3).part("train")
    with pytest.raises(MMSearchError, match="no test part can be drawn"):
        clips(np.arange(20) // 5, group=np.arange(20) // 5)
    with pytest.raises(MMSearchError, match="at least 3"):
        clips([0, 1, 0, 1], split=["test", "test", "train", "train"]).part("train")


def test_unknown_part():
    with pytest.raises(MMSearchError, match="unknown part 'trian'; did you mean 'train'"):
        clips([0, 1] * 10).part("trian")
