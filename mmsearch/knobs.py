"""Knobs: the one declaration from which space, validation, warm start and documentation come.

A method, fusion, encoder or optimiser is a dataclass whose searchable fields are made with
:func:`knob`. Times (windows, periods, warm-ups) are fractions of the planned training, never epochs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from mmsearch.errors import MMSearchError, nearest

MODALITIES = "modalities"
"""As `choices=MODALITIES`: the knob picks one of the dataset's modalities."""


@dataclasses.dataclass(frozen=True)
class Prior:
    """Where a search expects the best value of a number.

    Attributes:
        at: the likeliest value.
        spread: standard deviation, as a share of the range (of its logarithm, where the scale is logarithmic).
    """

    at: float
    spread: float


@dataclasses.dataclass(frozen=True)
class Knob:
    """One searchable field.

    Attributes:
        name: the field's name.
        paper: the setting of the source; the first trial of a sweep uses it.
        help: one line of what it does.
        low, high: inclusive range of a number.
        log: sample on a logarithmic scale.
        choices: the values of a categorical, or :data:`MODALITIES`.
        when: the knob exists only where these other knobs have these values (a tuple: one of them).
        search: False for a field that a document may set but no search varies unless a space says so.
        also: values outside the range that a document may have, such as the 0 of a no-op.
        prior: what a search space expects; None: nothing.
    """

    name: str
    paper: Any
    help: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | str | None = None
    when: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    search: bool = True
    also: tuple[Any, ...] = ()
    prior: Prior | None = None

    @property
    def integer(self) -> bool:
        """Whether the knob takes whole numbers only."""
        return self.choices is None and isinstance(self.paper, int) and not isinstance(self.paper, bool)

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether the knob exists beside these values of the other knobs."""
        return all(values.get(k) in (v if isinstance(v, tuple) else (v,)) for k, v in self.when.items())

    def check(self, value: Any, where: str) -> Any:
        """The value, cast to the knob's type.

        Raises:
            MMSearchError: wrong type, out of range, or not among the choices; names `where`.
        """
        if self.choices == MODALITIES:
            if not isinstance(value, str):
                raise MMSearchError(f"{where}: {self.name} must be the name of a modality, not {value!r}")
            return value
        if self.choices is not None:
            if value not in self.choices or isinstance(value, bool) != isinstance(self.paper, bool):
                raise MMSearchError(f"{where}: {self.name} is {value!r}{nearest(str(value), map(str, self.choices))}")
            return value
        if isinstance(self.paper, str):
            if not isinstance(value, str):
                raise MMSearchError(f"{where}: {self.name} must be a text, not {value!r}")
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MMSearchError(f"{where}: {self.name} must be a number, not {value!r}")
        if self.integer and value != int(value):
            raise MMSearchError(f"{where}: {self.name} must be a whole number, not {value!r}")
        if value not in self.also and not (math.isfinite(value) and self._low <= value <= self._high):
            raise MMSearchError(f"{where}: {self.name} is {value!r}; allowed: {self._low:g} to {self._high:g}")
        return int(value) if self.integer else float(value)

    @property
    def _low(self) -> float:
        return -math.inf if self.low is None else self.low

    @property
    def _high(self) -> float:
        return math.inf if self.high is None else self.high

    def describe(self) -> str:
        """The range in words, as in `0.05 to 3 (log)`."""
        if self.choices == MODALITIES:
            return "a modality"
        if self.choices is not None:
            return " | ".join(str(c) for c in self.choices)
        if isinstance(self.paper, str):
            return "text"
        return f"{self._low:g} to {self._high:g}" + (" (log)" if self.log else "")


def knob(
    paper: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    choices: tuple[Any, ...] | str | None = None,
    when: Mapping[str, Any] | None = None,
    search: bool = True,
    also: tuple[Any, ...] = (),
) -> Any:
    """A dataclass field that the search may turn; the arguments are those of :class:`Knob`."""
    if isinstance(paper, bool):
        choices = (False, True)
    elif choices is None and (low is None or high is None) and not (isinstance(paper, str) and not search):
        raise TypeError(f"a knob needs a range or choices, or search=False for a text (paper value {paper!r})")
    spec = Knob("", paper, help, low, high, log, choices, dict(when or {}), search, also)
    return dataclasses.field(default=paper, metadata={"knob": spec})


def knobs_of(component: Any) -> dict[str, Knob]:
    """The knobs of a component class or instance, by name, in the order of declaration."""
    return dict(_declared(component if isinstance(component, type) else type(component)))


@functools.cache
def _declared(component: type) -> dict[str, Knob]:
    return {
        f.name: dataclasses.replace(f.metadata["knob"], name=f.name)
        for f in dataclasses.fields(component)
        if "knob" in f.metadata
    }


def check_knobs(component: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values, each cast and within its range.

    Raises:
        MMSearchError: an unknown knob (with the nearest name) or a value out of range.
    """
    known = knobs_of(component)
    for name in values:
        if name not in known:
            raise MMSearchError(f"{where}: unknown knob {name!r}{nearest(name, known)}")
    return {name: known[name].check(value, where) for name, value in values.items()}
