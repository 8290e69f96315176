"""Encoders: one file each, found by scanning this package and the entry points `mmsearch.encoders`."""

from mmsearch.encoders._base import Encoded, Encoder, EncoderModule
from mmsearch.registry import Registry

ENCODERS: Registry[Encoder] = Registry("encoder", Encoder, "mmsearch.encoders")
"""Every encoder by name."""

__all__ = ["ENCODERS", "Encoded", "Encoder", "EncoderModule"]
