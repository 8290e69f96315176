"""A model on raw files says what its evaluation said on the store, and a file that cannot be read stops nobody."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

import mmsearch
from mmsearch.batch import Modality, View
from mmsearch.data import ClipData, Dataset, clip_data, pipeline, prepare
from mmsearch.data.demo import DemoConfig, write_demo
from mmsearch.errors import MMSearchError
from mmsearch.trained import TrainedModel
from mmsearch.training import Predictor, evaluate, train
from mmsearch.training.bundle import save_bundle

CLIPS = 36
RECIPE = {
    "encoders": {"frames": {"name": "frames", "size": 32}},
    "optimizer": {"name": "sgd", "lr": 0.003},
    "epochs": 2,
    "batch_size": 8,
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, ClipData]:
    """Real mp4 files, some without their sound, and what the store has of them."""
    home = tmp_path_factory.mktemp("demo")
    write_demo(home, DemoConfig.of("sound_dominates", n_clips=CLIPS, n_classes=3, p_missing_sound=0.2), workers=1)
    return stored(home / "dataset.yaml", home / "store")


def stored(yaml: Path, store: Path) -> tuple[Dataset, ClipData]:
    dataset = Dataset.load(yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_ray", lambda: contextlib.nullcontext(1))
        patch.setattr(
            pipeline,
            "_run",
            lambda items, size, place, kinds: iter([pipeline.decode_shard(items, place, kinds)]),
        )
        prepared = prepare(dataset, store)
    return dataset, clip_data(dataset, store, prepared)


def trained(data: ClipData, folder: Path, **document: object) -> tuple[TrainedModel, Predictor]:
    run = train({**RECIPE, **document}, data)
    for _ in run:
        pass
    save_bundle(folder, run.predictor, data.decoding, {})
    return mmsearch.load(folder), run.predictor


def paths_of(dataset: Dataset) -> dict[str, Path]:
    return {clip.clip_id: clip.paths["frames"] for clip in dataset.clips}


def heard(dataset: Dataset, data: ClipData) -> Path:
    """A clip with sound and picture."""
    there = next(data.batches(np.arange(len(data)), len(data), {"sound": View()})).present["sound"]
    return paths_of(dataset)[data.clip_ids[int(there.nonzero()[0])]]


def assert_as_evaluated(model, predictor: Predictor, dataset: Dataset, data: ClipData, **options: object) -> None:
    """Labels and probabilities of raw files against those of the evaluation on the store."""
    evaluation = evaluate(predictor, data, "test")
    paths = paths_of(dataset)
    predictions = model.predict([paths[data.clip_ids[i]] for i in evaluation.index], **options)
    present = {u: here.numpy() for u, here in evaluation.batch.present.items()}
    seen = np.any(list(present.values()), axis=0)
    assert [p.error is None for p in predictions] == seen.tolist()
    predictions = [p for p in predictions if p.error is None]
    assert len(predictions) > 5
    expected = evaluation.probabilities[seen]
    assert [p.label for p in predictions] == [data.classes[i] for i in expected.argmax(1)]
    found = np.array([[p.probabilities[c] for c in data.classes] for p in predictions])
    assert np.ptp(expected[:, 0]) > 1e-3 and np.median(expected.max(1)) < 0.999, "clips that tell differences"
    assert np.abs(found - expected).max() < 1e-6
    for u, z in evaluation.output.unimodal.items():
        assert [u in p.unimodal for p in predictions] == present[u][seen].tolist()
        alone = np.array([[p.unimodal[u][c] for c in data.classes] for p in predictions if u in p.unimodal])
        assert np.abs(alone - z.softmax(1).numpy()[present[u]]).max() < 1e-6


@pytest.mark.parametrize(
    "document",
    [
        {"method": {"name": "ogm"}, "fusion": {"name": "gated"}},
        {"method": {"name": "unimodal", "modality": "sound"}},
        {"method": {"name": "joint"}, "fusion": {"name": "stacking"}},
    ],
    ids=["with probes", "one modality", "post-hoc"],
)
def test_predictions_on_files_are_those_of_the_evaluation_on_the_store(demo, tmp_path: Path, document: dict) -> None:
    dataset, data = demo
    model, predictor = trained(data, tmp_path / "model", **document)
    assert list(model.modalities) == list(predictor.modalities)
    assert_as_evaluated(model, predictor, dataset, data, batch_size=3)


def test_pictures_that_the_store_keeps_as_jpeg_are_seen_as_it_gives_them_back(demo, tmp_path: Path) -> None:
    dataset, _ = demo
    yaml = dataset.path.with_name("jpeg.yaml")
    text = dataset.path.read_text().replace("kind: frames\n", "kind: frames\n    codec: jpeg\n    quality: 30\n")
    yaml.write_text(text)
    dataset, data = stored(yaml, tmp_path / "store")
    assert data.decoding["frames"]["settings"]["codec"] == "jpeg"
    model, predictor = trained(data, tmp_path / "model")
    assert_as_evaluated(model, predictor, dataset, data)


@pytest.fixture(scope="module")
def model(demo, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return trained(demo[1], tmp_path_factory.mktemp("model"))[0]


def test_a_file_that_cannot_be_read_has_its_reason_and_the_others_go_on(demo, model, tmp_path: Path) -> None:
    good = list(paths_of(demo[0]).values())
    names = ("damaged.mp4", "empty.mp4", "text.mp4", "gone.mp4")
    damaged, empty, text, gone = (tmp_path / name for name in names)
    content = bytearray(good[0].read_bytes())
    content[len(content) // 8 :] = bytes(len(content) - len(content) // 8)
    damaged.write_bytes(content)
    empty.write_bytes(b"")
    text.write_text("this is no film\n" * 50)
    found = model.predict([good[0], damaged, good[1], empty, text, gone, good[2]])
    assert [p.path for p in found] == [str(p) for p in (good[0], damaged, good[1], empty, text, gone, good[2])]
    assert [p.error is None for p in found] == [True, False, True, False, False, False, True]
    alone = model.predict([good[0], good[1], good[2]])
    for p, q in zip([found[0], found[2], found[6]], alone, strict=True):
        assert p.label == q.label
        assert p.probabilities == pytest.approx(q.probabilities, abs=1e-6)
    for p in found:
        if p.error:
            assert (p.label, p.probabilities, p.unimodal) == (None, {}, {})
            assert "\n" not in p.error and "Error" not in p.error
    assert found[5].error == "cannot be read: no such file or directory"


def test_a_missing_modality_is_missing_as_in_training(demo, model) -> None:
    dataset, data = demo
    path = heard(*demo)
    whole, blind = model.predict([path, {"sound": path}])
    assert set(whole.unimodal) == {"sound", "frames"}
    assert set(blind.unimodal) == {"sound"}
    row = np.array([data.clip_ids.index(next(i for i, p in paths_of(dataset).items() if p == path))])
    batch = next(data.batches(row, 1, model.predictor.views(training=False)))
    batch.present["frames"][:] = False
    logits = model.predictor.predict(batch).logits
    assert list(blind.probabilities.values()) == pytest.approx(torch.softmax(logits, 1)[0].tolist(), abs=1e-6)


def test_a_segment_is_cut_as_the_manifest_would(demo, model) -> None:
    path = heard(*demo)
    both = {"sound": path, "frames": path}
    whole, again, part = model.predict(
        [path, mmsearch.Clip(both), mmsearch.Clip(both, start=0.3, end=0.6, name="middle")]
    )
    assert whole.probabilities == pytest.approx(again.probabilities, abs=1e-6)
    assert part.path == "middle"
    assert part.probabilities != pytest.approx(whole.probabilities, abs=1e-6)


def test_who_asks_wrongly_is_told(demo, model, tmp_path: Path) -> None:
    path = next(iter(paths_of(demo[0]).values()))
    with pytest.raises(MMSearchError, match="no modality 'sond'; did you mean 'sound'"):
        model.predict([{"sond": path}])
    with pytest.raises(MMSearchError, match="no model there"):
        mmsearch.load(tmp_path)
    assert model.predict([mmsearch.Clip({}, name="nothing")])[0].error == "it has no file for sound or frames"


def test_clips_that_were_no_files_make_a_model_that_reads_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = ClipData.from_arrays(
        {"a": rng.normal(size=(30, 4)).astype(np.float32)},
        np.arange(30) % 2,
        modalities={"a": Modality("a", "vector", (4,))},
    )
    run = train({"epochs": 1}, data)
    list(run)
    save_bundle(tmp_path, run.predictor, data.decoding, {})
    with pytest.raises(MMSearchError, match="does not say how a was decoded"):
        mmsearch.load(tmp_path).predict(["x.npy"])


def test_features_of_another_length_are_refused(tmp_path: Path) -> None:
    rows = ["clip_id,path,label"]
    for i in range(24):
        np.save(tmp_path / f"{i}.npy", np.full(4, i % 2, np.float32))
        rows.append(f"c{i},{i}.npy,{'ab'[i % 2]}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "d.yaml").write_text("name: d\nmanifest: m.csv\nmodalities:\n  pose: {kind: vector}\n")
    _, data = stored(tmp_path / "d.yaml", tmp_path / "store")
    model, _ = trained(data, tmp_path / "model", encoders={})
    np.save(tmp_path / "long.npy", np.zeros(5, np.float32))
    np.save(tmp_path / "many.npy", np.eye(4, dtype=np.float32))
    long, row, other = model.predict([tmp_path / "long.npy", f"{tmp_path}/many.npy#2", tmp_path / "0.npy"])
    assert long.error == "pose: has 5 values, the model takes 4"
    assert row.label is not None and other.label is not None
