"""The report's figures, each with the same numbers as a table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mmsearch.recommend.svg import BASELINE, CHOSEN, INK, MUTED, SERIES, canvas, inline
from mmsearch.recommend.words import joint_epochs, percent, percent_interval, points_interval
from mmsearch.search.objectives import measured
from mmsearch.search.trials import TrialRecord

ROW = 0.34
"""Inches a row of a chart with named rows takes."""

DASHES = ("-", "--", ":", "-.")
MARKERS = "^Dv<>Pp*hX8d"
"""Of marks and lines, so that colour alone tells none apart; joint training has a square, the chosen one a circle."""


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

    @property
    def numeric(self) -> list[bool]:
        """Which columns of the table hold numbers alone."""
        return numeric(self.rows, len(self.columns))


_NUMBER = re.compile(r"(p [<=] )?[+−≤-]?\d[\d.,e]*( ?%| M| s)?( \(.*\)| of \d+)?$|–$")


def numeric(rows: Sequence[Sequence[str]], columns: int) -> list[bool]:
    """Which columns of a table hold numbers alone; they are set flush right."""
    return [bool(rows) and all(_NUMBER.match(row[i]) for row in rows) for i in range(columns)]


class Look(NamedTuple):
    """How a method is drawn everywhere on the page: no two alike, also without colour."""

    colour: str
    dash: str
    marker: str


def looks(methods: Iterable[str], chosen: str | None = None) -> dict[str, Look]:
    """The look of each method; the chosen one and joint training have colours of their own."""
    others = [m for m in dict.fromkeys(methods) if m not in ("joint", chosen)]
    found = {m: Look(SERIES[i % len(SERIES)], DASHES[i % len(DASHES)], MARKERS[i % 5]) for i, m in enumerate(others)}
    return {"joint": Look(BASELINE, "-", "s"), **found, **({chosen: Look(CHOSEN, "-", "o")} if chosen else {})}


def percent_axis(axis: Any, sign: bool = False) -> None:
    """Labels an axis of shares in percent."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    plus = "+" if sign else ""
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:{plus if v else ''}.0f}".replace("-", "−")))


def named_rows(ax: Axes, names: Sequence[str]) -> None:
    """Rows with names on the left, the first at the top."""
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


def band(ax: Axes, by_epoch: Mapping[int, Sequence[float]], colour: str, dash: str, label: str) -> None:
    """A line through the means by epoch, over the range of the values."""
    epochs = list(by_epoch)
    means = [sum(v) / len(v) for v in by_epoch.values()]
    low, high = [min(v) for v in by_epoch.values()], [max(v) for v in by_epoch.values()]
    ax.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    marker = "o" if len(epochs) == 1 else ""
    ax.plot(epochs, means, marker=marker, linestyle=dash, color=colour, label=label)


def shared_legend(figure: MplFigure, axes: Iterable[Axes], columns: int) -> None:
    """One legend above all panels, each label once."""
    handles = {str(h.get_label()): h for ax in axes for h in ax.get_lines() if str(h.get_label())[:1] not in ("_", "")}
    if handles:
        where: dict[str, Any] = {"loc": "outside upper left", "ncols": columns, "handlelength": 1.8}
        figure.legend(list(handles.values()), list(handles), columnspacing=1.2, **where)


def _within_reason(ax: Axes) -> None:
    """Cuts an axis of differences where no difference of accuracies can lie."""
    low, high = ax.get_xlim()
    ax.set_xlim(max(low, -1.0), min(high, 1.0))


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
        named_rows(ax, [f["label"] for f in found])
        percent_axis(ax.xaxis)
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
        [
            "finalist",
            "select, 95 % interval",
            "test, 95 % interval",
            "seeds",
            "chance to be the best",
            "joint epochs",
            "teachers, shared",
        ],
        [
            [
                f["label"],
                percent_interval(f["select"]),
                percent_interval(f["test"]),
                str(len(f["seeds"])),
                percent(f.get("p_best")),
                joint_epochs(f["cost_joint_epochs"]),
                joint_epochs(f["cost_shared_joint_epochs"]) if f["cost_shared_joint_epochs"] else "none",
            ]
            for f in found
        ],
    )


def _chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"{p:.3f}"


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
        named_rows(ax, [c["a"] for c in found])
        _within_reason(ax)
        percent_axis(ax.xaxis, sign=True)
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
            [c["a"], points_interval(c), _chance(c["p"]), _chance(c["p_holm"]), "yes" if c["beyond_noise"] else "no"]
            for c in found
        ],
    )


def fusions(under: Sequence[Mapping[str, Any]], margin: float) -> Figure:
    """How far every fusion is from the best one, one panel a method.

    Args:
        under: the `under` of the recommendation's `fusions`.
        margin: the smallest difference that counts.
    """
    sizes = [len(u["fusions"]) for u in under]
    with canvas(sum(0.75 + ROW * n for n in sizes), len(under), 1, sharex=True, height_ratios=sizes) as (figure, axes):
        for ax, u in zip(axes, under, strict=True):
            ax.axvspan(-margin, margin, color=MUTED, alpha=0.14, linewidth=0)
            ax.axvline(0, color=BASELINE, linewidth=1.2)
            for y, f in enumerate(u["fusions"]):
                part = _turned(f["behind"])
                if part is None:
                    ax.plot([0], [y], "o", color=CHOSEN, markersize=7, zorder=4)
                elif part["mean"] is not None:
                    _interval(ax, y, part, INK if f["behind"]["beyond_noise"] else MUTED)
            named_rows(ax, [_fusion_name(f) for f in u["fusions"]])
            ax.set_title(f"under {u['method']}")
            _within_reason(ax)
            percent_axis(ax.xaxis, sign=True)
        axes[-1].set_xlabel("points from the best fusion")
        rows = [
            [
                u["method"],
                _fusion_name(f),
                percent(f["mean"]),
                percent(f["p_best"]),
                points_interval(_turned(f["behind"])) if f["behind"] else "the best",
                "yes" if (f["behind"] or {}).get("beyond_noise") else "no",
                str(f["seeds"]),
            ]
            for u in under
            for f in u["fusions"]
        ]
        alt = "Which fusion. " + "; ".join(f"under {r[0]}, {r[1]}: {r[2]}, chance to be the best {r[3]}" for r in rows)
        svg = inline(figure, "fusions", alt)
    return Figure(
        "fusions",
        "Which fusion",
        svg,
        "Paired by seed, 95 % intervals; muted where not beyond the noise. Post-hoc fusions combine the unimodal "
        f"answers of the same trainings. Grey band: less than {100 * margin:.1f} points.",
        ["under", "fusion", "select", "chance to be the best", "points from the best", "beyond the noise", "seeds"],
        rows,
    )


def _fusion_name(f: Mapping[str, Any]) -> str:
    return f"{f['fusion']} (post-hoc)" if f["post_hoc"] else str(f["fusion"])


def _turned(behind: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The difference the other way round."""
    if behind is None:
        return None
    mean, (low, high) = behind["mean"], behind["ci95"]
    return {"mean": None if mean is None else -mean, "ci95": [None if v is None else -v for v in (high, low)]}


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
        named_rows(ax, [m["modality"] for m in found])
        percent_axis(ax.xaxis)
        ax.set_xlabel("accuracy of the modality's own prediction on val, %")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=1.2)
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


def cost(rec: Mapping[str, Any], trials: Mapping[str, TrialRecord], look: Mapping[str, Look]) -> Figure:
    """Accuracy against the cost of one training, teachers charged in full."""
    d = rec["decision"]
    found = rec["finalists"]
    complete = [r for r in trials.values() if r.searched and r.state == "complete" and r.score is not None]
    dots = {r.trial_id: (measured(r, trials)["cost"], r.score) for r in complete}
    rings = [dots[f["trial_id"]] for f in rec.get("pareto", []) if f["trial_id"] in dots]
    with canvas(3.4) as (figure, (ax,)):
        ax.plot(*_columns(dots.values()), ".", color=MUTED, alpha=0.4, markersize=5)
        ax.plot(*_columns(rings), "o", color=MUTED, markerfacecolor="none", markersize=7)
        marker = iter(MARKERS * len(found))
        for f in found:
            x = f["cost_joint_epochs"] + f["cost_shared_joint_epochs"]
            low, high = f["select"]["ci95"]
            chosen = f["label"] == d["label"]
            c = CHOSEN if chosen else look[f["method"]].colour
            if low is not None:
                ax.plot([x, x], [low, high], color=c, linewidth=1.6)
            shape = "o" if chosen else "s" if f["label"] == d["reference"] else next(marker)
            face = "none" if f["cost_shared_joint_epochs"] else c
            y = f["select"]["mean"]
            ax.plot([x], [y], shape, color=c, markerfacecolor=face, markersize=7, label=f["label"])
        ax.set_xlim(left=0)
        ax.set_xmargin(0.1)
        percent_axis(ax.yaxis)
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
        "Large marks: finalists on select with 95 % intervals; open ones need teachers. Small dots: complete trials of "
        "the search, on val; a grey ring where no other one betters it in all objectives of the front.",
        ["finalist", "joint epochs, in full", "of these teachers", "select, 95 % interval"],
        rows,
    )
