"""The report as Markdown: the answer, and every figure as the table of its numbers; trials are for the CSV files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mmsearch.recommend.content import Block, Media, Page, Sentences
from mmsearch.recommend.figures import Figure, numeric

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def markdown(page: Page) -> str:
    """The report as Markdown; names from outside are escaped, so that they are text in any renderer.

    Args:
        page: the report's content.
    """
    return "\n".join(_lines(page)).rstrip() + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield from (f"# {_text(page.headline)}", "", f"{_text(page.dataset)}: {_text(page.verdict)}", "")
    yield from (_text(page.lead), "")
    yield from _table(["", "", ""], [[f["name"], f["value"], f["note"]] for f in page.facts])
    for step in page.steps:
        yield f"- {_text(step['text'])}" + (f": {_code(step['command'])}" if step["command"] else "")
    yield from ("",) if page.steps else ()
    for reason in page.reasons:
        yield from (f"**{_text(reason['about'])}.** {_text(reason['text'])}", "")
    for section in page.sections:
        yield from (f"## {_text(section.title)}", "")
        if section.note:
            yield from (_text(section.note), "")
        for block in section.blocks:
            yield from _block(block)
    yield f"mmsearch · {_text(page.foot)}"


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Media) or block.name == "trials":
        return
    yield from (f"### {_text(block.title)}", "")
    if isinstance(block, Sentences):
        for s in block.sentences:
            yield "- " + (f"**{_text(s['about'])}.** " if s["about"] else "") + _text(s["text"])
        yield ""
        return
    note = block.caption if isinstance(block, Figure) else block.note
    if note:
        yield from (_text(note), "")
    yield from _table(block.columns, block.rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    rules = ["--:" if right else "---" for right in numeric(rows, len(columns))]
    for line in ([_text(c) for c in columns], rules, *([_text(c) for c in row] for row in rows)):
        yield f"| {' | '.join(line)} |"
    yield ""


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    return f"`{' '.join(text.split()).replace('`', '')}`"
