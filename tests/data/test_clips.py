"""Batches: what they hold, and that they are pure functions of their arguments."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmsearch.batch import Modality, View
from mmsearch.data import ClipData, Dataset, clip_data, prepare
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
def stored(clip_folder, tmp_path, inline):
    """Sixteen real clips through the store, and the file that another process opens."""
    path = tmp_path / "d.yaml"
    path.write_text(
        f"name: sixteen\nmanifest: {clip_folder / 'manifest.csv'}\n"
        "modalities:\n  sound: {rate: 8000}\n  frames: {frames: 4, size: 16}\n"
    )
    dataset = Dataset.load(path)
    data = clip_data(dataset, tmp_path / "store", prepare(dataset, tmp_path / "store"))
    data.save(tmp_path / "data.json")
    return data, tmp_path / "data.json"


def flat(batches) -> list[torch.Tensor]:
    return [t for b in batches for t in (*b.inputs.values(), b.label, b.index, *b.present.values())]


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


def test_a_modality_nobody_has(clip_folder, make_clip, tmp_path, inline):
    for i in range(8):
        make_clip(tmp_path / f"{i}.mp4", level=10 * i, sound=False)
    rows = "\n".join(["clip_id,path,label", *(f"{i},{i}.mp4,{i % 2}" for i in range(8))])
    (tmp_path / "m.csv").write_text(rows)
    (tmp_path / "d.yaml").write_text("name: silent\nmanifest: m.csv\n")
    dataset = Dataset.load(tmp_path / "d.yaml")
    with pytest.raises(MMSearchError, match="no clip has the modality 'sound'"):
        clip_data(dataset, tmp_path / "store", prepare(dataset, tmp_path / "store"))
