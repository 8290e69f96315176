"""What holds of every encoder: shapes, gradients, documents, and that it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmsearch.batch import KINDS, Batch, Modality
from mmsearch.data.clips import ClipData
from mmsearch.encoders import ENCODERS, Encoder
from mmsearch.testing import difference, weights
from mmsearch.training import Training, evaluate, train

CLIPS = 60
WORDS = ("red", "green", "blue")
LABEL = np.arange(CLIPS) % 3
NAMES = [n for n in ENCODERS.names() if ENCODERS.get(n).__module__.startswith("mmsearch.")]
AUGMENTATION = {"crop": 0.5, "flip": True, "shift": 0.1, "time_mask": 0.2, "freq_mask": 0.2}
every_encoder = pytest.mark.parametrize("name", NAMES)


def clips_of(kind: str) -> tuple[Modality, list[np.ndarray]]:
    """Stored clips of three classes that differ, and their modality."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 17, CLIPS)
    if kind == "sound":
        tone = 8000 * np.sin(np.arange(8000) * (0.2 + 0.3 * LABEL[:, None]))
        waves = (tone + rng.normal(size=(CLIPS, 8000)) * 500).astype(np.int16)
        return Modality("x", kind, (8000,), 8000.0), [w[: 500 * n] for w, n in zip(waves, lengths, strict=True)]
    if kind == "text":
        texts = [" ".join([WORDS[y]] * (n // 4)).encode() for y, n in zip(LABEL, lengths, strict=True)]
        return Modality("x", kind, (24,)), [np.frombuffer(t, np.uint8) for t in texts]
    if kind == "series":
        steps = (rng.normal(size=(CLIPS, 16, 40)) + LABEL[:, None, None]).astype(np.float32)
        return Modality("x", kind, (16, 40)), [s[:n] for s, n in zip(steps, lengths, strict=True)]
    if kind == "vector":
        return Modality("x", kind, (6,)), list((rng.normal(size=(CLIPS, 6)) + LABEL[:, None]).astype(np.float32))
    shape = {"frames": (5, 32, 32, 3), "image": (1, 32, 32, 3), "flow": (5, 32, 32, 2)}[kind]
    pictures = rng.normal(size=(CLIPS, *shape)) * 20 + 60 + 60 * LABEL[:, None, None, None, None]
    return Modality("x", kind, shape), list(pictures.clip(0, 255).astype(np.uint8))


def data_of(kind: str) -> ClipData:
    """The clips ready for batches, beside a vector; every fifth lacks the modality."""
    modality, arrays = clips_of(kind)
    vector, vectors = clips_of("vector")
    return ClipData.from_arrays(
        {"x": arrays, "v": vectors},
        LABEL,
        modalities={"x": modality, "v": Modality("v", "vector", vector.shape)},
        present={"x": np.arange(CLIPS) % 5 > 0},
    )


@pytest.fixture
def encoder(name: str, request: pytest.FixtureRequest) -> Encoder:
    folder = {"folder": str(request.getfixturevalue("language_model"))} if name == "hf_text" else {}
    return ENCODERS.create({"name": name, **folder})


def batch_of(data: ClipData, encoder: Encoder, training: bool = False, clips: int = 8) -> Batch:
    return next(data.batches(np.arange(clips), clips, {"x": encoder.view(training)}, seed=0 if training else None))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_one_encoder_unless_told_otherwise(kind: str) -> None:
    assert len([n for n in NAMES if ENCODERS.get(n).kind == kind and ENCODERS.get(n).default]) == 1


@every_encoder
def test_features_and_tokens_have_the_encoders_width(encoder: Encoder) -> None:
    data = data_of(encoder.kind)
    net = encoder.build(data.modalities["x"]).eval()
    x = batch_of(data, encoder).inputs["x"]
    out = net(x, detail=True)
    assert out.tokens is not None
    assert out.pooled.shape == (8, net.width)
    assert (len(out.tokens), out.tokens.shape[2]) == (8, net.width)
    assert net(x).tokens is None
    torch.testing.assert_close(net(x).pooled, out.pooled)


@every_encoder
def test_every_weight_has_a_gradient_and_no_random_number_is_drawn(encoder: Encoder) -> None:
    data = data_of(encoder.kind)
    net = encoder.build(data.modalities["x"]).train()
    x = batch_of(data, encoder, training=True).inputs["x"]
    before = torch.get_rng_state()
    first, again = net(x).pooled, net(x).pooled
    assert torch.equal(first, again)
    (first * torch.linspace(-1, 1, net.width)).square().sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert [n for n, p in net.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@every_encoder
def test_the_same_seed_gives_the_same_network(encoder: Encoder) -> None:
    modality = data_of(encoder.kind).modalities["x"]
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(encoder.build(modality).state_dict())
    assert difference(*nets) == 0


@every_encoder
def test_its_document_survives_json(encoder: Encoder) -> None:
    document = ENCODERS.document(encoder)
    assert ENCODERS.document(ENCODERS.create(json.loads(json.dumps(document)))) == document


@every_encoder
def test_run_stage_by_stage_it_gives_the_same(encoder: Encoder) -> None:
    data = data_of(encoder.kind)
    net = encoder.build(data.modalities["x"]).eval()
    assert len(net.stage_widths) == encoder.stages
    if not encoder.stages:
        return
    batch = batch_of(data, encoder, training=True)
    stages, widths = net.staged(batch.inputs["x"], batch.draws.get("x")), []
    try:
        maps = next(stages)
        while True:
            widths.append(maps.shape[2])
            maps = stages.send(maps)
    except StopIteration as end:
        torch.testing.assert_close(end.value.pooled, net(batch.inputs["x"], draws=batch.draws.get("x")).pooled)
    assert tuple(widths) == net.stage_widths


def training_of(encoder: Encoder, **changes: Any) -> Training:
    document = ENCODERS.document(encoder)
    document |= {k: v for k, v in AUGMENTATION.items() if k in document}
    return train(
        {"encoders": {"x": document}, "epochs": 2, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.02}}
        | changes,
        data_of(encoder.kind),
    )


@every_encoder
def test_it_trains_augmented_and_twice_the_same(encoder: Encoder) -> None:
    first, again = training_of(encoder), training_of(encoder)
    before = weights(first)
    results = [[(r.score, r.metrics, r.cost_joint_epochs) for r in run] for run in (first, again)]
    assert results[0] == results[1]
    after = weights(first)
    assert difference(after, weights(again)) == 0
    assert all(torch.isfinite(w).all() for w in after.values() if w.is_floating_point())
    assert any(not torch.equal(before[k], after[k]) for k in after if k.startswith("encoders.x"))


@every_encoder
def test_it_learns_and_saved_it_predicts_the_same(encoder: Encoder, tmp_path: Path) -> None:
    document = ENCODERS.document(encoder)
    run = train(
        {
            "method": {"name": "unimodal", "modality": "x"},
            "encoders": {"x": document},
            "epochs": 8,
            "batch_size": 8,
            "optimizer": {"name": "adamw", "lr": 0.01},
        },
        data_of(encoder.kind),
    )
    list(run)
    run.save_weights(tmp_path)
    there = evaluate(tmp_path, run.data, "train")
    assert np.array_equal(there.probabilities, run.evaluate("train").probabilities)
    assert there.unimodal["x"] > 0.6


@every_encoder
def test_it_trains_in_bf16(encoder: Encoder) -> None:
    run = training_of(encoder, precision="bf16", epochs=1)
    list(run)
    assert all(torch.isfinite(w).all() for w in weights(run).values() if w.is_floating_point())


@pytest.mark.parametrize(
    ("name", "fusion"),
    [(n, f) for n in NAMES for f in ("cross_attention", "mmtm") if f != "mmtm" or ENCODERS.get(n)().stages],
)
def test_it_trains_under_fusions_that_look_inside(encoder: Encoder, fusion: str) -> None:
    run = training_of(encoder, fusion={"name": fusion}, epochs=1)
    list(run)
    assert all(torch.isfinite(w).all() for w in weights(run).values() if w.is_floating_point())


def test_micro_batches_see_the_same_augmented_clips() -> None:
    series = {"name": "series", "normalise": False, "shift": 0.3, "time_mask": 0.3}
    encoders = {"x": series, "v": {"name": "vector", "normalise": False}}
    document = {"encoders": encoders, "epochs": 2, "optimizer": {"name": "sgd", "lr": 0.02}}
    runs = [train(document, data_of("series"), micro_batch=m) for m in (None, 5, 1)]
    for run in runs:
        list(run)
    assert max(difference(weights(runs[0]), weights(run)) for run in runs[1:]) < 1e-4
