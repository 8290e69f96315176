"""Encoders of series and text: what is padding counts for nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmsearch.batch import Modality
from mmsearch.encoders import ENCODERS
from mmsearch.encoders._steps import length_of
from mmsearch.errors import MMSearchError

SERIES = Modality("x", "series", (20, 6))
TEXT = Modality("x", "text", (200,))


def test_the_length_of_a_clip_ends_with_its_last_step_that_is_not_zero() -> None:
    x = torch.zeros(3, 5)
    x[0, 1], x[1, 4] = 1, -1
    assert length_of(x).tolist() == length_of(x[..., None]).tolist() == [2, 5, 0]


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("name", ["series", "text"])
def test_padding_changes_neither_features_nor_tokens(name: str, layers: int) -> None:
    net: Any = ENCODERS.create({"name": name, "layers": layers}).build(SERIES if name == "series" else TEXT).eval()
    x = torch.randint(1, 30000, (3, 12)) if name == "text" else torch.randn(3, 12, 6)
    x[1, 7:] = 0
    longer = torch.cat([x, torch.zeros_like(x)], dim=1)
    short, long = net(x, True), net(longer, True)
    torch.testing.assert_close(long.pooled, short.pooled)
    torch.testing.assert_close(long.tokens[:, :12], short.tokens)
    assert (long.tokens[:, 12:] == 0).all() and (short.tokens[1, 7:] == 0).all()
    torch.testing.assert_close(short.pooled[1], short.tokens[1, :7].mean(0))


@pytest.mark.parametrize("name", ["series", "text"])
def test_only_a_transformer_minds_the_order(name: str) -> None:
    x = torch.randint(1, 30000, (2, 12)) if name == "text" else torch.randn(2, 12, 6)
    for layers in (0, 2):
        net: Any = ENCODERS.create({"name": name, "layers": layers}).build(SERIES if name == "series" else TEXT).eval()
        assert torch.allclose(net(x).pooled, net(x.flip(1)).pooled, atol=1e-5) == (layers == 0)


def test_a_series_is_standardised_over_its_real_steps() -> None:
    net: Any = ENCODERS.create({"name": "series"}).build(SERIES).train()
    x = 5 + 3 * torch.randn(30, 20, 6)
    x[:, 4:] = 0
    y = net.standardise(x, (x != 0).any(-1))
    assert (y[:, 4:] == 0).all()
    torch.testing.assert_close(y[:, :4].flatten(0, 1).mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(y[:, :4].flatten(0, 1).std(0), torch.ones(6), atol=1e-2, rtol=0)


def test_a_batch_without_a_real_step_is_no_trouble_to_a_series() -> None:
    net: Any = ENCODERS.create({"name": "series"}).build(SERIES).train()
    before = net.standardise.running_mean.clone()
    assert (net(torch.zeros(3, 20, 6)).pooled == 0).all()
    assert torch.equal(net.standardise.running_mean, before)


def test_the_views_of_a_series_and_of_a_text() -> None:
    series = ENCODERS.create({"name": "series", "length": 8})
    assert [(series.view(t).length, series.view(t).random) for t in (True, False)] == [(8, True), (8, False)]
    assert not ENCODERS.create({"name": "series"}).view(True).random
    text = ENCODERS.create({"name": "text", "length": 16, "tokens": "bytes"}).view(True)
    assert (text.length, text.tokenizer, text.random) == (16, "bytes", False)


def test_as_many_vectors_as_hashed_words_keep_every_word_apart_and_fewer_share() -> None:
    words = torch.arange(1, 2**15)[None]
    net: Any = ENCODERS.create({"name": "text", "layers": 0}).build(TEXT)
    assert net(words, True).tokens[0].unique(dim=0).shape[0] == 2**15 - 1
    few: Any = ENCODERS.create({"name": "text", "layers": 0, "buckets": 64}).build(TEXT)
    assert few(words, True).tokens[0].unique(dim=0).shape[0] == 63


def hf(folder: Path | str, **knobs: Any) -> Any:
    return ENCODERS.create({"name": "hf_text", "folder": str(folder), **knobs})


def test_a_language_model_gives_the_mean_of_its_last_hidden_states(language_model: Path) -> None:
    from transformers import AutoModel

    net = hf(language_model).build(TEXT).train()
    ids = torch.tensor([[4, 5, 6], [6, 4, 0]])
    x = torch.tensor([[5, 6, 7], [7, 5, 0], [0, 0, 0]])
    out = net(x, True)
    model = AutoModel.from_pretrained(language_model).eval()
    states = model(input_ids=ids[:1]).last_hidden_state[0], model(input_ids=ids[1:, :2]).last_hidden_state[0]
    torch.testing.assert_close(out.pooled[:2], torch.stack([s.mean(0) for s in states]))
    torch.testing.assert_close(out.tokens[1], torch.cat([states[1], torch.zeros(1, 16)]))
    assert (out.pooled[2] == 0).all() and (out.tokens[2] == 0).all()


def test_a_language_model_reads_with_its_own_tokenizer(language_model: Path) -> None:
    view = hf(language_model, length=12).view(training=True)
    assert (view.tokenizer, view.length) == (str(language_model), 12)


def test_weights_of_another_type_become_float32(language_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    shutil.copytree(language_model, tmp_path / "half")
    AutoModel.from_pretrained(language_model).half().save_pretrained(tmp_path / "half")
    assert {p.dtype for p in hf(tmp_path / "half").build(TEXT).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "no weights as safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no weights"), "not a readable model"),
        (lambda f: (f / "config.json").write_text("{"), "not a readable model"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "not a readable model"),
        (lambda f: edit(f, vocab_size=5), "not a readable model|knows 5"),
        (lambda f: edit(f, model_type="no_such_model"), "not a readable model"),
        (lambda f: edit(f, model_type="x", auto_map={"AutoModel": "evil.M", "AutoConfig": "evil.C"}), "not a readable"),
        (shutil.rmtree, "no folder"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(break_it: Any, reason: str, language_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(language_model, folder)
    (folder / "evil.py").write_text("raise SystemExit('run')")
    break_it(folder)
    with pytest.raises(MMSearchError, match=reason) as error:
        hf(folder).build(TEXT)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_a_tokenizer_with_more_tokens_than_the_model_knows_is_refused(language_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(language_model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["purple"] = 7
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(MMSearchError, match="the tokenizer has 8 tokens, the model knows 7"):
        hf(folder).build(TEXT)


def test_longer_texts_than_the_model_reads_are_refused(language_model: Path) -> None:
    with pytest.raises(MMSearchError, match=r"length is 64; .* reads at most 40 tokens"):
        hf(language_model, length=64).build(TEXT)


def test_without_a_folder_or_the_library_it_says_what_to_do(
    language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MMSearchError, match="needs `folder`"):
        ENCODERS.create({"name": "hf_text"}).build(TEXT)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MMSearchError, match=r"pip install 'mmsearch\[text\]'"):
        hf(language_model).build(TEXT)
