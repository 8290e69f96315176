"""A recommendation before any sweep, in words, as JSON, and as the start of a sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from mmsearch.recommend.decision import BASELINE, MARGIN, UNIMODAL
from mmsearch.recommend.knowledge import Advice, Descriptors, Expected
from mmsearch.recommend.words import UNKNOWN, listed, percent, points
from mmsearch.search.space import Space

Z = 1.96
"""Of a 95 % interval of a normal distribution."""
SURE = 0.5
"""Chance of being best from which on one method is named as likely; below it the first is the best guess."""


def name_of(expected: Expected, descriptors: Descriptors) -> str:
    """As printed: a single modality by the stronger one's name."""
    if expected.label == UNIMODAL:
        return f"{max(descriptors.alone, key=lambda u: descriptors.alone[u])} alone"
    return expected.label


def interval(e: Expected) -> str:
    """`+3.1 (+0.4 to +5.8)`; joint training is what gains are over."""
    if e.label == BASELINE or e.sd == float("inf"):
        return points(e.gain)
    return f"{points(e.gain)} ({points(e.gain - Z * e.sd)} to {points(e.gain + Z * e.sd)})"


def headline(advice: Advice, descriptors: Descriptors) -> str:
    """What to train if nothing is searched."""
    name = name_of(advice.best, descriptors)
    if advice.unsure:
        return f"It knows too little of such data; on the cases it knows, {name} gained most"
    if advice.best.label == BASELINE or advice.best.gain < MARGIN:
        return "Plain joint training: no method is expected to gain enough over it"
    return f"{'Likely' if advice.best.p_best >= SURE else 'A guess:'} {name}"


def sentences(advice: Advice, descriptors: Descriptors) -> list[str]:
    """Why, how sure, and from what."""
    found = []
    if advice.unsure:
        found.append(f"Nothing is predicted: {advice.unsure}. The order is that of the mean gain over all cases.")
    else:
        best = advice.best
        found.append(
            f"Expected over joint training: {interval(best)} points (95 %), at its paper setting; the chance that no "
            f"other method gains more is {percent(best.p_best)}."
        )
        near = listed([f"{case.name} ({case.origin})" for case, _ in advice.nearest])
        found.append(f"From {advice.cases} cases; the most similar are {near}.")
    strengths = [f"{u} {percent(a)}" for u, a in descriptors.alone.items()]
    found.append(
        f"The survey: {listed(strengths)} alone, {percent(descriptors.joint)} jointly, {percent(descriptors.ensemble)} "
        "as an ensemble of the modalities alone."
    )
    short = {u: g for u, g in descriptors.gap.items() if g is not None and g > 0}
    if short:
        u = max(short, key=lambda m: short[m])
        found.append(f"Inside joint training the {u} encoder learned {100 * short[u]:.1f} points less than alone.")
    found.append("This is an expectation, no evidence: a sweep gives that.")
    return found


def as_json(advice: Advice, descriptors: Descriptors) -> dict[str, Any]:
    """The advice whole."""
    return {
        "headline": headline(advice, descriptors),
        "sentences": sentences(advice, descriptors),
        "unsure": advice.unsure,
        "cases": advice.cases,
        "nearest": [{"name": c.name, "origin": c.origin, "distance": d} for c, d in advice.nearest],
        "order": [
            {**dataclasses.asdict(e), "label": name_of(e, descriptors), "sd": None if e.sd == float("inf") else e.sd}
            for e in advice.order
        ],
        "descriptors": dataclasses.asdict(descriptors),
    }


def start_of(advice: Advice, space: Space) -> dict[str, list[dict[str, Any]]]:
    """The methods in the order in which a sweep should try them, each with the setting that the nearest case confirmed.

    A setting that the space does not have is left out.

    Args:
        advice: of the dataset.
        space: of the sweep.
    """
    order: dict[str, list[dict[str, Any]]] = {}
    for e in advice.order:
        method = e.label.partition(" ")[0]
        if method not in space.methods:
            continue
        known = (case.gains[e.label].params for case, _ in advice.nearest if e.label in case.gains)
        fitting = [p for p in known if p is not None and space.holds(method, p)]
        order.setdefault(method, []).extend(fitting[:1])
    return order


def points_yaml(start: Mapping[str, list[dict[str, Any]]], advice: Advice, descriptors: Descriptors) -> str:
    """A file for `mmsearch sweep --points`."""
    about = "Methods in the order in which to try them; below each the settings to try beside the paper's."
    return f"# {headline(advice, descriptors)}.\n# {about}\n" + yaml.safe_dump(dict(start), sort_keys=False)


def cost(e: Expected) -> str:
    """`1.5`; a dash where no case knows."""
    return UNKNOWN if e.cost is None else f"{e.cost:.1f}"
