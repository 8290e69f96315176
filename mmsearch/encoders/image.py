"""Still images into a timm image network."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from mmsearch.encoders._pictures import Pictures


@dataclasses.dataclass
class Image(Pictures):
    """A timm network on one picture a clip."""

    name: ClassVar[str] = "image"
    kind: ClassVar[str] = "image"
    summary: ClassVar[str] = "a timm network on a still image"
