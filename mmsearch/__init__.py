"""mmsearch: which balancing method and which fusion, with which knobs, for your audio-visual dataset."""

__version__ = "0.1.0"
