"""Matplotlib figures as inline SVG that takes its colours and its typeface from the page around it."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH = 4.6
"""Inches; at 72 to the inch as wide as a card on a telephone, so that labels stay readable there."""

INK = "#010101"
"""Stands for the page's own text colour."""

MUTED = "#010102"
CHOSEN = "#010103"
BASELINE = "#010104"
SERIES = tuple(f"#0102{i:02x}" for i in range(6))
"""Stand for the page's `--muted`, `--chosen`, `--baseline` and `--series-0` to `--series-5`."""

_VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    CHOSEN: "var(--chosen)",
    BASELINE: "var(--baseline)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
}

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmsearch",
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "grid.color": MUTED,
    "grid.alpha": 0.18,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelsize": 9.5,
    "xtick.major.size": 0,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9.5,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def canvas(height: float, rows: int = 1, columns: int = 1, **kwargs: object) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure `height` inches high and its axes, in the report's style."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        engine = ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.05, hspace=0.06)
        figure = Figure(figsize=(WIDTH, height), layout=engine)
        grid = figure.subplots(rows, columns, squeeze=False, **kwargs)  # type: ignore[call-overload]
        yield figure, list(grid.ravel())


def inline(figure: Figure, name: str, alt: str) -> str:
    """The figure as one `<svg role="img">`, to be called inside :func:`canvas`.

    Args:
        figure: drawn with the colours of this module.
        name: makes the element ids unique on the page.
        alt: what a screen reader says in its place.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    text = re.sub(r"font(-family)?: ([^;\"]*?)'DejaVu Sans'[^;\"]*", _typeface, text)
    view = re.search(r'viewBox="[^"]+"', text)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg role="img" aria-label="{html.escape(alt)}" {view.group(0) if view else ""} {names}>'
    return head + text[text.index(">") + 1 :].strip()


def _typeface(match: re.Match[str]) -> str:
    if match.group(1):
        return "font-family: inherit"
    size = re.search(r"[\d.]+px", match.group(2))
    weight = "font-weight: 600; " if re.search(r"bold|[6-9]00 ", match.group(2)) else ""
    return f"{weight}font-size: {size.group(0) if size else '10px'}; font-family: inherit"
