"""Text into a language model that lies in a local folder, as Hugging Face writes them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from mmsearch.batch import Modality, View
from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.encoders._steps import averaged, seen
from mmsearch.errors import MMSearchError
from mmsearch.knobs import knob


class LanguageModel(EncoderModule):
    """The last hidden states of a model, averaged over the tokens.

    Its dropout is off, so that every pass over a step sees the same.

    Args:
        net: the model.
        width: of its hidden states.
    """

    def __init__(self, net: Any, width: int) -> None:
        super().__init__()
        self.net = net
        self.width = width

    def forward(self, x: Tensor, detail: bool = False, draws: Tensor | None = None) -> Encoded:
        """int64 `[B, L]`, the model's numbers of its tokens + 1, to `[B, D]`."""
        real = x != 0
        states = self.net(input_ids=(x - 1).clamp(min=0), attention_mask=seen(real).long()).last_hidden_state
        pooled, tokens = averaged(states, real)
        return Encoded(pooled, tokens if detail else None)


@dataclasses.dataclass
class HfText(Encoder):
    """A language model from a local folder, trained on with the rest; nothing is downloaded, no code of it is run.

    The folder has what `save_pretrained` writes: `config.json`, `model.safetensors` (or its shards) and
    `tokenizer.json`.
    """

    name: ClassVar[str] = "hf_text"
    kind: ClassVar[str] = "text"
    summary: ClassVar[str] = "a language model from a local Hugging Face folder"
    default: ClassVar[bool] = False

    folder: str = knob("", "the folder of the model and its tokenizer", search=False)
    length: int = knob(40, "tokens a clip that are read, the first ones", low=1, high=4096, search=False)

    def build(self, modality: Modality) -> EncoderModule:
        """The model with its weights.

        Raises:
            MMSearchError: transformers is not installed, or the folder has no such model or lacks a file.
        """
        folder = self._checked()
        try:
            from tokenizers import Tokenizer
            from transformers import AutoConfig, AutoModel
        except ImportError:
            raise MMSearchError(
                "encoder hf_text: needs the library transformers; pip install 'mmsearch[text]'"
            ) from None
        here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = AutoConfig.from_pretrained(folder, **here)
            for key, value in config.to_dict().items():
                if "drop" in key and isinstance(value, float):
                    setattr(config, key, 0.0)
            with _without_bar():
                net = AutoModel.from_pretrained(folder, config=config, use_safetensors=True, **here).float()
            tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
        except Exception as error:  # tokenizers raises nothing narrower
            reason = str(error).strip().partition("\n")[0]
            raise MMSearchError(f"encoder hf_text: {folder}: not a readable model: {reason}") from None
        self._check_fit(folder, config, tokens)
        if getattr(net, "pooler", None) is not None:
            net.pooler = None
        return LanguageModel(net, config.hidden_size)

    def _checked(self) -> Path:
        """The folder, if it has the files."""
        if not self.folder:
            raise MMSearchError("encoder hf_text: needs `folder`, where the model and its tokenizer.json lie")
        folder = Path(self.folder)
        if not folder.is_dir():
            raise MMSearchError(f"encoder hf_text: no folder {folder}")
        for file in ("config.json", "tokenizer.json"):
            if not (folder / file).is_file():
                raise MMSearchError(f"encoder hf_text: {folder} has no {file}; save_pretrained writes it")
        if not any(folder.glob("*.safetensors")):
            raise MMSearchError(
                f"encoder hf_text: {folder} has no weights as safetensors; other files of weights are not opened"
            )
        return folder

    def _check_fit(self, folder: Path, config: Any, tokens: int) -> None:
        """That the model reads so many tokens, and as long a text."""
        if getattr(config, "is_encoder_decoder", False):
            raise MMSearchError(f"encoder hf_text: {folder}: a model that reads and writes; one that reads is needed")
        if tokens > config.vocab_size:
            raise MMSearchError(
                f"encoder hf_text: {folder}: the tokenizer has {tokens} tokens, the model knows {config.vocab_size}"
            )
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and self.length > longest:
            raise MMSearchError(f"encoder hf_text: length is {self.length}; {folder} reads at most {longest} tokens")

    def view(self, training: bool) -> View:
        """The first tokens of the folder's own tokenizer."""
        return View(length=self.length, tokenizer=self.folder)


@contextlib.contextmanager
def _without_bar() -> Iterator[None]:
    """Without the bar that transformers draws while it reads weights."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()
