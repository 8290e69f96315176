"""Optical flow computed from a film, with OpenCV (the extra `flow`)."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from mmsearch.errors import MMSearchError

BOUND = 20.0
"""Pixels of motion at which the stored value is at its end."""


@functools.cache
def dense_inverse_search() -> Any:
    """OpenCV's DIS flow (Kroeger et al., Fast Optical Flow using Dense Inverse Search, 2016), preset medium.

    Raises:
        MMSearchError: OpenCV is not installed.
    """
    try:
        cv2: Any = importlib.import_module("cv2")
    except ImportError:
        raise MMSearchError("flow is computed with OpenCV, which is not here: pip install 'mmsearch[flow]'") from None
    cv2.setNumThreads(1)
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def flow(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where every pixel of a grey picture goes until the next one.

    Args:
        one, other: uint8 `[H, W]`.

    Returns:
        uint8 `[H, W, 2]`: motion to the right and downwards; 128 is none, 1 and 255 are 20 pixels or more.
    """
    motion = dense_inverse_search().calc(np.ascontiguousarray(one), np.ascontiguousarray(other), None)
    return np.round(128 + motion.clip(-BOUND, BOUND) * (127 / BOUND)).astype(np.uint8)
