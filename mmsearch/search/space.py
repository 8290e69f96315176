"""The search space: a YAML file that selects and overrides what the knobs declare."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from mmsearch.batch import KINDS, Modality
from mmsearch.data.document import Document
from mmsearch.encoders import ENCODERS
from mmsearch.errors import MMSearchError, nearest
from mmsearch.fusion import FUSIONS, OWN
from mmsearch.knobs import MODALITIES, Knob, knobs_of
from mmsearch.methods import METHODS, Method
from mmsearch.registry import Registry
from mmsearch.training import DEFAULTS, OPTIMIZERS, default_encoder, refusal, resolve, trial_id

BASELINES = ("joint", "unimodal", "unimodal_teacher")
"""The methods that every sweep runs, whatever its space lists; of the last at least the ensemble of teachers."""

ENSEMBLE = {"teacher": "ume"}
"""The knobs that make `unimodal_teacher` the ensemble of unimodal models, the third baseline."""

Pick = Callable[[str, Knob], Any]
"""Chooses the value of a knob, given its full name such as `"ogm.alpha"`."""

_SECTIONS: dict[str, Registry[Any]] = {"methods": METHODS, "fusions": FUSIONS, "optimizers": OPTIMIZERS}
_SETTINGS = ("epochs", "batch_size", "precision")


class Suggesting(Protocol):
    """The part of an Optuna trial that a space uses."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number."""
        ...

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""
        ...


@dataclasses.dataclass(frozen=True)
class Choice:
    """A component (method, fusion or optimiser) with the knobs that are searched.

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


@dataclasses.dataclass
class Space:
    """What a sweep may try on one dataset.

    Attributes:
        modalities: those of the dataset.
        data: the digest of the clips.
        seed: of every trial of the search.
        settings: `epochs`, `batch_size` and `precision` of every trial.
        encoders: per modality the encoder's document.
        methods, fusions, optimizers: what is searched, by name; the first optimiser is the recipe's.
    """

    modalities: dict[str, Modality]
    data: str
    seed: int
    settings: dict[str, Any]
    encoders: dict[str, dict[str, Any]]
    methods: dict[str, Choice]
    fusions: dict[str, Choice]
    optimizers: dict[str, Choice]

    @classmethod
    def load(cls, path: Path | str, modalities: Mapping[str, Modality], *, data: str, seed: int = 0) -> Space:
        """Reads a search-space YAML.

        A section that is left out takes everything that is registered, with the ranges that the knobs declare.

        Args:
            path: the file.
            modalities: those of the dataset, by name.
            data: the digest of the clips.
            seed: of every trial of the search.

        Raises:
            MMSearchError: file and line of an unknown name or a value out of range, with the nearest name.
        """
        file = Document(Path(path))
        file.check_keys([*_SECTIONS, "encoders", *_SETTINGS])
        chosen = {
            s: _section(file, s, registry, s == "methods", tuple(modalities)) for s, registry in _SECTIONS.items()
        }
        space = cls(
            modalities=dict(modalities),
            data=data,
            seed=seed,
            settings={s: file.data.get(s, DEFAULTS[s]) for s in _SETTINGS},
            encoders=_encoders(file, modalities),
            **chosen,
        ).checked(file.data.get("methods") or (), lambda m: file.at("methods", m))
        for s in _SETTINGS:
            try:
                resolve({"method": {"name": "joint"}, s: space.settings[s]}, modalities)
            except MMSearchError as e:
                raise MMSearchError(f"{file.at(s)}: {str(e).removeprefix('trial document: ')}") from None
        return space

    def checked(self, named: Collection[str], where: Callable[[str], str]) -> Space:
        """The space without the methods that go with none of its fusions on these modalities.

        Args:
            named: methods that somebody asked for by name.
            where: the place to name where one of these cannot be.

        Raises:
            MMSearchError: there is no fusion to train with, or one of `named` cannot be trained with any.
        """
        if not self._trained_fusions():
            raise MMSearchError("fusions: all of them combine what another one has trained; add one such as concat")
        reasons = {m: self._unusable(m) for m in self.methods}
        for m, reason in reasons.items():
            if reason and m in named:
                raise MMSearchError(f"{where(m)}: {reason}")
        return dataclasses.replace(self, methods={m: c for m, c in self.methods.items() if not reasons[m]})

    def _unusable(self, method: str) -> str:
        """Why a method cannot be trained at all; empty where it can."""
        choice = self.methods[method]
        instance = METHODS.create({"name": method, **choice.values(method, lambda _, knob: knob.paper)})
        fusions = [OWN] if instance.own_fusion else self._trained_fusions()
        reasons = [self._refusal(instance, f) for f in fusions]
        return "" if "" in reasons else reasons[0]

    def _trained_fusions(self) -> list[str]:
        return [f for f in self.fusions if not FUSIONS.get(f).post_hoc]

    def _refusal(self, method: Method, fusion: str) -> str:
        return refusal(method, {"name": fusion}, method.modalities(list(self.modalities)), self.encoders)

    def suggest(self, trial: Suggesting, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Lets an Optuna trial choose a document of a method.

        Returns:
            The resolved document and the flat parameters: `"ogm.alpha"`, `"fusion"`, `"gated.width"`,
            `"optimizer"`, `"sgd.lr"`, ….
        """
        params: dict[str, Any] = {}

        def pick(name: str, knob: Knob) -> Any:
            params[name] = _suggest(trial, name, knob)
            return params[name]

        return self._document(method, pick, self.seed, 0), params

    def paper_points(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the paper's setting, once with every fusion and every structural alternative.

        The first point is the paper's own with the first fusion.
        """
        return [params for params, _ in self._paper(method, {})]

    def paper_documents(self, method: str) -> list[dict[str, Any]]:
        """The documents of :meth:`paper_points`."""
        return [document for _, document in self._paper(method, {})]

    def _paper(self, method: str, preset: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        params: dict[str, Any] = {}
        open_choices: dict[str, list[Any]] = {}

        def pick(name: str, knob: Knob) -> Any:
            params[name] = preset.get(name, knob.paper)
            alternatives = {f"{method}.{k}" for k in self.methods[method].structural}
            structural = name in alternatives or name.partition(":")[0] == "fusion"
            if structural and name not in preset and isinstance(knob.choices, tuple):
                open_choices[name] = sorted(knob.choices, key=lambda c: c != knob.paper)
            return params[name]

        document = self._document(method, pick, self.seed, 0)
        if not open_choices:
            yield params, document
            return
        name, choices = next(iter(open_choices.items()))
        for choice in choices:
            yield from self._paper(method, {**preset, name: choice})

    def recipe(self) -> dict[str, Any]:
        """What every document has in common: settings, encoders, the paper's setting of the first optimiser.

        Where the space has post-hoc fusions, every training leaves out the clips they are fitted to.
        """
        name, choice = next(iter(self.optimizers.items()))
        optimizer = {"name": name, **choice.values(name, lambda _, knob: knob.paper)}
        recipe = {**self.settings, "encoders": self.encoders, "optimizer": optimizer, "data": self.data}
        return {**recipe, "held": bool(self._post_hoc())}

    def _post_hoc(self) -> list[dict[str, Any]]:
        """Every alternative of the post-hoc fusions, the rest of their knobs at the paper's setting."""
        documents = []
        for name, choice in self.fusions.items():
            if FUSIONS.get(name).post_hoc:
                texts = [k for n, k in choice.knobs.items() if isinstance(k.paper, str) and n not in choice.fixed]
                for values in itertools.product(*(k.choices or () for k in texts)):
                    fixed = dict(zip((k.name for k in texts), values, strict=True))
                    chosen = choice.narrowed(fixed).values(name, lambda _, knob: knob.paper)
                    documents.append({"name": name, **chosen})
        return documents

    def teacher(
        self, modality: str, *, seed: int | None = None, fold: int = 0, held: bool | None = None
    ) -> dict[str, Any]:
        """The resolved document of a modality's teacher: `unimodal` at the recipe.

        Args:
            modality: its name.
            seed: None for the search's.
            fold: of the splits.
            held: whether it leaves out the held clips, as the teacher of a method must that needs them; None: as
                the recipe says.
        """
        recipe = self.recipe()
        seed = self.seed if seed is None else seed
        document = {
            **recipe,
            "method": {"name": "unimodal", "modality": modality},
            "seed": seed,
            "fold": fold,
            "held": recipe["held"] if held is None else held,
        }
        return resolve(document, self.modalities)

    def teachers(self) -> list[dict[str, Any]]:
        """The teachers of the search, the recipe's own first; with held clips also where a method needs them."""
        documents = [(m, d) for m in self.methods for _, d in self._paper(m, {}) if d["teachers"]]
        held = {(d["held"] or h, u) for m, d in documents for h in self._may_hold(m, d) for u in d["teachers"]}
        wanted = sorted(held)
        recipe = self.recipe()["held"]
        asked = [(recipe, u) for u in self.modalities]
        return [self.teacher(u, held=h) for h, u in [*asked, *(w for w in wanted if w not in asked)]]

    def _may_hold(self, method: str, document: Mapping[str, Any]) -> set[bool]:
        """Whether a document needs held clips, and whether it may with another value of one of its choices."""
        choice, mine = self.methods[method], document["method"]
        changes = [
            {name: value}
            for name, knob in choice.knobs.items()
            if isinstance(knob.choices, tuple) and knob.search and name in mine and name not in choice.fixed
            for value in knob.choices
        ]
        return {METHODS.create({**mine, **change}).needs_held for change in [{}, *changes]}

    def moved(self, document: Mapping[str, Any], *, seed: int, fold: int) -> dict[str, Any]:
        """The same document under another seed and fold, and so with that seed's teachers."""
        held = document["held"]
        teachers = {u: trial_id(self.teacher(u, seed=seed, fold=fold, held=held)) for u in document["teachers"]}
        return resolve({**_writable(document), "seed": seed, "fold": fold, "teachers": teachers}, self.modalities)

    def needs_teachers(self, method: str) -> bool:
        """Whether a document of the method can need teachers."""
        return any(document["teachers"] for _, document in self._paper(method, {}))

    def earliest(self, method: str) -> float:
        """The share of training before which no trial of the method is judged."""
        return METHODS.get(method).earliest

    def _document(self, method: str, pick: Pick, seed: int, fold: int) -> dict[str, Any]:
        recipe = self.recipe()
        document = {"name": method, **self.methods[method].values(method, pick)}
        instance = METHODS.create(document)
        full = {**recipe, "method": document, "seed": seed, "fold": fold}
        if not instance.own_fusion:
            full["fusion"] = _picked(*self._fusions_for(instance), pick)
        if len(instance.modalities(list(self.modalities))) > 1:
            full["post_hoc"] = self._post_hoc()
        if _trains(instance):
            full["optimizer"] = _picked("optimizer", self.optimizers, pick)
        if instance.needs_teachers:
            used = instance.modalities(list(self.modalities))
            held = full["held"] or instance.needs_held
            full["teachers"] = {u: trial_id(self.teacher(u, seed=seed, fold=fold, held=held)) for u in used}
        return resolve(full, self.modalities)

    def _fusions_for(self, method: Method) -> tuple[str, dict[str, Choice]]:
        """The fusions that go with a method, and the name of the choice among them.

        A narrowed choice has a name of its own, since a sampler wants the same choices under the same name.
        """
        trained = self._trained_fusions()
        fit = {f: self.fusions[f] for f in trained if not self._refusal(method, f)}
        if not fit:
            raise MMSearchError(f"method {method.name}: no fusion of the space goes with it at these knobs")
        return ("fusion" if list(fit) == trained else f"fusion:{','.join(fit)}"), fit


def is_ensemble(document: Mapping[str, Any]) -> bool:
    """Whether a document is the ensemble of unimodal models, the third baseline."""
    method = document["method"]
    return method["name"] == "unimodal_teacher" and all(method.get(k) == v for k, v in ENSEMBLE.items())


def _trains(method: Method) -> bool:
    return any(stage.share > 0 for stage in method.stages())


def _writable(document: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved document as `resolve` takes it: without the fusion that a method brings."""
    return {k: v for k, v in document.items() if k != "fusion" or v["name"] != OWN}


def _picked(kind: str, among: dict[str, Choice], pick: Pick) -> dict[str, Any]:
    name = pick(kind, Knob(kind, next(iter(among)), f"which {kind.partition(':')[0]}", choices=tuple(among)))
    return {"name": name, **among[name].values(name, pick)}


def _suggest(trial: Suggesting, name: str, knob: Knob) -> Any:
    if knob.choices is not None:
        return trial.suggest_categorical(name, knob.choices)
    assert knob.low is not None and knob.high is not None
    if knob.integer:
        return trial.suggest_int(name, int(knob.low), int(knob.high), log=knob.log)
    return trial.suggest_float(name, knob.low, knob.high, log=knob.log)


def _section(
    file: Document, section: str, registry: Registry[Any], with_baselines: bool, modalities: tuple[str, ...]
) -> dict[str, Choice]:
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
    if with_baselines:
        for name in BASELINES:
            if name not in chosen:
                fixed = ENSEMBLE if name == "unimodal_teacher" else {}
                chosen[name] = _choice(file, (section,), registry.get(name), fixed, modalities)
    return chosen


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
        if key not in ("low", "high", "log"):
            raise MMSearchError(
                f"{file.at(*keys, str(key))}: unknown key {key!r}{nearest(key, ('low', 'high', 'log'))}"
            )
    low, high = (knob.check(value.get(end, getattr(knob, end)), where) for end in ("low", "high"))
    log = value.get("log", knob.log)
    if not isinstance(log, bool):
        raise MMSearchError(f"{where}: log must be true or false, not {log!r}")
    if low >= high:
        raise MMSearchError(f"{where}: {knob.name} goes from {low!r} to {high!r}; low must be below high")
    if log and low <= 0:
        raise MMSearchError(f"{where}: {knob.name} starts at {low!r}; a logarithmic range starts above 0")
    paper = min(max(knob.paper, low), high)
    return dataclasses.replace(knob, low=low, high=high, log=log, paper=paper, search=True)


def _encoders(file: Document, modalities: Mapping[str, Modality]) -> dict[str, dict[str, Any]]:
    given = file.data.get("encoders") or {}
    if not isinstance(given, dict):
        raise MMSearchError(f"{file.at('encoders')}: encoders must be one `modality:` a line")
    known = [*modalities, *KINDS]
    documents: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        where = file.at("encoders", str(key))
        if key not in known:
            raise MMSearchError(f"{where}: {key!r} is neither a modality nor a kind{nearest(str(key), known)}")
        documents[key] = {"name": value} if isinstance(value, str) else value
        if not isinstance(documents[key], dict):
            raise MMSearchError(f"{where}: write `{key}: encoder` or `{key}: {{name: encoder, knob: value}}`")
        encoder = ENCODERS.create(documents[key], where)
        kind = modalities[key].kind if key in modalities else key
        if encoder.kind != kind:
            raise MMSearchError(f"{where}: encoder {encoder.name} reads {encoder.kind}, {key} is {kind}")
    return {u: documents.get(u) or documents.get(m.kind) or default_encoder(m.kind) for u, m in modalities.items()}
