"""Which clips are test, and how development is cut into train, val and select."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.errors import MMSearchError

if TYPE_CHECKING:
    from mmsearch.data.dataset import Clip

PARTS = ("train", "val", "select", "test")
"""train: fit. val: stop, search, pick finalists. select: decide among finalists. test: report, never decide."""

PIECES = 8
"""Development is cut into this many stratified pieces; one is val, one is select, the rest is train."""

RESHUFFLE_ABOVE = 3000
"""From this many development clips on, every fold is a fresh shuffle; below, folds rotate over the pieces."""

TEST_PIECES = 5
"""One piece of this many is the test part where the manifest names none."""


def drawn_from(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Labels, groups (None without) and test part of a dataset's clips, as :func:`test_part` takes and gives them."""
    label = np.array([clip.label for clip in clips], np.int64)
    names = [clip.group for clip in clips]
    group = None if names[0] is None else np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)
    return label, group, test_part(label, group, [clip.split for clip in clips])


def test_part(label: np.ndarray, group: np.ndarray | None, split: list[str | None] | None) -> np.ndarray:
    """The test part, fixed by the dataset.

    Args:
        label: int64 `[N]`.
        group: int64 `[N]`, clips that belong together (a speaker, a source video), or None.
        split: the manifest's split of every clip, or None. Where any says "test", those are the test part.

    Returns:
        bool `[N]`. Without a published split a fifth is drawn, by group and stratified by class.

    Raises:
        MMSearchError: too few groups, or every drawing would leave development without some class.
    """
    if split is not None and "test" in split:
        return np.array([s == "test" for s in split])
    if group is None:
        return _deal(label, TEST_PIECES, seed=0) == 0
    pieces = _deal_groups(label, group, TEST_PIECES, seed=0, least=2)
    size = np.bincount(pieces)
    classes = len(np.unique(label))
    fair = [p for p in range(len(size)) if len(np.unique(label[pieces != p])) == classes]
    if not fair:
        raise MMSearchError(
            "splits: no test part can be drawn by group that leaves clips of every class for training; "
            "give a split column or drop the group column"
        )
    return pieces == min(fair, key=lambda p: abs(size[p] - len(label) / TEST_PIECES))


def development_fold(label: np.ndarray, group: np.ndarray | None, fold: int) -> np.ndarray:
    """The part of every development clip on one fold.

    Args:
        label: int64 `[N]`, development clips only.
        group: int64 `[N]` or None; no group is in two parts.
        fold: 0 for the search, 1 and up for confirmation.

    Returns:
        int64 `[N]`, positions in :data:`PARTS` (0 train, 1 val, 2 select).

    Raises:
        MMSearchError: fewer than three clips or groups.
    """
    if fold < 0:
        raise MMSearchError(f"splits: fold is {fold}; it must be 0 or more")
    if len(label) >= RESHUFFLE_ABOVE:
        pieces, turn = _pieces(label, group, seed=fold), 0
    else:
        pieces = _pieces(label, group, seed=0)
        turns = (int(pieces.max()) + 1) // 2
        if fold >= turns:
            pieces = _pieces(label, group, seed=fold // turns)
        turn = fold % turns % ((int(pieces.max()) + 1) // 2)
    part = np.zeros(len(label), np.int64)
    part[pieces == 2 * turn] = 1
    part[pieces == 2 * turn + 1] = 2
    return part


def held_part(label: np.ndarray, group: np.ndarray | None) -> np.ndarray:
    """The clips of train that are held out for a method's own use: an eighth, by group and stratified by class.

    Args:
        label: int64 `[N]`, clips of train only.
        group: int64 `[N]` or None.

    Returns:
        bool `[N]`.

    Raises:
        MMSearchError: fewer than two clips or groups.
    """
    if group is not None:
        return _deal_groups(label, group, PIECES, seed=0, least=2) == 0
    return _deal(label, min(PIECES, len(label)), seed=0) == 0


def _pieces(label: np.ndarray, group: np.ndarray | None, seed: int) -> np.ndarray:
    if group is not None:
        return _deal_groups(label, group, PIECES, seed, least=3)
    if len(label) < 3:
        raise MMSearchError(f"splits: {len(label)} clips outside the test part; at least 3 are needed")
    return _deal(label, min(PIECES, len(label)), seed)


def _deal(label: np.ndarray, pieces: int, seed: int) -> np.ndarray:
    """Clips are shuffled within their class and dealt out in turn, so that any class size will do."""
    shuffled = np.random.RandomState(seed).permutation(len(label))
    order = shuffled[np.argsort(label[shuffled], kind="stable")]
    dealt = np.empty(len(label), np.int64)
    dealt[order] = np.arange(len(label)) % pieces
    return dealt


def _deal_groups(label: np.ndarray, group: np.ndarray, pieces: int, seed: int, least: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    groups = len(np.unique(group))
    if groups == len(label) >= least:
        return _deal(label, min(pieces, groups), seed)
    most = min(pieces, groups, int(np.bincount(label).max()))
    for count in range(most, least - 1, -1):
        folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        dealt = np.empty(len(label), np.int64)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            for piece, (_, rows) in enumerate(folds.split(label, label, group)):
                dealt[rows] = piece
        if len(np.unique(dealt)) == count:
            return dealt
    raise MMSearchError(
        f"splits: {groups} groups are too few to keep every group in one part "
        f"({least} are needed here); drop the group column or add groups"
    )
