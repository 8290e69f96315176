"""The report's figures of what joint training and the recommended model do: by epoch, modality, class and quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from mmsearch.recommend.explain import Curves
from mmsearch.recommend.figures import ROW, Figure, band, named_rows, percent_axis, shared_legend
from mmsearch.recommend.svg import BASELINE, CHOSEN, MUTED, canvas, inline
from mmsearch.recommend.words import UNKNOWN, listed, percent, points

DRAWN_CLASSES = 24
"""More classes are no longer legible as a matrix; a table has what is confused most."""

NAMED_CLASSES = 12
CONFUSIONS = 20
"""Pairs of classes in the table that stands for the matrix of more classes."""

_DIALS = {"snr_db": "noise, dB", "severity": "blur and noise", "dropped": "words lost"}
_STYLE = {"joint": (BASELINE, "--", "s"), "chosen": (CHOSEN, "-", "o"), "alone": (MUTED, ":", "D")}
_WHO = {"joint": "joint training", "chosen": "recommended", "alone": "trained alone"}


def learning(panels: Mapping[str, Mapping[str, Curves]], label: str) -> Figure | None:
    """Accuracy on val by epoch: of the whole prediction and of each modality's own.

    Args:
        panels: per prediction (`all modalities`, `sound`, …) and model (`alone`, `joint`, `chosen`) the curves.
        label: of the recommended configuration.
    """
    shown = {name: {who: c for who, c in models.items() if c} for name, models in panels.items()}
    shown = {name: models for name, models in shown.items() if models}
    if not any(len(c) > 1 for models in shown.values() for c in models.values()):
        return None
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    names = {**_WHO, "chosen": label}
    with canvas(0.6 + 1.7 * rows, rows, columns, sharex=True, sharey=True) as (figure, axes):
        for ax in axes[len(shown) :]:
            ax.set_visible(False)
        for i, (ax, (name, models)) in enumerate(zip(axes, shown.items(), strict=False)):
            for who, by_epoch in models.items():
                colour, dash, _ = _STYLE[who]
                band(ax, by_epoch, colour, dash, names[who])
            ax.set_title(name)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            percent_axis(ax.yaxis)
            if i >= len(shown) - columns:
                ax.tick_params(labelbottom=True)
                ax.set_xlabel("epoch")
        shared_legend(figure, axes, 2)
        figure.supylabel("accuracy on val, %", fontsize=9, color=MUTED)
        rows_ = [[name, names[w], *_quarters(c)] for name, models in shown.items() for w, c in models.items()]
        alt = "Accuracy on val by epoch. " + "; ".join(f"{r[0]}, {r[1]}: from {r[2]} to {r[-1]}" for r in rows_)
        svg = inline(figure, "learning", alt)
    return Figure(
        "learning",
        "What each modality learns, by epoch",
        svg,
        "Line: mean over the confirmation seeds; band: their range. A modality whose own prediction stays far below "
        "what its encoder reaches when trained alone is held back by the other.",
        ["prediction of", "training", "first epoch", "a third", "two thirds", "last epoch"],
        rows_,
    )


def _quarters(by_epoch: Curves) -> list[str]:
    epochs = list(by_epoch)
    last = len(epochs) - 1
    return [percent(float(np.mean(by_epoch[epochs[round(share * last)]]))) for share in (0, 1 / 3, 2 / 3, 1)]


def confusion(
    matrices: Mapping[str, np.ndarray], classes: Sequence[str], label: str, over: str = "all seeds of the confirmation"
) -> Figure | None:
    """How often each true class got each answer on select, for joint training and the recommended model."""
    names = {**_WHO, "chosen": label}
    found = {who: m for who, m in matrices.items() if m.sum()}
    if not found or not 2 <= len(classes) <= DRAWN_CLASSES:
        return None
    shares = {who: m / np.maximum(m.sum(1, keepdims=True), 1) for who, m in found.items()}
    columns = len(found) if len(classes) <= NAMED_CLASSES else 1
    rows = math.ceil(len(found) / columns)
    with canvas(0.7 + rows * 4.4 / columns, rows, columns) as (figure, axes):
        for i, (ax, (who, share)) in enumerate(zip(axes, shares.items(), strict=True)):
            colour = _STYLE[who][0]
            for y, x in zip(*np.nonzero(share), strict=True):
                ax.add_patch(_cell(x, y, colour, float(share[y, x])))
            ax.set_xlim(-0.5, len(classes) - 0.5)
            ax.set_ylim(len(classes) - 0.5, -0.5)
            ax.set_aspect("equal")
            ax.grid(False)
            ax.set_title(names[who])
            if len(classes) <= NAMED_CLASSES:
                short = [_short(c) for c in classes]
                turned = 0 if max(map(len, short)) <= 2 else 90
                ax.set_xticks(range(len(classes)), short, rotation=turned)
                ax.set_yticks(range(len(classes)), short if i % columns == 0 else [""] * len(classes))
            else:
                ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
                ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
            ax.set_xlabel("answered")
            if i % columns == 0:
                ax.set_ylabel("true class")
        columns_, worst = confused(found, classes, label)
        alt = "Confusion matrices on select of " + listed([names[w] for w in found]) + ". "
        alt += "Most confused: " + "; ".join(f"{r[0]} taken for {r[1]}: {', '.join(r[2:])}" for r in worst[:3])
        svg = inline(figure, "confusion", alt)
    numbers = "" if len(classes) <= NAMED_CLASSES else " Classes by number, in the order of the provenance below."
    return Figure(
        "confusion",
        "What is taken for what",
        svg,
        f"Rows add up to 100 %; the fuller the colour, the more often. On select, over {over}.{numbers}",
        columns_,
        worst,
    )


def _cell(x: int, y: int, colour: str, share: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, alpha=max(0.04, share), linewidth=0)


def confused(
    matrices: Mapping[str, np.ndarray], classes: Sequence[str], label: str, most: int | None = None
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table of all pairs of a true class and an answer that occurred, errors first.

    Args:
        matrices: per model (`joint`, `chosen`) counts by true class (row) and answer (column).
        classes: their names.
        label: of the recommended configuration.
        most: of the errors only so many, the most frequent ones; None for everything.
    """
    shares = {who: m / np.maximum(m.sum(1, keepdims=True), 1) for who, m in matrices.items() if m.sum()}
    highest = np.max(list(shares.values()), axis=0)
    wrong = ~np.eye(len(classes), dtype=bool)
    order = np.argsort(-(highest + wrong), axis=None, kind="stable")
    pairs = [p for i in order if highest[p := divmod(int(i), len(classes))] > 0]
    rows = [[classes[y], classes[x], *(percent(s[y, x]) for s in shares.values())] for y, x in pairs]
    errors = [row for row, pair in zip(rows, pairs, strict=True) if wrong[pair]]
    names = {**_WHO, "chosen": label}
    columns = ["true class", "answered", *(f"{names[w]}, share of the class" for w in shares)]
    return columns, rows if most is None else errors[:most]


def _short(name: str) -> str:
    return name if len(name) <= 10 else name[:9] + "…"


def encoders(models: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """What a linear probe reads out of each encoder, against the same encoder trained alone."""
    names = list(dict.fromkeys(m for model in models.values() for m in model["modalities"]))
    found: dict[str, dict[str, float]] = {}
    for m in names:
        values = {who: model["modalities"].get(m, {}).get("probe") for who, model in models.items()}
        values["alone"] = next((v for w in models.values() if (v := w["modalities"].get(m, {}).get("alone"))), None)
        known = {who: v for who, v in values.items() if v is not None}
        if known:
            found[m] = known
    if not found:
        return None
    labels = {**_WHO, **{who: model["label"] for who, model in models.items()}}
    with canvas(1.0 + 0.5 * len(found)) as (figure, (ax,)):
        for y, values in enumerate(found.values()):
            ax.plot([min(values.values()), max(values.values())], [y, y], color=MUTED, alpha=0.5, linewidth=2, zorder=1)
        for who in ("alone", "joint", "chosen"):
            shown = [(values[who], y) for y, values in enumerate(found.values()) if who in values]
            if shown:
                colour, _, marker = _STYLE[who]
                ax.plot(*zip(*shown, strict=True), marker, color=colour, label=labels[who], markersize=7, zorder=3)
        named_rows(ax, list(found))
        percent_axis(ax.xaxis)
        ax.set_xlabel("accuracy of a linear probe, %")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2, columnspacing=1.2)
        alt = "What each encoder has learned. " + "; ".join(
            f"{m}: " + ", ".join(f"{labels[w]} {percent(v)}" for w, v in values.items()) for m, values in found.items()
        )
        svg = inline(figure, "encoders", alt)
    whos = [w for w in ("alone", "joint", "chosen") if any(w in v for v in found.values())]
    return Figure(
        "encoders",
        "What each encoder has learned",
        svg,
        "A linear probe reads the class out of one encoder's features, which no other modality can hide. Left of the "
        "same encoder trained alone: under-trained.",
        ["encoder", *(labels[w] for w in whos)],
        [[m, *(percent(values.get(w)) for w in whos)] for m, values in found.items()],
    )


def shares(models: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Shapley shares of the accuracy, by modality."""
    found = {
        model["label"]: {m: v["shapley"] for m, v in model["modalities"].items() if v.get("shapley") is not None}
        for model in models.values()
    }
    found = {label: values for label, values in found.items() if values}
    if not found:
        return None
    names = list(dict.fromkeys(m for values in found.values() for m in values))
    height = 0.8 / len(found)
    drawn = {model["label"]: _STYLE[who][0] for who, model in models.items()}
    with canvas(1.0 + 0.5 * len(names)) as (figure, (ax,)):
        for i, (label, values) in enumerate(found.items()):
            y = [names.index(m) - 0.4 + height * (i + 0.5) for m in values]
            ax.barh(y, list(values.values()), height * 0.85, color=drawn[label], label=label)
        ax.axvline(0, color=MUTED, linewidth=1)
        named_rows(ax, names)
        percent_axis(ax.xaxis)
        ax.set_xlabel("Shapley share, points of accuracy")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1, columnspacing=1.2)
        alt = "What each modality contributes. " + "; ".join(
            f"{label}: " + ", ".join(f"{m} {percent(v)}" for m, v in values.items()) for label, values in found.items()
        )
        svg = inline(figure, "shares", alt)
    return Figure(
        "shares",
        "What each modality contributes",
        svg,
        "A modality's Shapley share: what it adds to the accuracy, averaged over the orders in which modalities can be "
        "added. Imbalance: the largest less the smallest share, over their sum.",
        ["modality", *found],
        [
            *([m, *(percent(values.get(m)) for values in found.values())] for m in names),
            ["imbalance", *(_plain(m.get("imbalance")) for m in models.values() if m["label"] in found)],
        ],
    )


def calibration(models: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """How often a model is right against how sure it says it is."""
    found = {who: m for who, m in models.items() if m.get("reliability")}
    if not found:
        return None
    with canvas(3.3) as (figure, (ax,)):
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
        for who, model in found.items():
            bins = [b for b in model["reliability"] if b["clips"] and b["accuracy"] is not None]
            colour, _, marker = _STYLE[who]
            x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
            label = model["label"] + (f", ECE {percent(model['ece'])}" if model.get("ece") is not None else "")
            most = max((b["clips"] for b in bins), default=1)
            sizes = [12 + 140 * b["clips"] / most for b in bins]
            ax.scatter(x, y, sizes, color=colour, marker=marker, alpha=0.75, clip_on=False)
            ax.plot([], [], marker, color=colour, label=label, markersize=6)
        ax.set_xlim(0, 1.02)
        ax.set_ylim(0, 1.02)
        percent_axis(ax.xaxis)
        percent_axis(ax.yaxis)
        ax.set_xlabel("how sure the model says it is, %")
        ax.set_ylabel("how often it is right, %")
        figure.legend(loc="outside upper left", ncols=1, handletextpad=0.2)
        alt = "Calibration. " + "; ".join(
            f"{m['label']}: expected calibration error {percent(m.get('ece'))}" for m in found.values()
        )
        svg = inline(figure, "calibration", alt)
    return Figure(
        "calibration",
        "Can its probabilities be believed?",
        svg,
        "Below the line the model is surer than it is right. The larger a mark, the more clips. ECE: the mean distance "
        "from the line, by clips.",
        ["model", "says", "is right", "clips"],
        [
            [m["label"], percent(b["confidence"]), percent(b["accuracy"]), str(b["clips"])]
            for m in found.values()
            for b in m["reliability"]
            if b["clips"]
        ],
    )


def robustness(models: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Accuracy as the quality of a modality falls, one panel a dial."""
    dials = list(dict.fromkeys(d for m in models.values() for d in m.get("robustness") or {}))
    if not dials:
        return None
    columns = min(2, len(dials))
    rows = math.ceil(len(dials) / columns)
    with canvas(0.6 + 1.7 * rows, rows, columns, sharey=True) as (figure, axes):
        for ax in axes[len(dials) :]:
            ax.set_visible(False)
        for ax, dial in zip(axes, dials, strict=False):
            levels = list(
                dict.fromkeys(p["level"] for m in models.values() for p in (m.get("robustness") or {}).get(dial, []))
            )
            at = {level: i for i, level in enumerate(levels)}
            for who, model in models.items():
                line = [p for p in (model.get("robustness") or {}).get(dial, []) if p["accuracy"] is not None]
                colour, dash, marker = _STYLE[who]
                x, y = [at[p["level"]] for p in line], [p["accuracy"] for p in line]
                ax.plot(x, y, dash, marker=marker, color=colour, label=model["label"], markersize=5)
            ax.set_xticks(range(len(levels)), [_level(v) for v in levels])
            ax.set_title(_dial(dial))
            percent_axis(ax.yaxis)
        shared_legend(figure, axes, 2)
        figure.supylabel("accuracy, %", fontsize=9, color=MUTED)
        table = [
            [_dial(dial), _level(p["level"]), *(_at(m, dial, p["level"]) for m in models.values())]
            for dial in dials
            for p in next(m["robustness"][dial] for m in models.values() if dial in (m.get("robustness") or {}))
        ]
        alt = "Accuracy as quality falls. " + "; ".join(_fall(m, d) for m in models.values() for d in dials)
        svg = inline(figure, "robustness", alt)
    return Figure(
        "robustness",
        "What worse clips do to it",
        svg,
        "The same models on the same clips with one modality made worse by a dial (docs/data.md); nothing was "
        "retrained.",
        ["dial", "level", *(m["label"] for m in models.values())],
        table,
    )


def _dial(name: str) -> str:
    modality, _, dial = name.partition("/")
    return f"{modality}: {_DIALS.get(dial, dial.replace('_', ' '))}" if dial else name


def _level(value: Any) -> str:
    """A dial's level; none is the clips as they are."""
    if value is None:
        return "as is"
    return f"{value:g}".replace("-", "−") if isinstance(value, int | float) else str(value)


def _at(model: Mapping[str, Any], dial: str, level: Any) -> str:
    line = (model.get("robustness") or {}).get(dial, [])
    return next((percent(p["accuracy"]) for p in line if p["level"] == level), UNKNOWN)


def _fall(model: Mapping[str, Any], dial: str) -> str:
    known = [p["accuracy"] for p in (model.get("robustness") or {}).get(dial, []) if p["accuracy"] is not None]
    return f"{model['label']}, {dial}: from {percent(known[0])} to {percent(known[-1])}" if known else dial


def missing(models: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Accuracy with all modalities and without each of them."""
    names = list(dict.fromkeys(u for m in models.values() for u in m.get("missing") or {}))
    if not names:
        return None
    rows = ["with all", *(f"without {u}" for u in names)]
    table = {who: [m["accuracy"], *((m.get("missing") or {}).get(u) for u in names)] for who, m in models.items()}
    with canvas(0.9 + ROW * len(rows)) as (figure, (ax,)):
        for who, values in table.items():
            shown = [(v, y) for y, v in enumerate(values) if v is not None]
            if shown:
                colour, _, marker = _STYLE[who]
                ax.plot(*zip(*shown, strict=True), marker, color=colour, label=models[who]["label"], markersize=7)
        named_rows(ax, rows)
        percent_axis(ax.xaxis)
        ax.set_xlabel("accuracy, %")
        figure.legend(loc="outside upper left", ncols=2, handletextpad=0.2)
        alt = "Accuracy with a modality missing. " + "; ".join(
            f"{models[who]['label']}: " + ", ".join(f"{r} {percent(v)}" for r, v in zip(rows, values, strict=True))
            for who, values in table.items()
        )
        svg = inline(figure, "missing", alt)
    return Figure(
        "missing",
        "If a modality is missing",
        svg,
        "The same models on the same clips with one modality taken away.",
        ["", *(m["label"] for m in models.values())],
        [[r, *(percent(values[i]) for values in table.values())] for i, r in enumerate(rows)],
    )


def inside(models: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The rows of the table of everything that was measured of a modality inside a model."""
    return [
        [
            model["label"],
            m,
            percent(v.get("own")),
            percent(v.get("probe")),
            percent(v.get("alone")),
            _gap(v),
            ", ".join(points(g["gap"]) for g in v.get("gaps") or []) or UNKNOWN,
            percent(v.get("shapley")),
            _plain(v.get("separability")),
            _plain(v.get("gradient_agreement")),
            _plain((model.get("valuation") or {}).get(m)),
        ]
        for model in models.values()
        for m, v in model["modalities"].items()
    ]


INSIDE = [
    "model", "modality", "own prediction", "probe", "trained alone", "gap, points", "gap by seed", "Shapley share",
    "separability", "gradient agreement", "value by clip",
]  # fmt: skip
"""The columns of :func:`inside`."""


def _gap(v: Mapping[str, Any]) -> str:
    low, high = v.get("gap_ci95") or (None, None)
    return points(v.get("gap")) + (f" ({points(low)} to {points(high)})" if low is not None else "")


def _plain(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}".replace("-", "−")
