"""Text as hashed words into a small transformer."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmsearch.batch import Modality, View
from mmsearch.encoders import Encoded, Encoder, EncoderModule
from mmsearch.encoders._steps import StepTransformer
from mmsearch.knobs import knob


class TextEncoder(EncoderModule):
    """An embedding of tokens, transformer, mean over the tokens; number 0 is no token."""

    def __init__(self, knobs: Text) -> None:
        super().__init__()
        self.width = knobs.width
        self.embedding = nn.Embedding(knobs.buckets, knobs.width, padding_idx=0)
        self.transformer = StepTransformer(knobs.width, knobs.layers, knobs.heads)

    def forward(self, x: Tensor, detail: bool = False, draws: Tensor | None = None) -> Encoded:
        """int64 `[B, L]` to `[B, D]`; tokens are the words."""
        real = x != 0
        buckets = torch.where(real, (x - 1) % (self.embedding.num_embeddings - 1) + 1, 0)
        pooled, words = self.transformer(self.embedding(buckets), real)
        return Encoded(pooled, words if detail else None)


@dataclasses.dataclass
class Text(Encoder):
    """Words, each hashed to one of many vectors that are learned, into a small transformer; needs no download."""

    name: ClassVar[str] = "text"
    kind: ClassVar[str] = "text"
    summary: ClassVar[str] = "hashed words into a small transformer"

    tokens: str = knob("words", "what counts as a token", choices=("words", "bytes"), search=False)
    length: int = knob(40, "tokens a clip that are read, the first ones", low=1, high=4096, search=False)
    buckets: int = knob(32768, "vectors that tokens share, padding included", low=64, high=1048576, search=False)
    width: int = knob(64, "width of the transformer", choices=(32, 64, 128, 256, 512), search=False)
    layers: int = knob(2, "layers of the transformer; 0: the mean of the words' vectors", low=0, high=8, search=False)
    heads: int = knob(4, "heads of the attention", choices=(1, 2, 4, 8), search=False)

    def build(self, modality: Modality) -> EncoderModule:
        """The network."""
        return TextEncoder(self)

    def view(self, training: bool) -> View:
        """The first tokens."""
        return View(length=self.length, tokenizer=self.tokens)
