"""What a sweep's data costs does not depend on how many trials read it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch.data import ClipData, Dataset, Store, clip_data, pipeline, prepare
from mmsearch.data.demo import DemoConfig, write_demo
from mmsearch.training import train

CLIPS = 44


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo") / "clips", DemoConfig(n_clips=CLIPS, n_classes=2))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clips of every shard that is decoded, in this process instead of a Ray task."""
    shards: list[int] = []

    def run(items: list, shard_clips: int, address: str, modalities: dict) -> Iterator[list]:
        shards.append(len(items))
        yield pipeline.decode_shard(items, address, modalities)

    monkeypatch.setattr(pipeline, "_run", run)
    monkeypatch.setattr(pipeline, "_ray", lambda: contextlib.nullcontext(1))
    return shards


@pytest.mark.parametrize("trials", [1, 4, 16])
def test_so_many_trials_decode_the_clips_once(demo: Path, decoded: list[int], tmp_path: Path, trials: int) -> None:
    store = tmp_path / "store"
    for seed in range(trials):
        dataset = Dataset.load(demo)
        clip_data(dataset, store, prepare(dataset, store)).save(tmp_path / f"{seed}.json")
        data = ClipData.open(tmp_path / f"{seed}.json")
        document = {"epochs": 1, "encoders": {"frames": {"name": "frames", "size": 32}}, "seed": seed}
        [result] = train(document, data, device="cpu")
        assert 0 <= result.score <= 1
    assert sum(decoded) == CLIPS
    assert Store.open(store).decodes == CLIPS
