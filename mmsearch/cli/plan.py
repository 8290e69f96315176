"""The plan of a sweep as plain text of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmsearch.recommend.words import count, duration

if TYPE_CHECKING:
    from mmsearch.search.plan import MethodPlan, Plan, Range

_WIDTH = 80
_LABEL = 14

_ALLOCATIONS = {
    "equal": "every method as many",
    "race": "some for every method, then to those that may still be best",
    "joint": "every paper setting, then whatever one sampler over all methods chooses",
}


def render(plan: Plan) -> str:
    """Methods, rungs, trials, costs and resources; the last line ends without a line break."""
    return "\n".join(["Plan of the sweep", "", *_methods(plan), "", *_facts(plan)])


def _methods(plan: Plan) -> list[str]:
    head = ("method", "fusions", "epochs", "judged after", "paper", "trials", "cost")
    rows = [head, *map(_row, plan.methods)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    left = {0, 3}
    return [
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        .rstrip()
        for row in rows
    ]  # fmt: skip


def _row(p: MethodPlan) -> tuple[str, ...]:
    fusions = p.fusions[0] if len(p.fusions) == 1 else str(len(p.fusions))
    rungs = " ".join(map(str, p.rungs)) or "the end"
    return (p.method, fusions, str(p.epochs), rungs, str(p.papers), _between(p.trials), _cost(p.cost))


def _facts(plan: Plan) -> Iterator[str]:
    known = "" if plan.measured else " (assumed: measuring it takes too long on this machine)"
    rungs = "judged after: the epochs after which a trial may be stopped; paper: settings tried first"
    yield from _fact("columns", f"{rungs}; cost: joint epochs of an epoch{known}")
    fusions = sorted({f for p in plan.methods for f in p.fusions} - {"own"})
    yield from _fact("fusions", ", ".join(fusions))
    if plan.post_hoc:
        yield from _fact("", f"in every trial, at no extra training: {', '.join(plan.post_hoc)}")
    yield from _fact("search", f"{plan.trials} trials ({plan.allocation}: {_ALLOCATIONS[plan.allocation]}); "
                     f"{_about(plan.search)} joint epochs")  # fmt: skip
    yield from _fact("confirmation", f"{_about(plan.confirm_trials)} trials on {count(plan.seeds, 'fresh seed')}; "
                     f"{_about(plan.confirmation)} joint epochs")  # fmt: skip
    yield from _fact("together", f"{_about(plan.search + plan.confirmation)} joint epochs")
    if plan.refit:
        yield from _fact("then", "what is recommended once more, on all development clips (--no-refit: not)")
    for budget, unit in ((plan.budget, "joint epochs"), (plan.time_budget, "")):
        if budget is not None:
            yield from _fact("budget", _budget(plan, budget, unit))
    shape = [count(1, "core") if plan.cpus == 1 else f"{plan.cpus:g} cores"]
    shape += [f"{plan.gpus:g} GPU" + "s" * (plan.gpus != 1)] if plan.gpus else []
    room = "as many at a time as the cluster has room for" if plan.at_once is None else f"{plan.at_once} at a time"
    yield from _fact("a trial gets", f"{' and '.join(shape)}; {room}")
    for i, (reason, names) in enumerate(plan.left_out.items()):
        yield from _fact("left out" if i == 0 else "", f"{', '.join(names)}: {reason}")


def _budget(plan: Plan, budget: float, unit: str) -> str:
    from mmsearch.search.plan import SEARCH_SHARE

    said = (lambda x: f"{_number(x)} {unit}") if unit else duration
    share = SEARCH_SHARE * budget
    text = f"{said(budget)}: the search asks for nothing more after {said(share)}"
    left = budget - min(share, plan.search.expected)
    if unit and plan.confirmation.expected > left:
        text += f"; the confirmation is not cut short and is expected to need more than the {said(left)} left then"
    return text


def _fact(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=label.ljust(_LABEL), subsequent_indent=" " * _LABEL, break_long_words=False
    )


def _about(r: Range) -> str:
    return _number(r.low) if r.low == r.high else f"about {_number(r.expected)} ({_between(r)})"


def _between(r: Range) -> str:
    return _number(r.low) if r.low == r.high else f"{_number(r.low)} to {_number(r.high)}"


def _cost(r: Range) -> str:
    low, high = f"{r.low:.2f}", f"{r.high:.2f}"
    return low if low == high else f"{low} to {high}"


def _number(x: float) -> str:
    return f"{x:.0f}"
