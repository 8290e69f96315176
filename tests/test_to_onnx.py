"""ONNX files say what the model says, for batches of any size and clips that lack a modality; else there is none."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import mmsearch
from mmsearch import to_onnx
from mmsearch.batch import Batch, Modality
from mmsearch.cli import main
from mmsearch.errors import MMSearchError
from mmsearch.training import Predictor, resolve
from mmsearch.training.bundle import save_bundle

installed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs pip install 'mmsearch[onnx]'",
)
MODALITIES = {
    "sound": Modality("sound", "sound", (2000,), 4000.0),
    "pose": Modality("pose", "vector", (5,)),
    "words": Modality("words", "text", (12,)),
}


VECTORS = {u: Modality(u, "vector", (5,)) for u in ("pose", "tone")}


def made(folder: Path, modalities: dict[str, Modality] = VECTORS, **document: object) -> Path:
    predictor = Predictor(resolve({"data": "x", **document}, modalities), modalities, ["a", "b", "c"])
    with torch.no_grad():
        for p in predictor.model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    save_bundle(folder, predictor, None, {})
    return folder


@installed
def test_onnx_runtime_says_what_the_model_says(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    import onnx
    import onnxruntime

    folder, file = made(tmp_path / "model", MODALITIES, fusion={"name": "gated"}), tmp_path / "model.onnx"
    assert main(["export", str(folder), "--onnx", str(file)]) == 0
    printed = capsys.readouterr()
    assert "input   sound [clips, 2000]" in printed.out and not printed.err
    assert float(re.search(r"at most (\S+)", printed.out)[1]) <= to_onnx.TOLERANCE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "model.onnx"]
    metadata = {p.key: json.loads(p.value) for p in onnx.load(file).metadata_props}
    assert metadata["classes"] == ["a", "b", "c"]
    assert [m["name"] for m in metadata["modalities"]] == list(MODALITIES)

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    predictor = mmsearch.load(folder).predictor
    rng = np.random.default_rng(5)
    for clips in (1, 2, 7):
        inputs = {
            "sound": torch.from_numpy(rng.normal(size=(clips, 2000)).astype(np.float32) / 4),
            "pose": torch.from_numpy(rng.normal(size=(clips, 5)).astype(np.float32)),
            "words": torch.from_numpy(rng.integers(0, 2**15, (clips, 12))),
        }
        present = {u: torch.from_numpy(rng.random(clips) > 0.4) for u in inputs}
        nothing = torch.zeros(clips, dtype=torch.int64)
        length = session.get_inputs()[2].shape[1]
        inputs["words"] = torch.nn.functional.pad(inputs["words"], (0, length - 12))
        out = predictor.predict(Batch(inputs, nothing, nothing, present))
        feed = {u: x.numpy() for u, x in inputs.items()} | {f"{u}_present": p.numpy() for u, p in present.items()}
        joint, *alone = session.run(["probabilities", *(f"probabilities_{u}" for u in inputs)], feed)
        assert np.abs(joint - out.logits.softmax(1).numpy()).max() < 1e-5
        for z, found in zip(out.unimodal.values(), alone, strict=True):
            assert np.abs(found - z.softmax(1).numpy()).max() < 1e-5


@installed
def test_a_post_hoc_fusion_is_exported_as_it_was_fitted(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", fusion={"name": "temperature"})
    model = mmsearch.load(folder)
    model.predictor.model.fusion.fitted.fill_(True)
    model.predictor.model.fusion.T.copy_(torch.tensor([0.5, 4.0]))
    assert to_onnx.export_onnx(model, tmp_path / "x.onnx").difference < to_onnx.TOLERANCE
    assert isinstance(model.predictor.model.fusion.fitted, torch.Tensor), "the model is left as it was"


@installed
def test_what_onnx_has_no_form_for_is_refused_with_the_reason(tmp_path: Path, monkeypatch) -> None:
    model = mmsearch.load(made(tmp_path / "model"))
    monkeypatch.setattr(model.predictor.method, "predict", lambda model, out: out if out.logits.sum() > 0 else None)
    with pytest.raises(MMSearchError, match=r"^export: this model has no form in ONNX: Could not guard"):
        to_onnx.export_onnx(model, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@installed
def test_a_file_that_says_something_else_is_not_written(tmp_path: Path, monkeypatch) -> None:
    model = mmsearch.load(made(tmp_path / "model"))
    monkeypatch.setattr(to_onnx, "TOLERANCE", -1.0)
    with pytest.raises(MMSearchError, match="probabilities differ from the model's by"):
        to_onnx.export_onnx(model, tmp_path / "x.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_without_the_packages_it_says_what_to_install(tmp_path: Path, capsys, monkeypatch) -> None:
    folder = made(tmp_path / "model")
    monkeypatch.setattr(to_onnx.importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(folder), "--onnx", str(tmp_path / "x.onnx")]) == 2
    assert capsys.readouterr().err == "error: export: needs onnx and onnxscript; pip install 'mmsearch[onnx]'\n"


def test_a_place_that_is_not_there_is_refused_first(tmp_path: Path, capsys) -> None:
    assert main(["export", str(tmp_path), "--onnx", str(tmp_path / "no" / "x.onnx")]) == 2
    assert "is no folder" in capsys.readouterr().err
