"""The critical-difference diagram of a comparison as a picture file (Demšar, JMLR 2006, figure 1)."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from mmsearch.errors import MMSearchError
from mmsearch.files import write_bytes
from mmsearch.recommend.compare import Comparison

FORMATS = (".svg", ".png", ".pdf")
_WIDTH, _LINE, _LETTER = 7.2, 0.3, 0.085
"""Inches: the picture's width, a line of text, a letter of it."""


def draw(found: Comparison) -> Figure:
    """Methods on an axis of average ranks, the best on the left; a bar joins those not told apart."""
    places = found.places
    k, half = len(places), (len(places) + 1) // 2
    names = [f"{p.method}  {p.rank:.2f}" for p in places]
    margins = [0.2 + _LETTER * max(map(len, side)) for side in (names[:half], names[half:])]
    inch = (k - 1) / (_WIDTH - sum(margins))
    top, depth = -2.2, 0.9 + 0.4 * len(found.cliques)
    bottom = depth + half - 0.4
    figure = Figure(figsize=(_WIDTH, _LINE * (bottom - top)))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_xlim(1 - margins[0] * inch, k + margins[1] * inch)
    ax.set_ylim(bottom, top)
    ax.axis("off")
    ax.hlines(0, 1, k, color="black", linewidth=1)
    for rank in range(1, k + 1):
        ax.vlines(rank, -0.18, 0, color="black", linewidth=1)
        ax.text(rank, -0.28, str(rank), ha="center", va="bottom", fontsize=9)
    width = min(found.critical_difference, k - 1)
    ax.plot([1, 1 + width], [-1.3, -1.3], "|-", color="black", linewidth=1)
    ax.text(1, -1.45, f"critical difference {found.critical_difference:.2f}", va="bottom", fontsize=9)
    for i, (place, name) in enumerate(zip(places, names, strict=True)):
        side = -1 if i < half else 1
        y, edge = depth + (i if side < 0 else k - 1 - i), (1 if side < 0 else k)
        ax.plot([place.rank, place.rank, edge], [0, y, y], color="0.35", linewidth=0.9)
        ax.text(edge + side * 0.08 * inch, y, name, ha="right" if side < 0 else "left", va="center", fontsize=9)
    for i, (first, last) in enumerate(found.cliques):
        ends = places[first].rank - 0.05 * inch, places[last].rank + 0.05 * inch
        ax.hlines(0.4 + 0.4 * i, *ends, color="#b3422f", linewidth=4)
    return figure


def write(path: Path, found: Comparison) -> None:
    """Writes the diagram, as SVG, PNG or PDF by the file's ending, replacing an older one in one step.

    Raises:
        MMSearchError: another ending, or the place cannot be written to.
    """
    if path.suffix.lower() not in FORMATS:
        raise MMSearchError(f"{path}: a picture ends in {', '.join(FORMATS)}")
    picture = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "mmsearch", "svg.fonttype": "none"}):
        draw(found).savefig(picture, format=path.suffix[1:].lower(), dpi=150, facecolor="white")
    write_bytes(path, picture.getvalue())
