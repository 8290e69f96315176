"""What a trained model does where modalities are hidden or made worse, and how its losses pull."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from trained_run import RECIPE, vectors

from mmsearch.batch import Modality
from mmsearch.data import ClipData
from mmsearch.data.quality import DIALS, Quality, SoundDials
from mmsearch.fusion import FUSIONS
from mmsearch.knobs import knobs_of
from mmsearch.recommend.measure import LEVELS, agreement, read, robustness, some
from mmsearch.training import Predictor, Training, default_encoder, evaluate, method_of, refusal, train

WHOLE = frozenset({"sound", "frames"})


def trained(data: ClipData, **document: object) -> Training:
    run = train({**RECIPE, **document}, data)
    for _ in run:
        pass
    return run


@pytest.fixture(scope="module")
def data() -> ClipData:
    return vectors({"sound": 1.0, "frames": 0.5}, missing=0.3)


def fusions() -> list[str]:
    """Those that go with feature vectors."""
    names = {"sound": default_encoder("vector"), "frames": default_encoder("vector")}
    return [
        n for n in FUSIONS.names() if not refusal(method_of({"method": {"name": "joint"}}), {"name": n}, WHOLE, names)
    ]


@pytest.mark.parametrize("fusion", fusions())
def test_a_hidden_modality_is_one_that_the_clip_lacks(data: ClipData, fusion: str) -> None:
    run = trained(data, fusion={"name": fusion}, epochs=2)
    rows = data.part("select")
    found = read(run.predictor, data, rows, 7)
    batch = next(data.batches(rows, len(rows), run.predictor.views(training=False)))
    for S, hits in found.hits.items():
        there = {u: p & (u in S) for u, p in batch.present.items()}
        lacking = run.predictor.predict(dataclasses.replace(batch, present=there))
        assert torch.equal(hits, lacking.logits.argmax(1) == batch.label), S
    assert len(found.hits) == 4


@pytest.mark.parametrize("fusion", ["concat", "cross_attention", "mmtm"])
def test_sound_and_frames_too_where_encoders_give_tokens_or_exchange_maps(fusion: str) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        "sound": rng.normal(size=(40, 8000)).astype(np.float32) / 8,
        "frames": rng.integers(0, 256, (40, 4, 48, 48, 3), dtype=np.uint8),
    }
    kinds = {
        "sound": Modality("sound", "sound", (8000,), 8000.0),
        "frames": Modality("frames", "frames", (4, 48, 48, 3), 4.0),
    }
    data = ClipData.from_arrays(inputs, np.arange(40) % 2, modalities=kinds)
    predictor = train({"fusion": {"name": fusion}, "epochs": 1}, data).predictor
    rows = data.part("train")[:12]
    found = read(predictor, data, rows, 5)
    batch = next(data.batches(rows, 12, predictor.views(training=False)))
    for S, hits in found.hits.items():
        lacking = dataclasses.replace(batch, present={u: p & (u in S) for u, p in batch.present.items()})
        assert torch.equal(hits, predictor.predict(lacking).logits.argmax(1) == batch.label), S
    assert list(robustness(predictor, data, rows, 12)) == ["sound/snr_db", "frames/severity"]
    cosines = agreement(predictor, data, rows, 6, batches=1)
    assert all(len(c) == 1 and -1 <= c[0] <= 1 for c in cosines.values())


@pytest.mark.parametrize("method", ["uniform", "mla", "qmf", "agm", "reconboost"])
def test_with_everything_it_is_what_evaluation_gives_whatever_head_the_method_has(data: ClipData, method: str) -> None:
    name = {"name": method, **({"init": "scratch"} if method == "reconboost" else {})}
    run = trained(data, method=name, epochs=2)
    found, expected = read(run.predictor, data, data.part("select"), 16), evaluate(run.predictor, data, "select")
    assert float(found.hits[WHOLE].double().mean()) == expected.accuracy
    assert {u: found.own_hits(u).mean() for u in WHOLE} == expected.unimodal
    assert np.allclose(F.softmax(found.output.logits, 1).numpy(), expected.probabilities, atol=1e-6)
    assert np.array_equal(found.batch.index.numpy(), data.part("select"))


def test_three_modalities_have_eight_subsets() -> None:
    three = vectors({"a": 1.0, "b": 1.0, "c": 1.0})
    assert len(read(trained(three, epochs=1).predictor, three, three.part("select"), 16).hits) == 8


def test_a_sample_is_ascending_and_the_same_every_time() -> None:
    rows = np.arange(100, 400)
    assert np.array_equal(some(rows, 300, "x"), rows)
    drawn = some(rows, 50, "x")
    assert len(np.unique(drawn)) == 50 and np.all(np.diff(drawn) > 0) and np.isin(drawn, rows).all()
    assert np.array_equal(drawn, some(rows, 50, "x")) and not np.array_equal(drawn, some(rows, 50, "y"))


def test_noise_costs_the_model_what_it_relies_on() -> None:
    clear = vectors({"sound": 3.0, "frames": 0.0}, clips=600)
    run = trained(clear)
    curves = robustness(run.predictor, clear, clear.part("select"), 32)
    assert list(curves) == ["sound/snr_db", "frames/snr_db"]
    sound = [hit.mean() for _, hit in curves["sound/snr_db"]]
    assert [level for level, _ in curves["sound/snr_db"]] == [None, 20.0, 10.0, 0.0, -10.0]
    assert sound[0] == evaluate(run.predictor, clear, "select").accuracy > 0.95
    assert sound[-1] < 0.7 and sound == sorted(sound, reverse=True)
    assert min(hit.mean() for _, hit in curves["frames/snr_db"][:-1]) > 0.9


def test_every_dial_has_levels_in_its_range_from_mild_to_harsh() -> None:
    for dials in set(DIALS.values()):
        knob = knobs_of(dials)[dials.level]
        far = [abs(level - (60.0 if np.isinf(knob.paper) else knob.paper)) for level in LEVELS[dials]]
        assert far == sorted(far) and len(far) >= 4
        assert all(knob.low <= level <= knob.high for level in LEVELS[dials])


def test_only_the_development_part_is_made_worse_and_every_time_alike() -> None:
    rng = np.random.default_rng(0)
    data = ClipData.from_arrays(
        {"sound": rng.normal(size=(60, 400)).astype(np.float32) / 8},
        np.arange(60) % 2,
        modalities={"sound": Modality("sound", "sound", (400,), 400.0)},
    )
    quality = Quality(seed=5, on="train", modalities={"sound": SoundDials(snr_db=0.0)})
    views = trained(data, epochs=1).predictor.views(training=False)

    def sounds(clips: ClipData, part: str) -> torch.Tensor:
        return next(clips.batches(clips.part(part), 60, views)).inputs["sound"]

    worse = data.worse(quality)
    assert torch.equal(sounds(worse, "test"), sounds(data, "test"))
    noise = sounds(worse, "select") - sounds(data, "select")
    power = (sounds(data, "select") ** 2).mean(1) / (noise**2).mean(1)
    assert torch.allclose(power, torch.ones_like(power), atol=0.02), "0 dB"
    assert torch.equal(sounds(data.worse(quality), "select"), sounds(worse, "select"))
    assert worse.digest != data.digest and np.array_equal(worse.part("val", 3), data.part("val", 3))


def test_losses_agree_where_one_encoder_is_all_there_is(data: ClipData) -> None:
    run = trained(data, method={"name": "unimodal", "modality": "sound"}, epochs=2)
    cosines = agreement(run.predictor, data, data.part("train"), 16, batches=3)
    assert list(cosines) == ["sound"] and cosines["sound"] == pytest.approx([1.0] * 3)


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_the_agreement_is_that_of_the_gradients_of_both_losses(data: ClipData, fusion: str) -> None:
    run = trained(data, fusion={"name": fusion}, epochs=2)
    found = agreement(run.predictor, data, data.part("train"), 16, batches=1)
    rows = some(data.part("train"), 16, "gradients")
    batch = next(data.batches(rows, 16, run.predictor.views(training=False)))
    model = run.model.eval()

    def flat(loss: torch.Tensor, u: str) -> torch.Tensor:
        model.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in model.encoders[u].parameters() if p.grad is not None])

    for u in WHOLE:
        here = batch.present[u]
        g = flat(F.cross_entropy(model(batch).logits, batch.label), u)
        features = {v: e.pooled for v, e in model.encode(batch).items()}
        own = model.fusion.unimodal(features)[u] if fusion == "concat" else model.probes[u](features[u])
        h = flat(F.cross_entropy(own[here], batch.label[here]), u)
        assert found[u] == pytest.approx([float(F.cosine_similarity(g, h, dim=0))], abs=1e-5)


def test_batches_without_a_gradient_are_left_out(data: ClipData) -> None:
    run = trained(data, epochs=1)
    with torch.no_grad():
        run.model.fusion.linear.weight.zero_()
    assert agreement(run.predictor, data, data.part("train"), 16, batches=2) == {"sound": [], "frames": []}


def test_a_loaded_model_reads_the_same(data: ClipData, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run = trained(data, fusion={"name": "cross_attention"}, epochs=1)
    run.save_weights(tmp_path)
    a, b = (read(p, data, data.part("select"), 16) for p in (run.predictor, Predictor.load(tmp_path)))
    assert all(torch.equal(a.hits[S], b.hits[S]) for S in a.hits)
