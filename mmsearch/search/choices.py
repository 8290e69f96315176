"""What a search space says of a component: which knobs it fixes, which are searched and over what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmsearch.batch import KINDS, Modality
from mmsearch.data.document import Document
from mmsearch.encoders import ENCODERS
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import MODALITIES, Knob, Prior, knobs_of
from mmsearch.registry import Registry
from mmsearch.training import DEFAULTS, default_encoder

_RANGE = ("low", "high", "log", "prior")

Pick = Callable[[str, Knob], Any]
"""Chooses the value of a knob, given its full name such as `"ogm.alpha"`."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A component (method, fusion, encoder or optimiser) with the knobs that are searched.

    Attributes:
        knobs: all, in the order of declaration; overridden ranges filled in.
        fixed: knobs that the space sets to one value.
        structural: knobs whose every value gets a paper setting of its own: a choice of a modality, and a choice
            on which alone other knobs depend (such as `teacher`).
    """

    knobs: dict[str, Knob]
    fixed: dict[str, Any]
    structural: frozenset[str]

    def narrowed(self, fixed: Mapping[str, Any]) -> Choice:
        """The same with these knobs fixed."""
        return dataclasses.replace(self, fixed={**self.fixed, **fixed})

    def values(self, prefix: str, pick: Pick) -> dict[str, Any]:
        """A value for every knob that exists beside the others."""
        chosen: dict[str, Any] = {}
        for name, knob in self.knobs.items():
            if not knob.active(chosen):
                continue
            if name in self.fixed:
                chosen[name] = self.fixed[name]
            else:
                chosen[name] = pick(f"{prefix}.{name}", knob) if knob.search else knob.paper
        return chosen

    def paper(self) -> dict[str, Any]:
        """The values of the paper's setting."""
        return self.values("", lambda _, knob: knob.paper)

    def changes(self, document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The document with every value of every choice that is searched, one choice changed at a time."""
        for name, knob in self.knobs.items():
            if isinstance(knob.choices, tuple) and knob.search and name in document and name not in self.fixed:
                yield from ({**document, name: value} for value in knob.choices)


def picked(kind: str, among: Mapping[str, Choice], pick: Pick) -> dict[str, Any]:
    """The document of one of several components, chosen as `kind`, with its knobs."""
    name = _which(kind, among, pick)
    return {"name": name, **among[name].values(name, pick)}


def picked_encoder(modality: str, among: Mapping[str, Choice], pick: Pick) -> dict[str, Any]:
    """The document of a modality's encoder.

    Which one is chosen as `encoder.sound`, where there are several; a knob as `encoder.sound.spectrogram.n_mels`.
    """
    kind = f"encoder.{modality}"
    name = _which(kind, among, pick) if len(among) > 1 else next(iter(among))
    return {"name": name, **among[name].values(f"{kind}.{name}", pick)}


def first(among: Mapping[str, Choice]) -> dict[str, Any]:
    """The document of the first of several components at the paper's setting."""
    name, choice = next(iter(among.items()))
    return {"name": name, **choice.paper()}


def section(
    file: Document,
    section: str,
    registry: Registry[Any],
    modalities: tuple[str, ...],
    always: Mapping[str, Mapping[str, Any]],
) -> dict[str, Choice]:
    """What a section of a space names, by name; everything that is registered where the section is not there.

    Args:
        file: the space.
        section: its key, such as `methods`.
        registry: of its components.
        modalities: those of the dataset.
        always: components that are added where the section leaves them out, with the knobs that are then fixed.

    Raises:
        MMSearchError: file and line of an unknown name or a value out of range, with the nearest name.
    """
    given = file.data.get(section)
    if given is None:
        names = sorted(registry.names(), key=lambda n: n != DEFAULTS.get(section[:-1], {}).get("name"))
        given = {n: None for n in names}
    if not isinstance(given, dict) or not given:
        raise MMSearchError(f"{file.at(section)}: {section} must be one `name:` a line")
    chosen: dict[str, Choice] = {}
    for name, overrides in given.items():
        where = file.at(section, str(name))
        component = registry.get(str(name), where)
        if overrides is not None and not isinstance(overrides, dict):
            raise MMSearchError(f"{where}: write the knobs of {name} as `knob: value` lines below it")
        chosen[str(name)] = _choice(file, (section, str(name)), component, overrides or {}, modalities)
    for name, fixed in always.items():
        if name not in chosen:
            chosen[name] = _choice(file, (section,), registry.get(name), fixed, modalities)
    return chosen


def encoder_choices(file: Document, modalities: Mapping[str, Modality]) -> dict[str, dict[str, Choice]]:
    """The encoders that a space names for each modality, by name; the first of its kind where it names none.

    Raises:
        MMSearchError: file and line of an unknown name, an encoder of another kind or a value out of range, with the
            nearest name.
    """
    given = file.data.get("encoders") or {}
    if not isinstance(given, dict):
        raise MMSearchError(f"{file.at('encoders')}: encoders must be one `modality:` a line")
    known = [*modalities, *KINDS]
    named: dict[str, dict[str, Choice]] = {}
    for key, value in given.items():
        if key not in known:
            where = file.at("encoders", str(key))
            raise MMSearchError(f"{where}: {key!r} is neither a modality nor a kind{nearest(str(key), known)}")
        kind = modalities[key].kind if key in modalities else key
        named[key] = _encoders(file, key, value, kind, tuple(modalities))
    chosen: dict[str, dict[str, Choice]] = {}
    for u, m in modalities.items():
        key = u if u in named or m.kind in modalities else m.kind
        chosen[u] = named.get(key) or _encoders(file, u, default_encoder(m.kind)["name"], m.kind, tuple(modalities))
    return chosen


def _encoders(file: Document, key: str, value: Any, kind: str, modalities: tuple[str, ...]) -> dict[str, Choice]:
    entries = value if isinstance(value, list) else [value]
    chosen: dict[str, Choice] = {}
    for i, entry in enumerate(entries):
        keys = ("encoders", key, str(i)) if isinstance(value, list) else ("encoders", key)
        where = file.at(*keys)
        document = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(document, dict) or not isinstance(document.get("name"), str):
            one = f"`{key}: encoder` or `{key}: {{name: encoder, knob: value}}`"
            raise MMSearchError(f"{where}: write {one}, or a list of such encoders")
        name = document["name"]
        encoder = ENCODERS.get(name, where)
        if encoder.kind != kind:
            raise MMSearchError(f"{where}: encoder {name} reads {encoder.kind}, {key} is {kind}")
        if name in chosen:
            raise MMSearchError(f"{where}: encoder {name} is given twice; give one, with lists or ranges as its knobs")
        overrides = {k: v for k, v in document.items() if k != "name"}
        chosen[name] = _choice(file, keys, encoder, overrides, modalities)
        ENCODERS.create({"name": name, **chosen[name].paper()}, where)
    if not chosen:
        raise MMSearchError(f"{file.at('encoders', key)}: {key} has no encoders to choose from")
    return chosen


def _which(kind: str, among: Mapping[str, Choice], pick: Pick) -> str:
    return pick(kind, Knob(kind, next(iter(among)), f"which {kind.partition(':')[0]}", choices=tuple(among)))


def _choice(
    file: Document, keys: tuple[str, ...], component: type, overrides: Mapping[str, Any], modalities: tuple[str, ...]
) -> Choice:
    knobs = {
        n: dataclasses.replace(k, choices=modalities, paper=modalities[0]) if k.choices == MODALITIES else k
        for n, k in knobs_of(component).items()
    }
    declared = knobs_of(component).values()
    structural = {k.name for k in declared if k.choices == MODALITIES}
    structural |= {name for k in declared if len(k.when) == 1 for name in k.when if isinstance(knobs[name].paper, str)}
    fixed: dict[str, Any] = {}
    for name, value in overrides.items():
        where = file.at(*keys, str(name))
        if name not in knobs:
            raise MMSearchError(f"{where}: unknown knob {name!r}{nearest(str(name), knobs)}")
        knob = knobs[name]
        if isinstance(value, list):
            values = tuple(knob.check(v, where) for v in value)
            if not values:
                raise MMSearchError(f"{where}: {name} has no values to choose from")
            paper = knob.paper if knob.paper in values else values[0]
            knobs[name] = dataclasses.replace(knob, choices=values, paper=paper, search=True)
        elif isinstance(value, dict):
            knobs[name] = _ranged(file, (*keys, str(name)), knob, value)
        else:
            fixed[name] = knob.check(value, where)
    return Choice(knobs, fixed, frozenset(structural))


def _ranged(file: Document, keys: tuple[str, ...], knob: Knob, value: Mapping[str, Any]) -> Knob:
    where = file.at(*keys)
    if knob.choices is not None or isinstance(knob.paper, str):
        raise MMSearchError(f"{where}: {knob.name} has no range; give a value or a list of {knob.describe()}")
    for key in value:
        if key not in _RANGE:
            raise MMSearchError(f"{file.at(*keys, str(key))}: unknown key {key!r}{nearest(str(key), _RANGE)}")
    low, high = (knob.check(value.get(end, getattr(knob, end)), where) for end in ("low", "high"))
    log = value.get("log", knob.log)
    if not isinstance(log, bool):
        raise MMSearchError(f"{where}: log must be true or false, not {log!r}")
    if low >= high:
        raise MMSearchError(f"{where}: {knob.name} goes from {low!r} to {high!r}; low must be below high")
    if log and low <= 0:
        raise MMSearchError(f"{where}: {knob.name} starts at {low!r}; a logarithmic range starts above 0")
    paper = min(max(knob.paper, low), high)
    ranged = dataclasses.replace(knob, low=low, high=high, log=log, paper=paper, search=True, also=())
    prior = _prior(file, (*keys, "prior"), ranged, value["prior"]) if "prior" in value else None
    return dataclasses.replace(ranged, also=knob.also, prior=prior)


def _prior(file: Document, keys: tuple[str, ...], knob: Knob, value: Any) -> Prior:
    where = file.at(*keys)
    if not isinstance(value, dict) or set(value) != {"at", "spread"}:
        raise MMSearchError(f"{where}: write a prior as {{at: value, spread: share of the range}}")
    spread = value["spread"]
    if isinstance(spread, bool) or not isinstance(spread, int | float) or not 0 < spread <= 10:
        raise MMSearchError(f"{where}: the spread of a prior is a share of the range, above 0 to 10, not {spread!r}")
    return Prior(knob.check(value["at"], where), float(spread))
