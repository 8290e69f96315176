"""Numbers as people read them: percent, points, intervals, durations, knobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN = "–"


def percent(value: float | None) -> str:
    """`95.7%`; a dash where there is none."""
    return UNKNOWN if value is None else f"{100 * value:.1f}%"


def points(value: float | None) -> str:
    """A difference of two accuracies: `+5.8`, `−0.4`, `0.0`."""
    if value is None:
        return UNKNOWN
    text = f"{100 * value:+.1f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def percent_interval(part: Mapping[str, Any] | None) -> str:
    """`95.7% (95.0 to 96.4)`, or `95.7% (one seed)`."""
    if not part or part.get("mean") is None:
        return UNKNOWN
    low, high = part["ci95"]
    if low is None:
        return f"{percent(part['mean'])} (one seed)"
    return f"{percent(part['mean'])} ({100 * low:.1f} to {100 * high:.1f})"


def points_interval(part: Mapping[str, Any] | None) -> str:
    """`+5.8 (+4.2 to +7.4)`, or `+5.8 (one seed)`."""
    if not part or part.get("mean") is None:
        return UNKNOWN
    low, high = part["ci95"]
    if low is None:
        return f"{points(part['mean'])} (one seed)"
    return f"{points(part['mean'])} ({points(low)} to {points(high)})"


def duration(seconds: float | None) -> str:
    """`12 s`, `4 min 10 s`, `3 h 05 min`, `2 d 4 h`."""
    if seconds is None:
        return UNKNOWN
    s = max(0, round(seconds))
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    if s < 86400:
        return f"{s // 3600} h {s % 3600 // 60:02d} min"
    return f"{s // 86400} d {s % 86400 // 3600} h"


def hours(value: float) -> str:
    """Device-hours, in three digits where there are few: `0.031`, `1.25`, `240`."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def joint_epochs(value: float | None) -> str:
    """A cost: `15.0`, `1240`."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def number(value: Any) -> str:
    """A knob's value, short: `0.05`, `1.3e-05`, `paper`."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def knobs(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A trial document as rows of dotted name and value, such as `("method.alpha", "0.3")`.

    What was only evaluated beside it (`post_hoc`) is not part of it.
    """
    rows: list[tuple[str, str]] = []
    for key, value in document.items():
        if key == "post_hoc":
            continue
        if isinstance(value, Mapping):
            rows += [(f"{key}.{name}", text) for name, text in knobs(value)]
        else:
            rows.append((str(key), number(value)))
    return rows


def objective(name: str, value: float) -> str:
    """An objective of a trial: `95.7%`, `15.0`, `1.21 M`."""
    if name == "cost":
        return joint_epochs(value)
    return f"{value / 1e6:.2f} M" if name == "size" else percent(value)


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def count(n: int, word: str, plural: str | None = None) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{n} {word if n == 1 else plural or word + 's'}"
