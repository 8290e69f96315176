"""Shapes, shares of a GPU and what they are measured with, on an allocator that only counts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.cli import main
from mmsearch.data.clips import ClipData
from mmsearch.errors import MMSearchError
from mmsearch.search import runner
from mmsearch.search.cluster import Resources
from mmsearch.search.losses import LIMITS, is_bug, kind_of
from mmsearch.search.shares import CONTEXT, SHARES, cap, probe, shares_of
from mmsearch.training import Evaluation

GIB = 2**30


@dataclasses.dataclass
class Counted:
    """An allocator that notes what it was told and has so many bytes at each peak."""

    peaks: list[int] = dataclasses.field(default_factory=list)
    fraction: float | None = None
    calls: Counter[str] = dataclasses.field(default_factory=Counter)

    def empty_cache(self) -> None:
        self.calls["empty"] += 1

    def reset_peak_memory_stats(self) -> None:
        self.calls["reset"] += 1

    def max_memory_reserved(self) -> int:
        if not self.peaks:
            raise torch.OutOfMemoryError("planted")
        return self.peaks.pop(0)

    def mem_get_info(self) -> tuple[int, int]:
        return 30 * GIB, 40 * GIB

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        self.fraction = fraction


def test_a_sweep_has_at_most_three_shapes() -> None:
    with pytest.raises(MMSearchError, match=r"0.125, 0.25, 0.5, 1 are 4 shapes; a sweep has at most 3"):
        Resources(gpus=1.0, by_method={"ogm": 0.5, "mla": 0.25, "umt": 0.125})
    resources = Resources(2.0, 1.0, by_method={"ogm": 0.5, "mla": 0.25})
    assert [resources.bundle(m)["GPU"] for m in ("joint", "ogm", "mla")] == [1.0, 0.5, 0.25]
    assert resources.bundle("ogm") == {"CPU": 2.0, "GPU": 0.5}


def test_trials_are_begun_while_the_smallest_shape_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}]
    monkeypatch.setattr(Resources, "_alive", lambda self: nodes)
    resources = Resources(1.0, 1.0, by_method={"ogm": 0.5})
    assert resources.slots() == 4
    assert resources.room(["joint"]) and resources.room(["joint", "ogm"])
    assert not resources.room(["joint", "joint"]) and not resources.room(["joint", "ogm", "ogm"])
    assert Resources(4.0).slots() == 4 and Resources(3.0).slots() == 4 and Resources(100.0).slots() == 1
    thirds = Resources(1.0, 1 / 3)
    assert thirds.slots() == 6


def test_the_smallest_share_that_holds_a_method() -> None:
    total = 40 * GIB
    shares = shares_of({"joint": 3 * GIB, "ogm": 7 * GIB, "umt": 15 * GIB, "mla": None}, total)
    assert shares == {"joint": 0.25, "ogm": 0.25, "umt": 0.5, "mla": 1.0}, "at most three, so the smallest gets more"
    assert shares_of({"joint": 3 * GIB, "ogm": 4 * GIB}, total) == {"joint": 0.125, "ogm": 0.25}
    assert all(share in SHARES for share in shares.values())


def test_the_cap_leaves_room_for_what_cuda_takes_itself() -> None:
    allocator = Counted()
    cap(1.0, allocator)
    assert allocator.fraction is None
    cap(0.25, allocator)
    assert allocator.fraction == 0.25 - CONTEXT / (40 * GIB)


def test_a_probe_trains_two_steps_of_every_method(driver, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = {u: rng.normal(size=(120, *m.shape)).astype("float32") for u, m in driver.MODALITIES.items()}
    data = ClipData.from_arrays(inputs, np.arange(120) % 3, modalities=driver.MODALITIES)
    space = dataclasses.replace(driver.make_space(tmp_path), data=data.digest)
    allocator = Counted(peaks=[3 * GIB, 5 * GIB, 2 * GIB])
    peaks, total = probe(space, data, "cpu", allocator)
    assert list(peaks) == list(space.methods) and total == 40 * GIB
    assert list(peaks.values()) == [3 * GIB, 5 * GIB, 2 * GIB, None][: len(peaks)], "what does not fit is None"
    assert allocator.calls == {"empty": len(peaks), "reset": len(peaks)}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The actor died unexpectedly.\nThe actor is dead because its worker process has died.", "worker"),
        ("The actor died because its node has died. Node Id: 91c2", "node"),
        ("The actor 59655a is unavailable: RpcError: RPC error: Socket closed rpc_code: 14.", "node"),
        ("The actor is not schedulable: the node is dead", "node"),
        ("Task was killed due to the node running low on memory.", "memory"),
    ],
)  # fmt: skip
def test_what_ray_says_of_a_loss(text: str, kind: str) -> None:
    assert kind_of(text, None) == kind and kind in LIMITS
    assert not is_bug(text)


def test_a_lost_machine_never_uses_up_a_trial_s_retries() -> None:
    assert LIMITS["node"] == float("inf") and all(LIMITS[k] < 10 for k in ("worker", "memory", "hang"))
    assert is_bug("The actor died because of an error raised in its creation task, ray::Trial.__init__()")


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--keep", "-1", "-1 is less than 0"),
        ("--hang-after", "0m", "0m is not above 0"),
        ("--gpus-per-trial", "some", "'some' is not a number"),
    ],
)
def test_a_wrong_flag_ends_in_one_line(flag: str, value: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sweep", flag, value])
    assert ended.value.code == 2 and f"argument {flag}: {said}" in capsys.readouterr().err


def test_a_model_too_large_for_many_clips_reads_the_test_part_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def evaluated(weights: Path, data: None, part: str, batch_size: int) -> Evaluation:
        tried.append(batch_size)
        if batch_size > 8:
            raise torch.OutOfMemoryError("planted")
        none = np.zeros(0)
        return Evaluation(0.5, 0.25, {"sound": 0.75}, 0.1, none, none, none, None, None)

    monkeypatch.setattr(runner, "clips", lambda path: None)
    monkeypatch.setattr(runner, "evaluate", evaluated)
    assert runner._read_test("run", "a") == {"accuracy": 0.5, "macro_f1": 0.25, "unimodal": {"sound": 0.75}}
    assert tried == [128, 32, 8]
