"""One self-contained `report.html`: the answer on the first screen, the evidence below."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmsearch.files import write_text
from mmsearch.recommend.content import Media, Page, Sentences
from mmsearch.recommend.figures import Figure
from mmsearch.recommend.media import Clips
from mmsearch.recommend.page import page


def html(
    recommendation: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    run_dir: Path | None = None,
    shown: Clips | None = None,
) -> str:
    """The report of a finished run as HTML. It needs no network and no script; everything from outside is escaped.

    Args:
        recommendation: the content of `recommendation.json`.
        events: the journal's.
        run_dir: the run's folder, for the models' answers clip by clip; None where it is not at hand.
        shown: the clips, where some are to be seen and heard on the page.
    """
    return drawn(page(recommendation, events, run_dir, shown))


def drawn(content: Page, nonce: str | None = None) -> str:
    """A report as HTML.

    Args:
        content: of the report.
        nonce: of the one script that keeps a served page up to date; None for a page without any script.
    """
    return _environment().get_template("report.html.j2").render(page=content, css=_text("report.css"), nonce=nonce)


def write(run_dir: Path, recommendation: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Path:
    """`RUN/report.html`, replaced as a whole."""
    path = Path(run_dir) / "report.html"
    write_text(path, html(recommendation, events, Path(run_dir)))
    return path


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mmsearch.recommend", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup
    environment.tests["figure"] = lambda block: isinstance(block, Figure)
    environment.tests["media"] = lambda block: isinstance(block, Media)
    environment.tests["sentences"] = lambda block: isinstance(block, Sentences)
    environment.filters["shape"] = lambda block: getattr(block, "shape", "card")
    environment.globals["watch"] = _text("watch.js")
    return environment


def _text(name: str) -> Markup:
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))
