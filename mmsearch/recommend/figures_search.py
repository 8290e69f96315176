"""The report's figures of the search: what was spent, what was learned by epoch, which knobs decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from mmsearch.recommend.explain import Curves
from mmsearch.recommend.figures import DASHES, Figure, Look, band, named_rows, percent_axis, shared_legend
from mmsearch.recommend.svg import CHOSEN, MUTED, SERIES, canvas, inline
from mmsearch.recommend.words import count, joint_epochs, listed, number, percent
from mmsearch.search.importance import Importance
from mmsearch.search.trials import TrialRecord

PANELS = 6
"""Signals of a method that are drawn; the table has all."""


def best_so_far(trials: Sequence[TrialRecord], look: Mapping[str, Look]) -> Figure | None:
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
    with canvas(2.9 + 0.2 * math.ceil(len(lines) / 3)) as (figure, (ax,)):
        for method, line in lines.items():
            x, y = [p[0] for p in line], [p[1] for p in line]
            c, dash, marker = look[method]
            style: dict[str, Any] = {"marker": marker, "markevery": [0], "markersize": 5, "color": c, "label": method}
            ax.step([*x, max(spent[method], x[-1])], [*y, y[-1]], dash, where="post", **style)
        ax.set_xlim(left=-0.03 * max(spent.values()) - 0.01)
        percent_axis(ax.yaxis)
        ax.set_ylabel("best accuracy on val so far, %")
        ax.set_xlabel("spent on the method, joint epochs")
        figure.legend(loc="outside upper left", ncols=3, handlelength=2.2, columnspacing=1.2)
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


def curves(trials: Sequence[TrialRecord], look: Mapping[str, Look]) -> Figure | None:
    """Learning curves of the search, one panel a method; a curve that was stopped ends in a cross."""
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
                ax.plot(*zip(*r.curve, strict=True), color=MUTED, alpha=0.45, linewidth=0.9)
                if r.state in ("pruned", "failed"):
                    ax.plot(*r.curve[-1], "x" if r.state == "pruned" else "v", color=MUTED, markersize=5)
            if best:
                ax.plot(*zip(*best.curve, strict=True), color=look[method].colour, linewidth=2.2)
            ax.set_title(f"{method}: {count(len(own), 'trial')}")
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            percent_axis(ax.yaxis)
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
        "Bold: the best complete trial of the method. A cross: stopped there; a triangle: failed there.",
        ["trial", "method", "fusion", "state", "epochs", "first", "best", "last"],
        [
            [
                r.trial_id,
                r.method,
                r.fusion,
                {"pruned": "stopped"}.get(r.state, r.state),
                str(r.curve[-1][0]),
                percent(r.curve[0][1]),
                percent(max(s for _, s in r.curve)),
                percent(r.curve[-1][1]),
            ]
            for r in shown
        ],
    )


def importance(found: Mapping[str, Importance]) -> Figure | None:
    """What each knob explains of the scores, one panel a group of trials; None where none says anything."""
    told = {name: i for name, i in found.items() if i.told}
    if not told:
        return None
    heights = [len(i.shares) for i in told.values()]
    height = sum(0.55 + 0.26 * n for n in heights)
    with canvas(height, len(told), 1, sharex=True, height_ratios=[1 + n for n in heights]) as (figure, axes):
        for ax, (name, i) in zip(axes, told.items(), strict=True):
            ax.barh(range(len(i.shares)), list(i.shares.values()), 0.6, color=CHOSEN)
            named_rows(ax, list(i.shares))
            ax.set_title(f"{name}: {count(i.trials, 'trial')}")
            ax.set_xlim(0, 1)
            percent_axis(ax.xaxis)
        axes[-1].set_xlabel("share of the differences between trials that the knob explains, %")
        alt = "Importance of knobs. " + "; ".join(
            f"{name}: " + ", ".join(f"{knob} {percent(share)}" for knob, share in i.shares.items())
            for name, i in told.items()
        )
        svg = inline(figure, "importance", alt)
    return Figure(
        "importance",
        "Which knobs decide",
        svg,
        "Functional ANOVA (Optuna) over the search's complete trials, over the values that were tried. It is drawn "
        "only where a forest fitted to the trials predicts trials it has not seen (R² above 0).",
        ["trials of", "knob", "share", "trials", "R² on unseen trials"],
        [
            [name, knob, percent(share), str(i.trials), f"{i.unseen:.2f}".replace("-", "−")]
            for name, i in told.items()
            for knob, share in i.shares.items()
        ],
    )


def untold(found: Mapping[str, Importance], enough: int) -> str:
    """In words, of which trials no importance can be given, and why; empty where there are none."""
    few = [f"{name} ({i.trials})" for name, i in found.items() if i.trials < enough]
    noise = [name for name, i in found.items() if i.unseen is not None and not i.told]
    say = []
    same = [name for name, i in found.items() if i.trials >= enough and i.unseen is None]
    if same:
        say.append(f"Neither knobs that all its trials have nor scores differ: {listed(same)}.")
    if few:
        say.append(f"Too few complete trials to tell, {enough} are needed: {listed(few)}.")
    if noise:
        say.append(f"Scores that no knob explains beyond chance: {listed(noise)}.")
    return " ".join(say)


def signals(
    name: str, method: str, found: Mapping[str, Mapping[str, Curves]], modalities: Sequence[str]
) -> Figure | None:
    """What a method logs of itself over training, one panel a signal, a line a modality; `name` is the figure's."""
    if not found:
        return None
    shown = list(found)[:PANELS]
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    drawn = {m: (SERIES[i % len(SERIES)], DASHES[i % len(DASHES)]) for i, m in enumerate(modalities)}
    with canvas(0.5 + 1.6 * rows, rows, columns, sharex=True) as (figure, axes):
        for ax in axes[len(shown) :]:
            ax.set_visible(False)
        for i, (ax, signal) in enumerate(zip(axes, shown, strict=False)):
            for modality, by_epoch in found[signal].items():
                colour, dash = drawn.get(modality, (CHOSEN, "-"))
                band(ax, by_epoch, colour, dash, modality)
            ax.set_title(signal)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            if i >= len(shown) - columns:
                ax.tick_params(labelbottom=True)
                ax.set_xlabel("epoch")
        shared_legend(figure, axes, 3)
        alt = f"Signals of {method} by epoch: {listed(shown)}; the table has their values."
        svg = inline(figure, name, alt)
    return Figure(
        name,
        f"What {method} did, by epoch",
        svg,
        "The quantities of the method's own formula, averaged over an epoch. Line: mean over the confirmation seeds; "
        "band: their range.",
        ["signal", "modality", "first epoch", "middle", "last epoch"],
        [
            [signal, modality or "all", *_thirds(by_epoch)]
            for signal, among in found.items()
            for modality, by_epoch in among.items()
        ],
    )


def _thirds(by_epoch: Curves) -> list[str]:
    epochs = list(by_epoch)
    return [number(_mean(by_epoch[epochs[i]])) for i in (0, len(epochs) // 2, -1)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
