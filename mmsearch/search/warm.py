"""A warm start: settings that somebody wants tried, and what another sweep has found out."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch.data.document import Document
from mmsearch.errors import MMSearchError, nearest
from mmsearch.files import write_text
from mmsearch.search.journal import read_events
from mmsearch.search.run_folder import viewed
from mmsearch.search.space import Space
from mmsearch.search.trials import TrialRecord, records

POINTS, KNOWN = "points.yaml", "known.jsonl"
"""Where a run's folder keeps them."""


@dataclasses.dataclass(frozen=True)
class KnownTrial:
    """A trial of another sweep that ran to its end or was stopped.

    Attributes:
        trial_id, method, params, state, score, curve: as of a :class:`~mmsearch.search.trials.TrialRecord`.
    """

    trial_id: str
    method: str
    params: dict[str, Any]
    state: str
    score: float
    curve: list[tuple[int, float]]

    @classmethod
    def of(cls, record: TrialRecord) -> KnownTrial:
        """What a record says."""
        return cls(**{f.name: getattr(record, f.name) for f in dataclasses.fields(cls)})

    @classmethod
    def from_line(cls, line: str) -> KnownTrial:
        """From a line of :data:`KNOWN`."""
        values = json.loads(line)
        return cls(**{**values, "curve": [(epoch, score) for epoch, score in values["curve"]]})


@dataclasses.dataclass(frozen=True)
class Start:
    """What a search starts from beside the papers' settings.

    Attributes:
        points: per method the flat parameters that are tried after its first paper setting; the methods named here are
            tried first, in this order.
        known: per method the trials of another sweep whose parameters this space has.
    """

    points: Mapping[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    known: Mapping[str, list[KnownTrial]] = dataclasses.field(default_factory=dict)

    @classmethod
    def load(cls, space: Space, points: Path | str | None, run: Path | str | None) -> Start:
        """A file of points and another sweep's folder or address.

        Raises:
            MMSearchError: file and line of a point that the space does not have; a sweep of which nothing fits.
        """
        return cls(read_points(Path(points), space) if points else {}, read_known(run, space) if run else {})

    @classmethod
    def kept(cls, space: Space, out: Path) -> Start:
        """What the folder of a run keeps, without what the space of an extended run no longer has."""
        points, known = out / POINTS, out / KNOWN
        return cls(
            read_points(points, space, strict=False) if points.is_file() else {},
            _fitting(_finished(known), space) if known.is_file() else {},
        )


def keep(out: Path, points: Path | str | None, run: Path | str | None) -> None:
    """Copies what a warm start reads into a run's folder."""
    if points is not None:
        shutil.copyfile(points, out / POINTS)
    if run is not None:
        lines = (json.dumps(dataclasses.asdict(trial)) + "\n" for trial in _finished(run))
        write_text(out / KNOWN, "".join(lines))


def read_points(path: Path, space: Space, *, strict: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Per method the settings that a YAML file lists (or none), each with the paper's value for what it leaves out.

    A setting is a mapping of parameters, flat (`sgd.lr: 0.1`) or nested (`sgd: {lr: 0.1}`); a knob of the method itself
    needs no prefix.

    Args:
        path: the file.
        space: what may be tried.
        strict: whether a setting that the space does not have is a mistake; else it is left out.

    Raises:
        MMSearchError: file and line of what the space does not have, with the nearest name.
    """
    file = Document(path)
    points: dict[str, list[dict[str, Any]]] = {}
    for method, settings in file.data.items():
        if not isinstance(settings, list):
            raise MMSearchError(f"{file.at(str(method))}: write the settings of {method} as a list")
        if method not in space.methods:
            if strict:
                hint = nearest(str(method), space.methods)
                raise MMSearchError(f"{file.at(str(method))}: the space has no method {method!r}{hint}")
            continue
        points[method] = []
        for number, setting in enumerate(settings):
            try:
                point = _point(file, space, method, number, setting)
                points[method].append(point)
            except MMSearchError:
                if strict:
                    raise
    return points


def _point(file: Document, space: Space, method: str, number: int, setting: Any) -> dict[str, Any]:
    if not isinstance(setting, dict):
        raise MMSearchError(f"{file.at(method, str(number))}: write a setting as `parameter: value` lines")
    own = space.methods[method].knobs
    places: dict[str, tuple[str, ...]] = {}
    values: dict[str, Any] = {}
    for keys, value in _flat(setting):
        name = ".".join(keys)
        name = f"{method}.{name}" if name in own else name
        places[name] = keys
        values[name] = value
    return space.setting(method, values, lambda name: file.at(method, str(number), *places[name]))[1]


def _flat(setting: Mapping[Any, Any], *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in setting.items():
        if isinstance(value, dict):
            yield from _flat(value, *above, str(key))
        else:
            yield (*above, str(key)), value


def read_known(run: Path | str, space: Space) -> dict[str, list[KnownTrial]]:
    """Per method of the space the finished trials of another sweep's search whose parameters the space has.

    Raises:
        MMSearchError: there is no sweep, or none of its trials fits.
    """
    found = _finished(run)
    known = _fitting(found, space)
    if not known:
        raise MMSearchError(f"{run}: none of its {len(found)} finished trials fits the methods and ranges of the space")
    return known


def _fitting(trials: list[KnownTrial], space: Space) -> dict[str, list[KnownTrial]]:
    known: dict[str, list[KnownTrial]] = {}
    for trial in trials:
        if trial.method in space.methods and space.holds(trial.method, trial.params):
            known.setdefault(trial.method, []).append(trial)
    return known


def _finished(run: Path | str) -> list[KnownTrial]:
    """Those of a run's folder or address, or of the file that :func:`keep` has made of it."""
    if (kept := Path(run)).is_file():
        return [KnownTrial.from_line(line) for line in kept.read_text().splitlines()]
    found = records(read_events(viewed(run))).values()
    return [KnownTrial.of(r) for r in found if r.searched and r.state in ("complete", "pruned") and r.score is not None]
