"""The search space: a YAML file that selects and overrides what the knobs declare."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from mmsearch.batch import Modality
from mmsearch.data.document import Document
from mmsearch.errors import MMSearchError, nearest
from mmsearch.fusion import FUSIONS, OWN
from mmsearch.knobs import Knob, Prior
from mmsearch.methods import METHODS, Method
from mmsearch.registry import Registry
from mmsearch.search.choices import Choice, Pick, encoder_choices, first, picked, picked_encoder, section
from mmsearch.training import DEFAULTS, OPTIMIZERS, needs_held, refusal, resolve, trial_id

BASELINES = ("joint", "unimodal", "unimodal_teacher")
"""The methods that every sweep runs, whatever its space lists; of the last at least the ensemble of teachers."""

ENSEMBLE = {"teacher": "ume"}
"""The knobs that make `unimodal_teacher` the ensemble of unimodal models, the third baseline."""

_SECTIONS: dict[str, Registry[Any]] = {"methods": METHODS, "fusions": FUSIONS, "optimizers": OPTIMIZERS}
_SETTINGS = ("epochs", "batch_size", "precision", "sampler")


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


@dataclasses.dataclass
class Space:
    """What a sweep may try on one dataset.

    The recipe is what teachers and every method's first trial have in common: the settings and the paper's setting of
    the first optimiser and of each modality's first encoder. A document that needs teachers keeps the recipe's
    encoders, since it copies the teachers' weights or compares features with theirs; every other one chooses its own.

    Attributes:
        modalities: those of the dataset.
        data: the digest of the clips.
        seed: of every trial of the search.
        settings: `epochs`, `batch_size`, `precision` and `sampler` of every trial.
        encoders: per modality the encoders, by name; the first is the recipe's.
        methods, fusions, optimizers: what is searched, by name; the first optimiser is the recipe's.
        lengths: planned epochs of the methods that have other ones than the settings say.
        left_out: the methods that cannot be trained on these modalities with these fusions, and why.
    """

    modalities: dict[str, Modality]
    data: str
    seed: int
    settings: dict[str, Any]
    encoders: dict[str, dict[str, Choice]]
    methods: dict[str, Choice]
    fusions: dict[str, Choice]
    optimizers: dict[str, Choice]
    lengths: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

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
        baselines = {m: ENSEMBLE if m == "unimodal_teacher" else {} for m in BASELINES}
        chosen = {
            s: section(file, s, registry, tuple(modalities), baselines if s == "methods" else {})
            for s, registry in _SECTIONS.items()
        }
        space = cls(
            modalities=dict(modalities),
            data=data,
            seed=seed,
            settings=_settings(file, modalities),
            encoders=encoder_choices(file, modalities),
            methods=chosen["methods"],
            fusions=chosen["fusions"],
            optimizers=chosen["optimizers"],
        )
        return space.checked(file.data.get("methods") or (), lambda m: file.at("methods", m))

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
        left_out = {**self.left_out, **{m: reason for m, reason in reasons.items() if reason}}
        fit = {m: c for m, c in self.methods.items() if m not in left_out}
        return dataclasses.replace(self, methods=fit, left_out=left_out)

    def _unusable(self, method: str) -> str:
        """Why a method cannot be trained at all; empty where it can."""
        choice = self.methods[method]
        instance = METHODS.create({"name": method, **choice.paper()})
        fusions = [OWN] if instance.own_fusion else self._trained_fusions()
        reasons = [self._refusal(instance, f) for f in fusions]
        return "" if "" in reasons else reasons[0]

    def refusals(self, method: str) -> dict[str, str]:
        """Of every fusion why the method is not tried with it; empty where it is. None of a method with its own."""
        instance = METHODS.create({"name": method, **self.methods[method].paper()})
        return {} if instance.own_fusion else {f: self._refusal(instance, f) for f in self._trained_fusions()}

    def _trained_fusions(self) -> list[str]:
        return [f for f in self.fusions if not FUSIONS.get(f).post_hoc]

    def _refusal(self, method: Method, fusion: str) -> str:
        """Why a method is not tried with a fusion: it cannot be trained with it under one of the encoders."""
        used = method.modalities(list(self.modalities))
        reasons = (refusal(method, {"name": fusion}, used, encoders) for encoders in self._architectures(used))
        return next((reason for reason in reasons if reason), "")

    def _architectures(self, modalities: Collection[str]) -> Iterator[dict[str, dict[str, Any]]]:
        """The recipe's encoders, and these with one modality's, or one choice of it, changed."""
        recipe = self._recipe_encoders()
        yield recipe
        for u in modalities:
            for name, choice in self.encoders[u].items():
                document = {"name": name, **choice.paper()}
                changed = [document, *choice.changes(document)]
                yield from ({**recipe, u: d} for d in changed if d != recipe[u])

    def _recipe_encoders(self) -> dict[str, dict[str, Any]]:
        return {u: first(among) for u, among in self.encoders.items()}

    def suggest(self, trial: Suggesting, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Lets an Optuna trial choose a document of a method.

        Returns:
            The resolved document and the flat parameters: `"ogm.alpha"`, `"fusion"`, `"gated.width"`,
            `"optimizer"`, `"sgd.lr"`, `"encoder.sound.spectrogram.n_mels"`, ….
        """
        params: dict[str, Any] = {}

        def pick(name: str, knob: Knob) -> Any:
            params[name] = _suggest(trial, name, knob)
            return params[name]

        return self._document(method, pick, self.seed, 0), params

    def blend(
        self, method: str, own: Mapping[str, Any], other: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A setting of a method with the encoders and the optimiser of another setting, as of :meth:`suggest`.

        Args:
            method: its name.
            own: parameters of a setting of the method; what they lack is at the paper's setting.
            other: parameters of a setting of any method; what the method does not choose is left out.
        """
        params: dict[str, Any] = {}

        def pick(name: str, knob: Knob) -> Any:
            shared = name.startswith(("optimizer", "encoder.")) or name.partition(".")[0] in self.optimizers
            params[name] = (other if shared else own).get(name, knob.paper)
            return params[name]

        return self._document(method, pick, self.seed, 0), params

    def holds(self, method: str, params: Mapping[str, Any]) -> bool:
        """Whether flat parameters, all that a setting of the method has, are one of the space."""
        try:
            return self.setting(method, params, lambda name: name)[1] == params
        except MMSearchError:
            return False

    def setting(
        self, method: str, values: Mapping[str, Any], where: Callable[[str], str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A setting of a method that somebody has chosen.

        Args:
            method: its name.
            values: flat parameters as of :meth:`suggest`; those that are left out are at the paper's setting.
            where: the place to name where one of them cannot be.

        Returns:
            As :meth:`suggest`.

        Raises:
            MMSearchError: an unknown parameter (with the nearest name), one that does not exist beside the others, or a
                value that the space does not have.
        """
        left = dict(values)
        params: dict[str, Any] = {}

        def pick(name: str, knob: Knob) -> Any:
            given = name if name in left else name.partition(":")[0]
            params[name] = _within(knob, left.pop(given), where(given)) if given in left else knob.paper
            return params[name]

        document = self._document(method, pick, self.seed, 0)
        for name in left:
            known = {*self.knobs(method), *(n.partition(":")[0] for n in params)}
            if name not in known:
                raise MMSearchError(f"{where(name)}: {method} has no parameter {name!r}{nearest(name, known)}")
            chosen = ", ".join(f"{n} {v}" for n, v in params.items() if isinstance(v, str))
            beside = f" beside {chosen}" if chosen else ""
            raise MMSearchError(f"{where(name)}: {name} does not exist{beside}{nearest(name, set(params))}")
        return document, params

    def params_of(self, document: Mapping[str, Any]) -> dict[str, Any] | None:
        """The flat parameters, as of :meth:`suggest`, under which the space gives a document; None where none do."""
        params: dict[str, Any] = {}

        def pick(name: str, knob: Knob) -> Any:
            params[name] = _within(knob, _read(document, name), name)
            return params[name]

        try:
            made = self._document(document["method"]["name"], pick, self.seed, 0)
        except (KeyError, MMSearchError):
            return None
        return params if trial_id(made) == trial_id(document) else None

    def knobs(self, method: str) -> dict[str, Knob]:
        """Every knob that some setting of a method has and that is searched, by its full name."""
        parts = {method: self.methods[method], **self.fusions, **self.optimizers}
        parts |= {f"encoder.{u}.{n}": c for u, among in self.encoders.items() for n, c in among.items()}
        return {
            f"{prefix}.{name}": knob
            for prefix, choice in parts.items()
            for name, knob in choice.knobs.items()
            if knob.search and name not in choice.fixed
        }

    def priors(self, method: str) -> dict[str, Prior]:
        """What the space expects of the knobs of a method, by full name."""
        return {name: knob.prior for name, knob in self.knobs(method).items() if knob.prior}

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
        """What a document has that chooses nothing else: settings, encoders and optimiser at the paper's setting.

        Where the space has post-hoc fusions, every training leaves out the clips they are fitted to.
        """
        chosen = {"encoders": self._recipe_encoders(), "optimizer": first(self.optimizers)}
        return {**self.settings, **chosen, "data": self.data, "held": bool(self._post_hoc())}

    def _post_hoc(self) -> list[dict[str, Any]]:
        """Every alternative of the post-hoc fusions, the rest of their knobs at the paper's setting."""
        documents = []
        for name, choice in self.fusions.items():
            if FUSIONS.get(name).post_hoc:
                texts = [k for n, k in choice.knobs.items() if isinstance(k.paper, str) and n not in choice.fixed]
                for values in itertools.product(*(k.choices or () for k in texts)):
                    fixed = dict(zip((k.name for k in texts), values, strict=True))
                    documents.append({"name": name, **choice.narrowed(fixed).paper()})
        return documents

    def teacher(
        self, modality: str, *, seed: int | None = None, fold: int | None = 0, held: bool | None = None
    ) -> dict[str, Any]:
        """The resolved document of a modality's teacher: `unimodal` at the recipe.

        Args:
            modality: its name.
            seed: None for the search's.
            fold: of the splits; None for the whole development part.
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
        mine = document["method"]
        return {METHODS.create(d).needs_held for d in [mine, *self.methods[method].changes(mine)]}

    def moved(self, document: Mapping[str, Any], *, seed: int, fold: int) -> dict[str, Any]:
        """The same document under another seed and fold, and so with that seed's teachers."""
        held = document["held"]
        teachers = {u: trial_id(self.teacher(u, seed=seed, fold=fold, held=held)) for u in document["teachers"]}
        return resolve({**_writable(document), "seed": seed, "fold": fold, "teachers": teachers}, self.modalities)

    def refit(self, document: Mapping[str, Any], *, until: int) -> dict[str, Any]:
        """The same document on the whole development part, under the space's own seed and with teachers like it.

        Nothing is held out but for a method or a fusion that needs it: post-hoc fusions only report and are left out.

        Args:
            document: resolved.
            until: the epoch after which the training ends.
        """
        held = needs_held({**document, "held": False, "post_hoc": []})
        change: dict[str, Any] = {
            "seed": self.seed,
            "fold": None,
            "held": held,
            "post_hoc": [],
            "until": until,
            "teachers": {u: trial_id(self.teacher(u, fold=None, held=held)) for u in document["teachers"]},
        }
        return resolve({**_writable(document), **change}, self.modalities)

    def needs_teachers(self, method: str) -> bool:
        """Whether a document of the method can need teachers."""
        return any(document["teachers"] for _, document in self._paper(method, {}))

    def epochs(self, method: str) -> int:
        """Planned epochs of the method's trials."""
        return self.lengths.get(method, self.settings["epochs"])

    def earliest(self, method: str) -> float:
        """The share of training before which no trial of the method is judged."""
        return METHODS.get(method).earliest

    def _document(self, method: str, pick: Pick, seed: int, fold: int) -> dict[str, Any]:
        recipe = self.recipe()
        document = {"name": method, **self.methods[method].values(method, pick)}
        instance = METHODS.create(document)
        used = instance.modalities(list(self.modalities))
        full = {**recipe, "method": document, "seed": seed, "fold": fold, "epochs": self.epochs(method)}
        if not instance.own_fusion:
            full["fusion"] = picked(*self._fusions_for(instance), pick)
        if len(used) > 1:
            full["post_hoc"] = self._post_hoc()
        if _trains(instance):
            full["optimizer"] = picked("optimizer", self.optimizers, pick)
        if instance.needs_teachers:
            held = full["held"] or instance.needs_held
            full["teachers"] = {u: trial_id(self.teacher(u, seed=seed, fold=fold, held=held)) for u in used}
        else:
            chosen = {u: picked_encoder(u, self.encoders[u], pick) for u in used}
            full["encoders"] = {**recipe["encoders"], **chosen}
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


def _read(document: Mapping[str, Any], name: str) -> Any:
    """What a document has for a parameter of the space.

    Raises:
        KeyError: it has no such component.
    """
    if name.startswith("encoder."):
        _, modality, *rest = name.split(".", 2)
        encoder = document["encoders"][modality]
        return encoder[rest[0].rpartition(".")[2]] if rest else encoder["name"]
    component, _, knob = name.rpartition(".")
    if not component:
        return document[name.partition(":")[0]]["name"]
    parts = {document[part]["name"]: document[part] for part in ("optimizer", "fusion", "method")}
    return parts[component][knob]


def _within(knob: Knob, value: Any, where: str) -> Any:
    """A value that the search can reach, cast to the knob's type."""
    value = knob.check(value, where)
    if knob.choices is not None:
        return value
    assert knob.low is not None and knob.high is not None
    if not knob.low <= value <= knob.high:
        raise MMSearchError(f"{where}: {knob.name} is {value!r}; the space searches {knob.describe()}")
    return value


def _suggest(trial: Suggesting, name: str, knob: Knob) -> Any:
    if knob.choices is not None:
        return trial.suggest_categorical(name, knob.choices)
    assert knob.low is not None and knob.high is not None
    if knob.integer:
        return trial.suggest_int(name, int(knob.low), int(knob.high), log=knob.log)
    return trial.suggest_float(name, knob.low, knob.high, log=knob.log)


def _settings(file: Document, modalities: Mapping[str, Modality]) -> dict[str, Any]:
    """The settings of every trial.

    Raises:
        MMSearchError: file and line of a value that a document cannot have.
    """
    settings = {s: file.data.get(s, DEFAULTS[s]) for s in _SETTINGS}
    for s, value in settings.items():
        if isinstance(value, list):
            raise MMSearchError(f"{file.at(s)}: {s} is the same in every trial; give one value, not a list")
        try:
            resolve({"method": {"name": "joint"}, s: value}, modalities)
        except MMSearchError as e:
            raise MMSearchError(f"{file.at(s)}: {str(e).removeprefix('trial document: ')}") from None
    return settings
