"""Quality dials: what is made worse of a dataset's clips, by how much and in which of them.

A dataset YAML has them in its section `quality:`, a program as a :class:`Quality`. What happens to a clip is a function
of the seed, the clip's id and the dials, never of an epoch, an order, a batch or a trial: every trial sees the same
clips. Which clips are dropped, and whose input stands in for a clip's own, hangs on the other clips too, as little as
can be. What was done to each clip is kept as the truth that methods can be judged against.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mmsearch.data import _corrupt
from mmsearch.errors import MMSearchError, nearest
from mmsearch.knobs import check_knobs, knob, knobs_of

if TYPE_CHECKING:
    from mmsearch.batch import Modality
    from mmsearch.data._gather import Source
    from mmsearch.data.dataset import ModalityConfig
    from mmsearch.data.document import Document

VERSION = 1
"""To be raised whenever the same dials give other clips; part of :meth:`Quality.identity`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """Wrong labels, in the development part only.

    Raises:
        MMSearchError: a dial out of range.
    """

    noise: float = knob(0.0, "share of the development clips that get the label of another class", low=0.0, high=1.0)
    kind: str = knob(
        "symmetric", "the label of any other class, or (pair) always of the next one", choices=("symmetric", "pair")
    )

    def __post_init__(self) -> None:
        _check(self, "quality: labels")

    def apply(self, label: np.ndarray, classes: int, hit: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The noisy labels, int64 `[N]`.

        Args:
            label: int64 `[N]`.
            classes: how many.
            hit, other: random numbers in [0, 1) that say whether and to which class, `[N]`.
        """
        steps = 1 if self.kind == "pair" else 1 + (other * (classes - 1)).astype(np.int64)
        return np.where(hit < self.noise, (label + steps) % classes, label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dials:
    """The dials that a modality of every kind has; those of :data:`DIALS` add the level of their own kind.

    Attributes:
        missing_classes: names of the classes that `missing` is about; empty: all of them.

    Raises:
        MMSearchError: a dial out of range.
    """

    missing: float = knob(0.0, "share of the clips that lose the modality; 1: all", low=0.0, high=1.0)
    missing_classes: tuple[str, ...] = ()
    spread: float = knob(
        0.0, "the level varies from clip to clip, uniformly by up to so much either way", low=0.0, high=60.0
    )

    kinds: ClassVar[tuple[str, ...]]
    level: ClassVar[str]
    """The dial that says how bad; its default is a clean clip."""

    def __post_init__(self) -> None:
        _check(self, "quality")
        object.__setattr__(self, "missing_classes", tuple(self.missing_classes))
        if self.spread and math.isinf(getattr(self, self.level)):
            raise MMSearchError(f"quality: spread varies {self.level}, which is not given")

    def levels(self, chance: np.ndarray) -> np.ndarray:
        """How bad every clip is, float64 `[N]`; NaN: clean.

        Args:
            chance: random numbers in [0, 1), `[N]`.
        """
        dial, middle = knobs_of(self)[self.level], getattr(self, self.level)
        if math.isinf(middle):
            return np.full(len(chance), np.nan)
        levels = np.clip(middle + self.spread * (2 * chance - 1), dial.low, dial.high)
        return np.where(levels == dial.paper, np.nan, levels)

    def delays(self, chance: np.ndarray) -> np.ndarray:
        """How late every clip is in seconds, float64 `[N]`; NaN: not shifted."""
        return np.full(len(chance), np.nan)

    def corrupt(self, array: np.ndarray, level: float, key: np.ndarray, frames: Iterable[int]) -> np.ndarray:
        """The array of one clip at a level, of the same type.

        Args:
            array: as stored, or some entries of its first axis.
            level: of :meth:`levels`.
            key: uint64 `[2]`, the clip's own.
            frames: the place in the clip of every entry.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundDials(Dials):
    """Noise on a sound, and a shift in time."""

    snr_db: float = knob(
        math.inf,
        "sound over noise, dB, both over the whole clip; .inf: no noise",
        low=-60.0,
        high=60.0,
        also=(math.inf,),
    )
    noise: str = knob("white", "spectrum of the noise; pink falls with 1/f", choices=("white", "pink"))
    desync: float = knob(
        0.0, "the sound is late or early by up to so many seconds; its end goes to the beginning", low=0.0, high=3600.0
    )

    kinds = ("sound",)
    level = "snr_db"

    def delays(self, chance: np.ndarray) -> np.ndarray:
        """Uniform between `desync` early and late."""
        return self.desync * (2 * chance - 1) if self.desync else super().delays(chance)

    def corrupt(self, array: np.ndarray, level: float, key: np.ndarray, frames: Iterable[int]) -> np.ndarray:
        """With noise."""
        return _corrupt.noisy_sound(array, level, key, self.noise == "pink")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureDials(Dials):
    """Blur and noise on pictures."""

    severity: float = knob(0.0, "blur and noise of every frame, in the levels of ImageNet-C", low=0.0, high=5.0)
    spread: float = knob(0.0, "severity varies from clip to clip, by up to so much either way", low=0.0, high=5.0)

    kinds = ("frames", "image", "flow")
    level = "severity"

    def corrupt(self, array: np.ndarray, level: float, key: np.ndarray, frames: Iterable[int]) -> np.ndarray:
        """Blurred and with noise, another one for every frame."""
        return _corrupt.noisy_pictures(array, level, key, frames)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureDials(Dials):
    """Noise on the numbers of a vector or a series."""

    snr_db: float = knob(
        math.inf,
        "feature over noise, dB, over the clip's time (a vector: over its values); .inf: no noise",
        low=-60.0,
        high=60.0,
        also=(math.inf,),
    )

    kinds = ("vector", "series")
    level = "snr_db"

    def corrupt(self, array: np.ndarray, level: float, key: np.ndarray, frames: Iterable[int]) -> np.ndarray:
        """With noise."""
        return _corrupt.noisy_features(array, level, key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDials(Dials):
    """Words lost from a text."""

    dropped: float = knob(0.0, "share of the words that is lost; one stays", low=0.0, high=1.0)
    spread: float = knob(0.0, "dropped varies from clip to clip, by up to so much either way", low=0.0, high=1.0)

    kinds = ("text",)
    level = "dropped"

    def corrupt(self, array: np.ndarray, level: float, key: np.ndarray, frames: Iterable[int]) -> np.ndarray:
        """Without the words."""
        return _corrupt.fewer_words(array, level, key)


DIALS: dict[str, type[Dials]] = {
    kind: dials for dials in (SoundDials, PictureDials, FeatureDials, TextDials) for kind in dials.kinds
}
"""The dials of every kind of modality."""


@dataclasses.dataclass(frozen=True)
class Applied:
    """What :meth:`Quality.apply` makes of a dataset; everything is per kept clip, K of them.

    Attributes:
        sources: per modality, indexed by kept clip.
        rows: int64 `[K]`, ascending, which clips were kept.
        label: int64 `[K]`, with its noise.
        truth: per kept clip what was done to it. `label` int64, the true label; `mismatched` bool, and
            `<modality>/mismatched` for the input that belongs to another clip; for a modality with dials
            `<modality>/missing` bool (lost by the dial), the level float64 under its dial's name as in
            `sound/snr_db`, `frames/severity` or `text/dropped`, and for sound `<modality>/desync` in seconds (late is
            positive): NaN where nothing was done.
    """

    sources: dict[str, Source]
    rows: np.ndarray
    label: np.ndarray
    truth: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """The quality dials of a dataset.

    `on` says whose inputs are touched (`modalities` and `mismatch`). Whatever it says, labels are wrong and clips are
    dropped (`fraction` and `imbalance`) in the development part alone: the test part keeps its clips and its labels.
    An input never crosses between development and test; a mismatched clip of train may hold that of a clip of val,
    since the folds are cut later.

    Attributes:
        labels: wrong labels.
        modalities: dials by modality, of the class that :data:`DIALS` has for its kind.

    Raises:
        MMSearchError: a dial out of range.
    """

    seed: int = knob(0, "another seed, other clips, labels and noise", low=0, high=2**63 - 1)
    on: str = knob("both", "whose inputs: of the development part, of test, or both", choices=("train", "test", "both"))
    fraction: float = knob(1.0, "share of the development clips that is kept, by class", low=0.001, high=1.0)
    imbalance: float = knob(
        1.0, "largest class over smallest in development, exponential from class to class", low=1.0, high=1000.0
    )
    mismatch: float = knob(
        0.0, "share of the clips that get one modality from a clip of another class", low=0.0, high=1.0
    )
    modality: str = knob("", "the modality that `mismatch` exchanges; empty: drawn for every clip", search=False)
    labels: LabelNoise = dataclasses.field(default_factory=LabelNoise)
    modalities: Mapping[str, Dials] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self, "quality")
        object.__setattr__(self, "modalities", dict(self.modalities))

    @classmethod
    def parse(
        cls, document: Document, modalities: Mapping[str, ModalityConfig], classes: Sequence[str] | None = None
    ) -> Quality | None:
        """The section `quality:` of a dataset YAML; None where it has none.

        Args:
            document: the YAML file.
            modalities: those of the dataset, for their kinds.
            classes: names, where they are known already; :meth:`apply` checks them in any case.

        Raises:
            MMSearchError: an unknown key, modality or class, or a value out of range; names file and line.
        """
        if "quality" not in document.data:
            return None
        values = _section(document, cls, "quality")
        if "labels" in values:
            values["labels"] = LabelNoise(**_section(document, LabelNoise, "quality", "labels"))
        if "modalities" in values:
            values["modalities"] = {
                name: _dials(document, name, modalities, classes)
                for name in _mapping(document, "quality", "modalities")
            }
        if values.get("modality"):
            _known(values["modality"], modalities, document.at("quality", "modality"))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; what stands at its default is left out."""
        document = _turned(self)
        if "labels" in document:
            document["labels"] = _turned(self.labels)
        if "modalities" in document:
            document["modalities"] = {
                name: {"kind": dials.kinds[0], **_turned(dials)} for name, dials in self.modalities.items()
            }
        return document

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Quality:
        """The inverse of :meth:`to_dict`.

        Raises:
            MMSearchError: a value out of range.
        """
        values = dict(d)
        if "labels" in values:
            values["labels"] = LabelNoise(**values["labels"])
        values["modalities"] = {
            name: DIALS[dials["kind"]](**{k: v for k, v in dials.items() if k != "kind"})
            for name, dials in values.get("modalities", {}).items()
        }
        return cls(**values)

    def identity(self) -> str:
        """A text that is the same for the same corruption, for the digest of the data."""
        return json.dumps({"version": VERSION, **self.to_dict()}, sort_keys=True, separators=(",", ":"))

    def apply(
        self,
        sources: Mapping[str, Source],
        modalities: Mapping[str, Modality],
        label: np.ndarray,
        test: np.ndarray,
        clip_ids: Sequence[str],
        classes: Sequence[str],
    ) -> Applied:
        """The dataset at this quality; reads no clip, whose noise is made when it is read.

        Args:
            sources: per modality.
            modalities: of every source.
            label: int64 `[N]`.
            test: bool `[N]`, the test part.
            clip_ids: `[N]`, what everything random hangs on.
            classes: names, in the order of the labels.

        Raises:
            MMSearchError: dials of a modality or a class that is not there, or of another kind.
        """
        self._check_names(modalities, classes)
        label, test = np.asarray(label, np.int64), np.asarray(test, bool)
        draws = _Draws.of(self.seed, "clip", clip_ids)
        rows = np.flatnonzero(test | self._kept(label, ~test, draws.uniform(_KEEP)))
        draws, label, test = draws[rows], label[rows], test[rows]
        own = {name: _Draws.of(self.seed, f"modality {name}", [clip_ids[i] for i in rows.tolist()]) for name in sources}
        touched = {"train": ~test, "test": test, "both": np.ones(len(rows), bool)}[self.on]
        there = {name: np.asarray(source.present, bool)[rows] for name, source in sources.items()}
        present = self._left(there, own, label, touched, classes)
        taken = self._exchanged(present, label, test, touched, draws)
        truth = {"label": label, "mismatched": np.zeros(len(rows), bool)}
        worse: dict[str, Source] = {}
        for name, source in sources.items():
            moved = taken[name] != np.arange(len(rows))
            truth["mismatched"] |= moved
            truth[f"{name}/mismatched"] = moved
            worse[name] = clips = _Clips(source, rows[taken[name]], present[name])
            if name in self.modalities:
                dials, reached = self.modalities[name], touched & present[name]
                level = np.where(reached, dials.levels(own[name].uniform(_LEVEL)), np.nan)
                late = np.where(reached, dials.delays(own[name].uniform(_LATE)), np.nan)
                worse[name] = _WorseClips(clips, dials, level, late * modalities[name].rate, own[name].bits[:, _KEY])
                truth[f"{name}/missing"] = there[name] & ~present[name]
                truth[f"{name}/{dials.level}"] = level
                if isinstance(dials, SoundDials):
                    truth[f"{name}/desync"] = late
        noisy = self.labels.apply(label, len(classes), draws.uniform(_FLIP), draws.uniform(_FLIP_TO))
        return Applied(worse, rows, np.where(test, label, noisy), truth)

    def _check_names(self, modalities: Mapping[str, Modality], classes: Sequence[str]) -> None:
        for name in [*self.modalities, *([self.modality] if self.modality else [])]:
            _known(name, modalities, "quality")
        for name, dials in self.modalities.items():
            kind = modalities[name].kind
            if kind not in dials.kinds:
                raise MMSearchError(f"quality: {name} is of kind {kind}, which needs {DIALS[kind].__name__}")
            for unknown in [c for c in dials.missing_classes if c not in classes]:
                raise MMSearchError(f"quality: {name}: unknown class {unknown!r}{nearest(unknown, classes)}")

    def _kept(self, label: np.ndarray, development: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """Development clips that stay, bool `[N]`: of every class the first of a shuffle, one at least.

        The largest class keeps its size and each next one, by size, is smaller by the same factor down to 1 in
        `imbalance` (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", 2019); a class that is
        smaller already keeps its clips.
        """
        sizes = np.bincount(label[development], minlength=int(label.max()) + 1)
        place = np.argsort(np.argsort(-sizes, kind="stable"), kind="stable")
        most = sizes.max() * self.imbalance ** (-place / max(1, len(sizes) - 1))
        wanted = np.maximum(1, np.rint(self.fraction * np.minimum(sizes, most)))
        order = np.lexsort((chance, label, ~development))[: development.sum()]
        rank = np.arange(len(order)) - np.searchsorted(label[order], label[order])
        kept = np.zeros(len(label), bool)
        kept[order] = rank < wanted[label[order]]
        return kept

    def _left(
        self,
        there: Mapping[str, np.ndarray],
        draws: Mapping[str, _Draws],
        label: np.ndarray,
        touched: np.ndarray,
        classes: Sequence[str],
    ) -> dict[str, np.ndarray]:
        """Which modalities are left, bool `[K]` each.

        Where a clip of several would lose them all, that of the smallest share stays, by lot among equals.
        """
        share = np.zeros((len(there), len(label)))
        for row, name in zip(share, there, strict=True):
            if name in self.modalities:
                dials = self.modalities[name]
                hit = np.isin(label, [classes.index(c) for c in dials.missing_classes]) | (not dials.missing_classes)
                row[touched & hit] = dials.missing
        present = np.stack(list(there.values()))
        left = present & (np.stack([draws[name].uniform(_MISSING) for name in there]) >= share)
        lot = np.stack([draws[name].uniform(_STAY) for name in there])
        stays = np.lexsort((lot, np.where(present, share, np.inf)), axis=0)[0]
        bare = np.flatnonzero((present.sum(0) > 1) & ~left.any(0))
        left[stays[bare], bare] = True
        return dict(zip(there, left, strict=True))

    def _exchanged(
        self,
        present: Mapping[str, np.ndarray],
        label: np.ndarray,
        test: np.ndarray,
        touched: np.ndarray,
        draws: _Draws,
    ) -> dict[str, np.ndarray]:
        """Per modality the clip whose input every clip gets, int64 `[K]`: its own, except where they mismatch.

        The other one is of another class and of the same part, and the clip has a second modality to mismatch with.
        All clips lie on a circle; a clip takes the next of another class after a point of its own, so that a clip more
        or less changes the partner of few others.
        """
        table = np.stack(list(present.values()))
        several = np.flatnonzero(touched & (draws.uniform(_EXCHANGE) < self.mismatch) & (table.sum(0) > 1))
        chosen = (draws.uniform(_WHICH)[several] * table[:, several].sum(0)).astype(np.int64)
        circle, point = draws.uniform(_CIRCLE), draws.uniform(_POINT)
        round_trip = np.argsort(circle, kind="stable")
        taken = {}
        for name, has in present.items():
            taken[name] = np.arange(len(label))
            if self.modality:
                mine = several[has[several] & (self.modality == name)]
            else:
                before = table[: list(present).index(name), several].sum(0)
                mine = several[has[several] & (before == chosen)]
            have = round_trip[has[round_trip]]
            for part, own in {(bool(test[i]), int(label[i])) for i in mine}:
                others = have[(test[have] == part) & (label[have] != own)]
                here = mine[(test[mine] == part) & (label[mine] == own)]
                if len(others):
                    taken[name][here] = others[np.searchsorted(circle[others], point[here]) % len(others)]
        return taken


class _Clips:
    """One modality of the kept clips.

    Attributes:
        present: bool `[K]`.
    """

    def __init__(self, source: Source, rows: np.ndarray, present: np.ndarray) -> None:
        self.present = present
        self._source = source
        self._rows = rows

    def read(self, i: int) -> np.ndarray:
        return self._source.read(self._rows[i])

    def take(self, i: int, picks: np.ndarray) -> np.ndarray:
        return self._source.take(self._rows[i], picks)

    def warm(self) -> None:
        if hasattr(self._source, "warm"):
            self._source.warm()


class _WorseClips:
    """One modality of the kept clips, made worse as it is read.

    Args:
        clips: as they are.
        dials: what makes them worse.
        level: float64 `[K]`, NaN for a clean clip.
        late: float64 `[K]`, steps of the first axis, or NaN.
        keys: uint64 `[K, 2]`.
    """

    def __init__(self, clips: _Clips, dials: Dials, level: np.ndarray, late: np.ndarray, keys: np.ndarray) -> None:
        self.present = clips.present
        self.warm = clips.warm
        self._clips = clips
        self._dials = dials
        self._level = level
        self._late = np.rint(np.nan_to_num(late)).astype(np.int64)
        self._keys = keys

    def read(self, i: int) -> np.ndarray:
        array = self._clips.read(i)
        return self._worse(array, i, range(len(array)))

    def take(self, i: int, picks: np.ndarray) -> np.ndarray:
        if isinstance(self._dials, PictureDials):
            return self._worse(self._clips.take(i, picks), i, picks)
        return self.read(i)[picks]

    def _worse(self, array: np.ndarray, i: int, frames: Iterable[int]) -> np.ndarray:
        if self._late[i]:
            array = np.roll(array, self._late[i], axis=0)
        if np.isnan(self._level[i]):
            return array
        return self._dials.corrupt(array, float(self._level[i]), self._keys[i], frames)


_KEEP, _FLIP, _FLIP_TO, _EXCHANGE, _WHICH, _CIRCLE, _POINT = range(7)
"""What the random numbers of a clip are for."""
_MISSING, _STAY, _LEVEL, _LATE = range(4)
"""What those of a clip and a modality are for."""
_KEY = slice(6, 8)


@dataclasses.dataclass(frozen=True)
class _Draws:
    """Eight times 64 random bits for every clip, a hash of the seed, the purpose and the clip's id.

    Attributes:
        bits: uint64 `[N, 8]`.
    """

    bits: np.ndarray

    @classmethod
    def of(cls, seed: int, purpose: str, clip_ids: Sequence[str]) -> _Draws:
        salt = seed.to_bytes(hashlib.blake2b.SALT_SIZE, "little")
        person = hashlib.blake2b(purpose.encode(), digest_size=hashlib.blake2b.PERSON_SIZE).digest()
        hashes = [hashlib.blake2b(c.encode("utf-8", "surrogatepass"), salt=salt, person=person) for c in clip_ids]
        bits = np.frombuffer(b"".join(h.digest() for h in hashes), "<u8").astype(np.uint64)
        return cls(bits.reshape(len(clip_ids), 8))

    def __getitem__(self, rows: np.ndarray) -> _Draws:
        return _Draws(self.bits[rows])

    def uniform(self, purpose: int) -> np.ndarray:
        """Numbers in [0, 1), float64 `[N]`."""
        return (self.bits[:, purpose] >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _check(dials: Any, where: str) -> None:
    """Casts and checks the dials of a dataclass when it is made."""
    values = {name: getattr(dials, name) for name in knobs_of(dials)}
    for name, value in check_knobs(type(dials), values, where).items():
        object.__setattr__(dials, name, value)


def _turned(dials: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default."""
    default = type(dials)()
    values = {f.name: getattr(dials, f.name) for f in dataclasses.fields(dials)}
    values = {name: value for name, value in values.items() if value != getattr(default, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _known(name: str, modalities: Iterable[str], where: str) -> None:
    if name not in modalities:
        raise MMSearchError(f"{where}: unknown modality {name!r}{nearest(name, modalities)}")


def _mapping(document: Document, *keys: str) -> dict[str, Any]:
    """The mapping under a key; an empty one where nothing is written.

    Raises:
        MMSearchError: it is something else.
    """
    given: Any = document.data
    for key in keys:
        given = given[key]
    if given is not None and not isinstance(given, dict):
        raise MMSearchError(f"{document.at(*keys)}: {keys[-1]} needs `dial: value` lines, not {given!r}")
    return given or {}


def _section(document: Document, dials: type, *keys: str) -> dict[str, Any]:
    """The values under a key, each dial checked at its own line. YAML 1.1 takes a key `on` for the value true."""
    given = {"on" if key is True else key: value for key, value in _mapping(document, *keys).items()}
    fields, known = [f.name for f in dataclasses.fields(dials)], knobs_of(dials)
    for key in given:
        if key not in fields:
            raise MMSearchError(f"{document.at(*keys, str(key))}: unknown key {key!r}{nearest(str(key), fields)}")
    return {k: known[k].check(v, document.at(*keys, k)) if k in known else v for k, v in given.items()}


def _dials(
    document: Document, name: str, modalities: Mapping[str, ModalityConfig], classes: Sequence[str] | None
) -> Dials:
    keys = ("quality", "modalities", name)
    _known(name, modalities, document.at(*keys))
    dials = DIALS[modalities[name].kind]
    values = _section(document, dials, *keys)
    if "missing_classes" in values:
        values["missing_classes"] = _class_names(document, values["missing_classes"], classes, *keys)
    try:
        return dials(**values)
    except MMSearchError as error:
        raise MMSearchError(f"{document.at(*keys)}: {error}") from None


def _class_names(document: Document, given: Any, classes: Sequence[str] | None, *keys: str) -> tuple[str, ...]:
    where = document.at(*keys, "missing_classes")
    if not isinstance(given, list) or not all(isinstance(c, str | int) and not isinstance(c, bool) for c in given):
        raise MMSearchError(f"{where}: missing_classes must be a list of class names, as in [a, b], not {given!r}")
    for name in map(str, given):
        if classes is not None and name not in classes:
            raise MMSearchError(f"{where}: unknown class {name!r}{nearest(name, classes)}")
    return tuple(map(str, given))
