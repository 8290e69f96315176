"""Batches: what they hold, and that they are pure functions of their arguments."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.batch import Modality, View
from mmsearch.data import ClipData, Dataset, clip_data, clips, prepare
from mmsearch.data.clips import WINDOW_SHARDS
from mmsearch.data.prefetch import prefetch
from mmsearch.data.quality import LabelNoise, Quality, SoundDials
from mmsearch.data.store import Store
from mmsearch.errors import MMSearchError

MODALITIES = {
    "sound": Modality("sound", "sound", (100,), 10.0),
    "frames": Modality("frames", "frames", (6, 4, 4, 3)),
    "vector": Modality("vector", "vector", (3,)),
}
ALL = {"sound": View(random=True, seconds=4), "frames": View(frames=3, random=True), "vector": View()}


@pytest.fixture
def data() -> ClipData:
    rng = np.random.default_rng(0)
    n = 33
    frames = np.broadcast_to(np.arange(6, dtype=np.uint8)[None, :, None, None, None], (n, 6, 4, 4, 3)).copy()
    frames += (10 * (np.arange(n) % 20)).astype(np.uint8)[:, None, None, None, None]
    inputs = {
        "sound": [np.arange(1, length + 1, dtype=np.int16) * 64 for length in rng.integers(20, 101, n)],
        "frames": frames,
        "vector": rng.normal(size=(n, 3)).astype(np.float32),
    }
    present = {"vector": np.arange(n) % 3 > 0}
    return ClipData.from_arrays(inputs, np.arange(n) % 3, modalities=MODALITIES, present=present)


@pytest.fixture
def sixteen(clip_folder, tmp_path, inline):
    """Sixteen real clips in the store, one a shard."""
    path = tmp_path / "d.yaml"
    path.write_text(
        f"name: sixteen\nmanifest: {clip_folder / 'manifest.csv'}\n"
        "modalities:\n  sound: {rate: 8000}\n  frames: {frames: 4, size: 16}\n"
    )
    dataset = Dataset.load(path)
    return dataset, prepare(dataset, tmp_path / "store", shard_clips=1)


@pytest.fixture
def stored(sixteen, tmp_path):
    """The clips for training, and the file that another process opens."""
    dataset, prepared = sixteen
    data = clip_data(dataset, tmp_path / "store", prepared)
    data.save(tmp_path / "data.json")
    return data, tmp_path / "data.json"


def flat(batches) -> list[torch.Tensor]:
    return [t for b in batches for t in (*b.inputs.values(), b.label, b.index, *b.present.values(), *b.draws.values())]


def same(a, b) -> bool:
    a, b = flat(a), flat(b)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_shapes_types_and_only_what_is_asked(data):
    [batch] = data.batches(np.arange(5), 8, ALL)
    assert batch.inputs["sound"].shape == (5, 40) and batch.inputs["sound"].dtype == torch.float32
    assert batch.inputs["frames"].shape == (5, 3, 3, 4, 4) and batch.inputs["frames"].dtype == torch.uint8
    assert batch.inputs["vector"].shape == (5, 3)
    assert batch.label.tolist() == [0, 1, 2, 0, 1] and batch.index.tolist() == [0, 1, 2, 3, 4]
    [batch] = data.batches(np.arange(5), 8, {"vector": View()})
    assert set(batch.inputs) == set(batch.present) == {"vector"}
    with pytest.raises(MMSearchError, match="unknown modality 'sond'; did you mean 'sound'"):
        next(data.batches(np.arange(5), 8, {"sond": View()}))


def test_missing_is_zeros_and_not_present(data):
    [batch] = data.batches(np.arange(6), 8, {"vector": View(), "sound": View()})
    assert batch.present["vector"].tolist() == [False, True, True, False, True, True]
    assert batch.present["sound"].all()
    assert batch.inputs["vector"][0].abs().sum() == 0 and batch.inputs["vector"][1].abs().sum() > 0


def test_sound_is_scaled_padded_and_cropped(data):
    [whole] = data.batches(np.arange(33), 64, {"sound": View()})
    sound = whole.inputs["sound"]
    assert sound.shape == (33, 100) and sound[0, 0] == 64 / 32768
    length = len(data._sources["sound"].read(0))
    assert sound[0, length - 1] > 0 and (sound[0, length:] == 0).all()
    [middle] = data.batches(np.array([0]), 1, {"sound": View(seconds=1)})
    assert middle.inputs["sound"][0, 0] == sound[0, (length - 10) // 2]
    [long] = data.batches(np.array([0]), 1, {"sound": View(seconds=20)})
    assert long.inputs["sound"].shape == (1, 200)


def test_frames_of_equal_segments(data):
    def picked(frames, **kwargs):
        [batch] = data.batches(np.array([0]), 1, {"frames": View(frames=frames, **kwargs)})
        return batch.inputs["frames"][0, :, 0, 0, 0].tolist()

    assert picked(None) == picked(6) == [0, 1, 2, 3, 4, 5]
    assert picked(3) == [1, 3, 5] and picked(1) == [3]
    assert picked(12) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    views = {"frames": View(frames=3, random=True)}
    drawn = [
        b.inputs["frames"][:, :, 0, 0, 0] % 10
        for e in range(40)
        for b in data.batches(np.array([0]), 1, views, seed=0, epoch=e)
    ]
    drawn = torch.cat(drawn).float()
    assert ((drawn // 2) == torch.arange(3)).all(), "one frame of each segment"
    assert ((drawn % 2).mean(0) - 0.5).abs().max() < 0.3


def test_pure_functions_of_seed_and_epoch(data):
    rows = data.part("train")
    first = list(data.batches(rows, 4, ALL, seed=1, epoch=3))
    list(data.batches(rows, 5, ALL, seed=1, epoch=4))
    assert same(first, data.batches(rows, 4, ALL, seed=1, epoch=3))
    assert not same(first, data.batches(rows, 4, ALL, seed=1, epoch=4))
    assert not same(first, data.batches(rows, 4, ALL, seed=2, epoch=3))
    assert sorted(i for b in first for i in b.index.tolist()) == rows.tolist()
    by_row = {int(b.index[i]): b.inputs["frames"][i] for b in first for i in range(len(b))}
    for batch in data.batches(rows, 7, ALL, seed=1, epoch=3):
        for i, row in enumerate(batch.index.tolist()):
            assert torch.equal(by_row[row], batch.inputs["frames"][i]), (
                "the view of a clip does not depend on its batch"
            )


def test_order_and_last_batches(data):
    sizes = [len(b) for b in data.batches(np.arange(9), 4, {"vector": View()})]
    assert sizes == [4, 4, 1], "in order, the last one kept"
    assert [len(b) for b in data.batches(np.arange(9), 4, {"vector": View()}, seed=0)] == [4, 5]
    assert [len(b) for b in data.batches(np.arange(10), 4, {"vector": View()}, seed=0)] == [4, 4, 2]
    assert [len(b) for b in data.batches(np.arange(1), 4, {"vector": View()}, seed=0)] == [1]
    assert list(data.batches(np.arange(0), 4, {"vector": View()}, seed=0)) == []
    firsts = {int(next(data.batches(np.arange(33), 1, {}, seed=s)).index[0]) for s in range(60)}
    assert len(firsts) > 15, "shuffled"


KINDS = {
    "sound": Modality("sound", "sound", (60,), 10.0),
    "frames": Modality("frames", "frames", (6, 2, 2, 3)),
    "image": Modality("image", "image", (1, 2, 2, 3)),
    "flow": Modality("flow", "flow", (6, 4, 3, 2)),
    "text": Modality("text", "text", (12,)),
    "series": Modality("series", "series", (9, 2)),
    "vector": Modality("vector", "vector", (3,)),
}
AUGMENTED = {
    "sound": View(random=True, seconds=3, draws=2),
    "frames": View(frames=3, random=True, draws=5),
    "image": View(draws=3),
    "flow": View(frames=2, random=True),
    "text": View(length=4),
    "series": View(length=5, random=True),
    "vector": View(),
}


@pytest.fixture(scope="module")
def every() -> ClipData:
    """Clips with every kind of modality."""
    rng = np.random.default_rng(1)
    n = 31
    inputs = {
        "sound": [np.arange(k, dtype=np.int16) for k in rng.integers(20, 61, n)],
        "frames": rng.integers(0, 256, (n, 6, 2, 2, 3), np.uint8),
        "image": rng.integers(0, 256, (n, 1, 2, 2, 3), np.uint8),
        "flow": np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (n, 6, 4, 3, 2)).copy(),
        "text": [" ".join(["a", "clip"][: i % 3]) for i in range(n)],
        "series": [np.arange(2 * t, dtype=np.float32).reshape(t, 2) + 1 for t in 1 + np.arange(n) % 9],
        "vector": rng.normal(size=(n, 3)).astype(np.float32),
    }
    present = {u: rng.random(n) > 0.1 for u in inputs}
    return ClipData.from_arrays(inputs, np.arange(n) % 3, modalities=KINDS, present=present)


def test_every_kind_has_the_shape_and_type_that_a_batch_promises(every):
    [batch] = every.batches(np.arange(7), 8, {u: View() for u in KINDS})
    assert {u: (x.dtype, tuple(x.shape[1:])) for u, x in batch.inputs.items()} == {
        "sound": (torch.float32, (60,)),
        "frames": (torch.uint8, (6, 3, 2, 2)),
        "image": (torch.uint8, (1, 3, 2, 2)),
        "flow": (torch.uint8, (6, 2, 4, 3)),
        "text": (torch.int64, (12,)),
        "series": (torch.float32, (9, 2)),
        "vector": (torch.float32, (3,)),
    }
    for u, x in batch.inputs.items():
        assert not x[~batch.present[u]].any(), "what is missing is zeros"
    assert batch.draws == {}


def test_series_are_cropped_and_padded(every):
    def steps(row, seed=None, epoch=0, **view):
        [batch] = every.batches(np.array([row]), 1, {"series": View(**view)}, seed=seed, epoch=epoch)
        return (batch.inputs["series"][0, :, 0] - 1).div(2).tolist()

    long = next(i for i in range(8, 31, 9) if every._sources["series"].present[i])
    assert steps(long) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert steps(long, length=5) == [2, 3, 4, 5, 6], "the middle"
    starts = {steps(long, 0, e, length=5, random=True)[0] for e in range(60)}
    assert starts == {0, 1, 2, 3, 4}, "every place"
    short = next(i for i in range(2, 31, 9) if every._sources["series"].present[i])
    assert steps(short, length=4) == [0, 1, 2, -0.5]


def test_texts_become_tokens(every):
    row = next(i for i in range(2, 31, 3) if every._sources["text"].present[i])
    [batch] = every.batches(np.array([row]), 1, {"text": View(length=4)})
    assert (batch.inputs["text"][0] > 0).tolist() == [True, True, False, False]
    [batch] = every.batches(np.array([row]), 1, {"text": View(tokenizer="bytes")})
    assert batch.inputs["text"][0].tolist() == [c + 1 for c in b"a clip"] + [0] * 6


def test_draws_are_for_training_and_for_each_clip_alone(every):
    def by_clip(size, **kwargs):
        batches = list(every.batches(np.arange(31), size, AUGMENTED, seed=2, **kwargs))
        return {int(r): {u: d[i] for u, d in b.draws.items()} for b in batches for i, r in enumerate(b.index)}

    one, other, later = by_clip(4), by_clip(7), by_clip(4, epoch=1)
    assert {u: tuple(d.shape) for u, d in one[0].items()} == {"sound": (2,), "frames": (5,), "image": (3,)}
    values = torch.stack([torch.cat(list(d.values())) for d in one.values()])
    assert values.dtype == torch.float32 and len(values.unique()) == values.numel(), "clips and modalities differ"
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.1
    for row in range(31):
        for u, drawn in one[row].items():
            assert torch.equal(drawn, other[row][u]), "not of the batch"
            assert not torch.equal(drawn, later[row][u])
    [alone] = every.batches(np.arange(31), 31, {"image": AUGMENTED["image"]}, seed=2)
    assert torch.equal(alone.draws["image"][alone.index == 5][0], one[5]["image"]), "nor of the other modalities"
    assert all(b.draws == {} for b in every.batches(np.arange(31), 4, AUGMENTED))


def test_a_clip_that_comes_again_comes_with_other_random_numbers(every):
    rows = np.concatenate([np.arange(31), np.full(6, 8), np.arange(10)])
    once, again = [], []
    for batch in every.batches(rows, 5, AUGMENTED, seed=0):
        again += [batch.draws["frames"][batch.index == 8], batch.draws["sound"][batch.index == 3]]
    frames = torch.cat([d for d in again if d.shape[1] == 5])
    assert len(frames) == 8 and len(frames.unique()) == 40
    assert len(torch.cat([d for d in again if d.shape[1] == 2]).unique()) == 4
    for batch in every.batches(np.arange(31), 5, AUGMENTED, seed=0):
        once += [batch.draws["frames"][batch.index == 8]]
    assert (torch.cat(once) == frames[:, None]).all(-1).any(), "the first time as if it came once"
    series = {"series": View(length=2, random=True)}
    [batch] = every.batches(np.full(60, 8), 60, series, seed=0)
    assert len(batch.inputs["series"][:, 0, 0].unique()) in (1, 8), "every place of its crop, where it is there"


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_the_processes_share_inputs_and_draws(every, size):
    rows = np.arange(31)
    whole = list(every.batches(rows, 9, AUGMENTED, seed=4, epoch=2))
    parts = [list(every.batches(rows, 9, AUGMENTED, seed=4, epoch=2, shard=(r, size))) for r in range(size)]
    for i, batch in enumerate(whole):
        for kind in ("inputs", "draws"):
            for u, x in getattr(batch, kind).items():
                shares = [getattr(p[i], kind)[u] for p in parts]
                assert all(torch.equal(s, x[:1]) for s in shares[len(batch) :]), "the first clip where nothing is left"
                assert torch.equal(torch.cat(shares[: len(batch)]), x)
        assert all(torch.equal(p[i].index, batch.index) for p in parts)


class Counted:
    """A source that remembers what was read."""

    def __init__(self, source):
        self.present, self._source, self.seen = source.present, source, []

    def read(self, i):
        self.seen.append(int(i))
        return self._source.read(i)

    def take(self, i, picks):
        self.seen.append(int(i))
        return self._source.take(i, picks)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(0, 30), max_size=40),
    size=st.integers(1, 9),
    seed=st.none() | st.integers(0, 5),
    epoch=st.integers(0, 4),
    only=st.booleans(),
    shards=st.booleans(),
    rank=st.sampled_from([(0, 1), (1, 2)]),
    where=st.floats(0, 1.2),
)
def test_going_on_in_the_middle_of_an_epoch_gives_exactly_what_is_left(
    every, rows, size, seed, epoch, only, shards, rank, where
):
    data = copy.copy(every)
    data._sources = {u: Counted(s) for u, s in every._sources.items()}
    data._shard_of = np.arange(31) // 3 if shards else None
    rows = np.array(rows, np.int64)
    options = {"seed": seed, "epoch": epoch, "shard": rank, "only": rows % 3 - 1 if only else None}
    whole = list(data.batches(rows, size, AUGMENTED, **options))
    skip = int(where * len(whole))
    for source in data._sources.values():
        source.seen.clear()
    rest = list(data.batches(rows, size, AUGMENTED, **options, skip=skip))
    assert same(whole[skip:], rest)
    left = {int(r) for b in rest for r in b.index}
    assert all(set(s.seen) <= left for s in data._sources.values()), "nothing of what is skipped is read"


def test_shuffled_by_shards_an_epoch_goes_from_window_to_window(every):
    rows = np.arange(30)
    shard_of = np.array([0] * 2 + [1] * 4 + [2] * 3 + [3] * 2 + [4] * 5 + [5] * 4 + [6] * 3 + [7] * 2 + [8] * 6)
    data = copy.copy(every)
    data._shard_of = shard_of

    def order(epoch, seed=0):
        return torch.cat([b.index for b in data.batches(rows, 4, {}, seed=seed, epoch=epoch)]).numpy()

    for epoch in range(6):
        index = order(epoch)
        assert sorted(index) == rows.tolist() and np.array_equal(index, order(epoch))
        shards = shard_of[index]
        seen = list(dict.fromkeys(shards.tolist()))
        changes = int((np.diff(shards) != 0).sum())
        assert changes > len(seen), "shuffled within a window"
        last = {s: np.flatnonzero(shards == s)[-1] for s in seen}
        first = {s: np.flatnonzero(shards == s)[0] for s in seen}
        for place in range(0, len(index)):
            live = sum(first[s] <= place <= last[s] for s in seen)
            assert live <= WINDOW_SHARDS, "no more shards are needed at a time"
    assert len({tuple(order(e)) for e in range(6)} | {tuple(order(0, 1))}) == 7


def test_for_a_gpu_the_same_batches_are_read_ahead(every, monkeypatch):
    asked = []
    monkeypatch.setattr(clips, "prefetch", lambda batches, device: asked.append(device) or prefetch(batches))
    options = {"seed": 1, "epoch": 2, "skip": 3}
    ahead = every.batches(np.arange(31), 4, AUGMENTED, **options, device=torch.device("cuda"))
    assert same(every.batches(np.arange(31), 4, AUGMENTED, **options, device=torch.device("cpu")), ahead)
    assert asked == [torch.device("cuda")]


def test_a_source_that_lies_elsewhere_is_warmed(every):
    data = copy.copy(every)
    warmed = []
    data._sources = dict(every._sources) | {"vector": SimpleNamespace(warm=lambda: warmed.append(1))}
    data.warm()
    assert warmed == [1]


def test_digest_is_of_content_labels_and_split(data):
    def digest(label, add=0.0, **kwargs):
        vectors = np.arange(20, dtype=np.float32)[:, None] + add
        modalities = {"v": Modality("v", "vector", (1,))}
        return ClipData.from_arrays({"v": vectors}, label, modalities=modalities, **kwargs).digest

    label = np.arange(20) % 2
    split = ["test", "test", *["train"] * 18]
    digests = [
        digest(label),
        digest(1 - label),
        digest(label, 1.0),
        digest(label, split=split),
        digest(label, classes=["x", "y"]),
    ]
    assert len(set(digests)) == 5 and digest(label) == digests[0] and len(digests[0]) == 12


def test_without_a_fold_all_of_development_is_train(data):
    development = np.flatnonzero(~data.test)
    assert np.array_equal(data.part("train", None), development)
    assert np.array_equal(np.sort(np.concatenate([data.part("fit", None), data.part("held", None)])), development)
    assert np.array_equal(data.part("val", None), data.part("val", 0))
    assert np.array_equal(data.part("test", None), data.part("test", 0))


def test_arrays_are_checked_and_not_saved(data, tmp_path):
    with pytest.raises(MMSearchError, match="cannot be saved"):
        data.save(tmp_path / "data.json")
    with pytest.raises(MMSearchError, match="has 2 clips, but there are 4 labels"):
        ClipData.from_arrays({"vector": np.zeros((2, 3))}, [0, 1, 0, 1], modalities=MODALITIES)
    with pytest.raises(MMSearchError, match="'vectr' has no modality; did you mean 'vector'"):
        ClipData.from_arrays({"vectr": np.zeros((4, 3))}, [0, 1, 0, 1], modalities=MODALITIES)


def test_stored_clips_are_the_clips(stored):
    data, _ = stored
    assert data.modalities["frames"].shape == (4, 16, 16, 3)
    assert data.modalities["sound"].rate == 8000 and 7800 < data.modalities["sound"].shape[0] < 8600
    assert data.classes == ["a", "b"] and data.label.tolist() == [0, 1] * 8
    [batch] = data.batches(np.arange(16), 16, {"sound": View(), "frames": View(frames=1)})
    levels = batch.inputs["frames"].float().mean(dim=(1, 2, 3, 4))
    assert (levels - torch.tensor([20 + 8 * i + 4 * 5 for i in range(16)])).abs().max() < 4
    spectrum = torch.fft.rfft(batch.inputs["sound"]).abs().argmax(1) * 8000 / batch.inputs["sound"].shape[1]
    assert (spectrum - torch.tensor([300 + 40 * i for i in range(16)])).abs().max() < 2


READ = """
import json, sys
from mmsearch.batch import View
from mmsearch.data import ClipData
data = ClipData.open(sys.argv[1])
views = {"sound": View(seconds=0.5, random=True), "frames": View(frames=1, random=True)}
batches = list(data.batches(data.part("train"), 4, views, seed=5, epoch=6))
print(json.dumps([data.digest, [float(t.double().sum()) for b in batches for t in b.inputs.values()],
                  [b.index.tolist() for b in batches], "ray" in sys.modules]))
"""


def test_another_process_reads_the_same_without_ray(stored):
    data, path = stored
    views = {"sound": View(seconds=0.5, random=True), "frames": View(frames=1, random=True)}
    batches = list(data.batches(data.part("train"), 4, views, seed=5, epoch=6))
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    digest, sums, index, ray = json.loads(done.stdout)
    assert digest == data.digest and not ray
    assert index == [b.index.tolist() for b in batches]
    assert sums == [float(t.double().sum()) for b in batches for t in b.inputs.values()]


def test_how_clips_were_decoded_is_kept(stored, tmp_path):
    data, *_ = stored
    data.save(tmp_path / "data.json")
    assert ClipData.open(tmp_path / "data.json").decoding == data.decoding
    assert data.decoding["sound"]["column"] == "path"
    assert data.decoding["sound"]["settings"]["rate"] == data.modalities["sound"].rate


def test_open_refuses_what_it_cannot_read(stored, tmp_path):
    _, path = stored
    document = json.loads(path.read_text())
    for change, said in (
        ({"format": 99}, "format 99"),
        ({"key": ["0" * 32] * 16}, "16 of 16 clips are not in this store"),
        ({"store": str(tmp_path / "gone")}, "not in this store"),
        ({"label": "x"}, "not a readable list of clips"),
    ):
        (tmp_path / "changed.json").write_text(json.dumps(document | change))
        with pytest.raises(MMSearchError, match=said):
            ClipData.open(tmp_path / "changed.json")
    with pytest.raises(MMSearchError, match="not a readable list"):
        ClipData.open(tmp_path / "none.json")


def test_a_store_beside_the_list_may_move_with_it(stored, tmp_path):
    data, path = stored
    assert json.loads(path.read_text())["store"] == "store"
    (tmp_path / "moved").mkdir()
    (tmp_path / "store").rename(tmp_path / "moved" / "store")
    moved = ClipData.open(path.rename(tmp_path / "moved" / "data.json"))
    views = {"sound": View(), "frames": View()}
    [batch] = moved.batches(np.arange(16), 16, views)
    assert batch.inputs["frames"].any() and moved.digest == data.digest
    (tmp_path / "run").mkdir()
    moved.save(tmp_path / "run" / "data.json")
    elsewhere = tmp_path / "run" / "data.json"
    assert json.loads(elsewhere.read_text())["store"] == str(tmp_path / "moved" / "store")
    assert same([batch], ClipData.open(elsewhere).batches(np.arange(16), 16, views))


def test_a_store_elsewhere_is_kept_as_it_was_written(stored, tmp_path, monkeypatch):
    _, path = stored
    opened = []
    path.write_text(json.dumps(json.loads(path.read_text()) | {"store": "s3://bucket/clips"}))
    here = SimpleNamespace(open=lambda place: opened.append(place) or Store.open(tmp_path / "store"))
    monkeypatch.setattr(clips, "Store", here)
    there = ClipData.open(path)
    there.save(tmp_path / "again.json")
    assert opened == ["s3://bucket/clips"] and json.loads((tmp_path / "again.json").read_text())["store"] == opened[0]


def test_a_list_of_the_first_format_is_read(stored, tmp_path):
    data, path = stored
    old = json.loads(path.read_text()) | {"format": 1, "store": str(tmp_path / "store")}
    (tmp_path / "old.json").write_text(json.dumps({k: v for k, v in old.items() if k not in ("shard", "quality")}))
    opened = ClipData.open(tmp_path / "old.json")
    assert opened.digest == data.digest and opened.order == "clips"
    views = {"sound": View(), "frames": View()}
    assert same(data.batches(np.arange(16), 16, views), opened.batches(np.arange(16), 16, views))


def test_the_order_of_an_epoch_is_part_of_the_identity(stored, tmp_path, sixteen):
    data, _ = stored
    dataset, prepared = sixteen
    again = clip_data(dataset, tmp_path / "store", prepared)
    by_shards = clip_data(dataset, tmp_path / "store", prepared, order="shards")
    assert again.digest == data.digest != by_shards.digest
    by_shards.save(tmp_path / "shards.json")
    opened = ClipData.open(tmp_path / "shards.json")
    assert opened.order == "shards" and opened.digest == by_shards.digest
    views = {"sound": View()}
    assert same(by_shards.batches(np.arange(16), 3, views, seed=1), opened.batches(np.arange(16), 3, views, seed=1))
    assert len(np.unique(opened._shard_of)) == 16
    with pytest.raises(MMSearchError, match="unknown order 'shard'; did you mean 'shards'"):
        clip_data(dataset, tmp_path / "store", prepared, order="shard")


def test_quality_dials_are_kept_and_every_process_sees_the_same_clips(sixteen, tmp_path):
    clean, prepared = sixteen
    dials = Quality(
        fraction=0.6, labels=LabelNoise(noise=0.4), modalities={"sound": SoundDials(snr_db=0.0, spread=6.0)}
    )
    dataset = dataclasses.replace(clean, quality=dials)
    data = clip_data(dataset, tmp_path / "store", prepared)
    whole = clip_data(clean, tmp_path / "store", prepared)
    assert data.digest != whole.digest and whole.truth == {}
    n = len(data)
    assert data.test.sum() == whole.test.sum() and n < 16
    assert all(len(x) == n for x in (data.clip_ids, data.label, data.test, *data.truth.values()))
    assert (data.label != data.truth["label"]).any() and (data.label == data.truth["label"])[data.test].all()
    data.save(tmp_path / "worse.json")
    views = {"sound": View(), "frames": View()}
    for again in (ClipData.open(tmp_path / "worse.json"), clip_data(dataset, tmp_path / "store", prepared)):
        assert again.digest == data.digest and again.clip_ids == data.clip_ids
        assert np.array_equal(again.truth["sound/snr_db"], data.truth["sound/snr_db"])
        assert same(data.batches(np.arange(n), n, views), again.batches(np.arange(n), n, views))
    rows = np.array([whole.clip_ids.index(c) for c in data.clip_ids])
    [worse], [good] = data.batches(np.arange(n), n, views), whole.batches(rows, n, views)
    assert torch.equal(worse.inputs["frames"], good.inputs["frames"])
    assert not torch.equal(worse.inputs["sound"], good.inputs["sound"])
    by_shards = clip_data(dataset, tmp_path / "store", prepared, order="shards")
    assert len(by_shards._shard_of) == n and len(list(by_shards.batches(np.arange(n), 4, views, seed=0))) > 1
    document = json.loads((tmp_path / "worse.json").read_text())
    document["quality"]["version"] += 1
    (tmp_path / "worse.json").write_text(json.dumps(document))
    with pytest.raises(MMSearchError, match=r"worse\.json: this version of mmsearch makes other clips"):
        ClipData.open(tmp_path / "worse.json")


def test_a_modality_nobody_has(clip_folder, make_clip, tmp_path, inline):
    for i in range(8):
        make_clip(tmp_path / f"{i}.mp4", level=10 * i, sound=False)
    rows = "\n".join(["clip_id,path,label", *(f"{i},{i}.mp4,{i % 2}" for i in range(8))])
    (tmp_path / "m.csv").write_text(rows)
    (tmp_path / "d.yaml").write_text("name: silent\nmanifest: m.csv\n")
    dataset = Dataset.load(tmp_path / "d.yaml")
    with pytest.raises(MMSearchError, match="no clip has the modality 'sound'"):
        clip_data(dataset, tmp_path / "store", prepare(dataset, tmp_path / "store"))
