"""The report's figures, each with the same numbers as a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mmsearch.recommend.svg import BASELINE, CHOSEN, INK, MUTED, SERIES, canvas, inline
from mmsearch.recommend.words import count, joint_epochs, percent, percent_interval, points_interval
from mmsearch.search.objectives import measured
from mmsearch.search.trials import TrialRecord

ROW = 0.34
"""Inches a row of a chart with named rows takes."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing, what it shows, and its numbers.

    Attributes:
        svg: inline, with its own `role` and `aria-label`.
        caption: how to read it.
        columns, rows: the table.
    """

    name: str
    title: str
    svg: str
    caption: str
    columns: list[str]
    rows: list[list[str]]


def colours(methods: Iterable[str], chosen: str) -> dict[str, str]:
    """A colour of each method: the chosen one and joint training have their own, the first six others differ."""
    others = [m for m in dict.fromkeys(methods) if m not in ("joint", chosen)]
    found = {m: SERIES[i] if i < len(SERIES) else MUTED for i, m in enumerate(others)}
    return {**found, chosen: CHOSEN, "joint": BASELINE}


def _percent_axis(axis: Any, sign: bool = False) -> None:
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    plus = "+" if sign else ""
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:{plus if v else ''}.0f}".replace("-", "−")))


def _named_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False, axis="y")


def _columns(points: Collection[tuple[float, float | None]]) -> tuple[list[Any], list[Any]]:
    return [x for x, _ in points], [y for _, y in points]


def _interval(ax: Axes, y: float, part: Mapping[str, Any], colour: str) -> None:
    low, high = part["ci95"]
    if low is not None:
        ax.plot([low, high], [y, y], color=colour, linewidth=2.4, zorder=3)
    ax.plot([part["mean"]], [y], "o", color=colour, markersize=7, zorder=4)


def finalists(rec: Mapping[str, Any]) -> Figure:
    """Accuracy of every finalist on select, with its interval, its seeds and its test accuracy."""
    found, d = rec["finalists"], rec["decision"]
    with canvas(0.75 + ROW * len(found)) as (figure, (ax,)):
        for y, f in enumerate(found):
            c = CHOSEN if f["label"] == d["label"] else BASELINE if f["method"] == "joint" else INK
            ax.plot(f["select"]["values"], [y] * len(f["seeds"]), "|", color=c, alpha=0.5, markersize=9)
            _interval(ax, y, f["select"], c)
            if f["test"]:
                ax.plot([f["test"]["mean"]], [y + 0.3], "D", color=c, markerfacecolor="none", markersize=4.5)
        _named_rows(ax, [f["label"] for f in found])
        _percent_axis(ax.xaxis)
        ax.set_xlabel("accuracy, %")
        alt = "Accuracy of the finalists on select. " + "; ".join(
            f"{f['label']} {percent_interval(f['select'])}" for f in found
        )
        svg = inline(figure, "finalists", alt)
    return Figure(
        "finalists",
        "Finalists, retrained on fresh seeds",
        svg,
        "Dot and bar: mean on select and its 95 % interval over seeds. Ticks: single seeds. "
        "Open diamond: mean on test, which decided nothing.",
        ["finalist", "select, 95 % interval", "test, 95 % interval", "seeds", "joint epochs", "teachers, shared"],
        [
            [
                f["label"],
                percent_interval(f["select"]),
                percent_interval(f["test"]),
                str(len(f["seeds"])),
                joint_epochs(f["cost_joint_epochs"]),
                joint_epochs(f["cost_shared_joint_epochs"]) if f["cost_shared_joint_epochs"] else "none",
            ]
            for f in found
        ],
    )


def differences(rec: Mapping[str, Any]) -> Figure | None:
    """Every finalist against plain joint training, paired by seed."""
    d = rec["decision"]
    found = [c for c in rec["comparisons"] if c["b"] == d["reference"] and c["mean"] is not None]
    if not found:
        return None
    found.sort(key=lambda c: -c["mean"])
    with canvas(0.75 + ROW * len(found)) as (figure, (ax,)):
        ax.axvspan(-d["margin"], d["margin"], color=MUTED, alpha=0.14, linewidth=0)
        ax.axvline(0, color=BASELINE, linewidth=1.2)
        for y, c in enumerate(found):
            _interval(ax, y, c, CHOSEN if c["a"] == d["label"] else INK if c["beyond_noise"] else MUTED)
        _named_rows(ax, [c["a"] for c in found])
        _percent_axis(ax.xaxis, sign=True)
        ax.set_xlabel(f"points over {d['reference']}")
        alt = "Gain over plain joint training, points. " + "; ".join(f"{c['a']} {points_interval(c)}" for c in found)
        svg = inline(figure, "differences", alt)
    return Figure(
        "differences",
        "Gain over plain joint training",
        svg,
        "Paired by seed, 95 % intervals by the noise pooled over finalists; muted where not beyond the noise after "
        "Holm's correction. "
        f"Grey band: less than {100 * d['margin']:.1f} points, not worth another recipe.",
        ["finalist", "points over joint, 95 % interval", "p", "p, corrected", "beyond the noise"],
        [
            [c["a"], points_interval(c), f"{c['p']:.3f}", f"{c['p_holm']:.3f}", "yes" if c["beyond_noise"] else "no"]
            for c in found
        ],
    )


def modalities(rec: Mapping[str, Any]) -> Figure | None:
    """What each modality reaches alone and inside joint training: how far it is starved."""
    found = [m for m in rec["modalities"] if m["alone"] is not None and m["joint"] is not None]
    if not found:
        return None
    label = rec["decision"]["label"]
    kinds = [("alone", "trained alone", INK, "s"), ("joint", "inside joint", BASELINE, "o")]
    if any(m["chosen"] is not None for m in found):
        kinds.append(("chosen", f"inside {label}", CHOSEN, "o"))
    with canvas(1.0 + 0.55 * len(found)) as (figure, (ax,)):
        for y, m in enumerate(found):
            values = [m[k] for k, *_ in kinds if m[k] is not None]
            ax.plot([min(values), max(values)], [y, y], color=MUTED, alpha=0.5, linewidth=2, zorder=1)
        for key, name, colour, marker in kinds:
            shown = [(m[key], y) for y, m in enumerate(found) if m[key] is not None]
            ax.plot(*zip(*shown, strict=True), marker, color=colour, label=name, markersize=8, zorder=3)
        _named_rows(ax, [m["modality"] for m in found])
        _percent_axis(ax.xaxis)
        ax.set_xlabel("accuracy of the modality's own prediction on val, %")
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.2)
        alt = "Each modality's own accuracy. " + "; ".join(
            f"{m['modality']}: " + ", ".join(f"{name} {percent(m[key])}" for key, name, *_ in kinds) for m in found
        )
        svg = inline(figure, "modalities", alt)
    return Figure(
        "modalities",
        "What each modality reaches",
        svg,
        "A modality far below its own mark inside joint training is starved by the other.",
        ["modality", *(name for _, name, *_ in kinds)],
        [[m["modality"], *(percent(m[key]) for key, *_ in kinds)] for m in found],
    )


def best_so_far(trials: Sequence[TrialRecord], colour: Mapping[str, str]) -> Figure | None:
    """The search's best score against what was spent on each method."""
    lines: dict[str, list[tuple[float, float]]] = {}
    spent: dict[str, float] = {}
    for r in trials:
        spent[r.method] = spent.get(r.method, 0.0) + (r.cost_joint_epochs or 0.0)
        if r.state == "complete" and r.score is not None:
            line = lines.setdefault(r.method, [])
            line.append((spent[r.method], max(r.score, line[-1][1] if line else -math.inf)))
    if not lines:
        return None
    with canvas(3.4) as (figure, (ax,)):
        for method, line in lines.items():
            x, y = [p[0] for p in line], [p[1] for p in line]
            c = colour[method]
            ax.step([*x, max(spent[method], x[-1])], [*y, y[-1]], where="post", color=c, label=method)
            ax.plot(x[:1], y[:1], "o", color=c, markersize=4)
        _percent_axis(ax.yaxis)
        ax.set_ylabel("best accuracy on val so far, %")
        ax.set_xlabel("spent on the method, joint epochs")
        figure.legend(loc="outside upper left", ncols=3, handlelength=1.2, columnspacing=1.2)
        alt = "Best score so far against cost. " + "; ".join(
            f"{m} reaches {percent(line[-1][1])} after {joint_epochs(line[-1][0])} joint epochs"
            for m, line in lines.items()
        )
        svg = inline(figure, "best", alt)
    return Figure(
        "best",
        "Best so far against cost",
        svg,
        "The search's own best score on val, trial by trial. It is high by selection and is not the reported result.",
        ["method", "complete trials", "best on val", "spent, joint epochs"],
        [[m, str(len(line)), percent(line[-1][1]), joint_epochs(spent[m])] for m, line in lines.items()],
    )


def curves(trials: Sequence[TrialRecord], colour: Mapping[str, str]) -> Figure | None:
    """Learning curves of the search, one panel a method."""
    shown = [r for r in trials if len(r.curve) > 1]
    methods = list(dict.fromkeys(r.method for r in shown))
    if not methods:
        return None
    columns = min(2, len(methods))
    rows = math.ceil(len(methods) / columns)
    with canvas(0.4 + 1.5 * rows, rows, columns, sharex=True, sharey=True) as (figure, axes):
        for ax in axes[len(methods) :]:
            ax.set_visible(False)
        for i, (ax, method) in enumerate(zip(axes, methods, strict=False)):
            own = [r for r in shown if r.method == method]
            done = [r for r in own if r.state == "complete" and r.score is not None]
            best = max(done, key=lambda r: r.score or 0.0, default=None)
            for r in own:
                ax.plot(*zip(*r.curve, strict=True), color=MUTED, alpha=0.35, linewidth=0.9)
            if best:
                ax.plot(*zip(*best.curve, strict=True), color=colour[method], linewidth=2.2)
            ax.set_title(f"{method}: {count(len(own), 'trial')}")
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            _percent_axis(ax.yaxis)
            if i >= len(methods) - columns:
                ax.tick_params(labelbottom=True)
                ax.set_xlabel("epoch")
        figure.supylabel("accuracy on val, %", fontsize=9, color=MUTED)
        what = f"{count(len(shown), 'trial')} of {count(len(methods), 'method')}"
        alt = f"Learning curves of {what}; the table has where they begin and end."
        svg = inline(figure, "curves", alt)
    return Figure(
        "curves",
        "Learning curves of the search",
        svg,
        "Bold: the best complete trial of the method. Curves that end early were stopped.",
        ["trial", "method", "fusion", "state", "epochs", "first", "best", "last"],
        [
            [
                r.trial_id,
                r.method,
                r.fusion,
                r.state,
                str(r.curve[-1][0]),
                percent(r.curve[0][1]),
                percent(max(s for _, s in r.curve)),
                percent(r.curve[-1][1]),
            ]
            for r in shown
        ],
    )


def cost(rec: Mapping[str, Any], trials: Mapping[str, TrialRecord], colour: Mapping[str, str]) -> Figure:
    """Accuracy against the cost of one training, teachers charged in full."""
    d = rec["decision"]
    found = rec["finalists"]
    complete = [r for r in trials.values() if r.searched and r.state == "complete" and r.score is not None]
    dots = {r.trial_id: (measured(r, trials)["cost"], r.score) for r in complete}
    rings = [dots[f["trial_id"]] for f in rec.get("pareto", []) if f["trial_id"] in dots]
    with canvas(3.4) as (figure, (ax,)):
        ax.plot(*_columns(dots.values()), ".", color=MUTED, alpha=0.4, markersize=5)
        ax.plot(*_columns(rings), "o", color=MUTED, markerfacecolor="none", markersize=7)
        for f in found:
            x = f["cost_joint_epochs"] + f["cost_shared_joint_epochs"]
            low, high = f["select"]["ci95"]
            c = CHOSEN if f["label"] == d["label"] else colour[f["method"]]
            if low is not None:
                ax.plot([x, x], [low, high], color=c, linewidth=1.6)
            marker = "D" if f["cost_shared_joint_epochs"] else "o"
            ax.plot([x], [f["select"]["mean"]], marker, color=c, markersize=7, label=f["label"])
        ax.set_xlim(left=0)
        ax.set_xmargin(0.1)
        _percent_axis(ax.yaxis)
        ax.set_ylabel("accuracy, %")
        ax.set_xlabel("one training, joint epochs (teachers charged in full)")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=1.2)
        rows = [
            [
                f["label"],
                joint_epochs(f["cost_joint_epochs"] + f["cost_shared_joint_epochs"]),
                joint_epochs(f["cost_shared_joint_epochs"]) if f["cost_shared_joint_epochs"] else "none",
                percent_interval(f["select"]),
            ]
            for f in found
        ]
        alt = "Accuracy against cost. " + "; ".join(f"{r[0]}: {r[3]} at {r[1]} joint epochs" for r in rows)
        svg = inline(figure, "cost", alt)
    return Figure(
        "cost",
        "Accuracy against cost",
        svg,
        "Large marks: finalists on select with 95 % intervals; diamonds need teachers. Small dots: complete trials of "
        "the search, on val; a ring where no other one betters it in all objectives of the front.",
        ["finalist", "joint epochs, in full", "of these teachers", "select, 95 % interval"],
        rows,
    )
