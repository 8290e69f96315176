"""The trial document: what is trained, as JSON; its identity is a hash of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmsearch.batch import Modality
from mmsearch.encoders import ENCODERS
from mmsearch.errors import MMSearchError, nearest
from mmsearch.fusion import FUSIONS, OWN
from mmsearch.knobs import knobs_of
from mmsearch.methods import METHODS, Method
from mmsearch.training.optimizers import OPTIMIZERS
from mmsearch.training.samplers import SAMPLERS, Sampler

DEFAULTS: dict[str, Any] = {
    "method": {"name": "joint"},
    "fusion": {"name": "concat"},
    "encoders": {},
    "optimizer": {"name": "sgd"},
    "sampler": {"name": "shuffle"},
    "batch_size": 32,
    "epochs": 15,
    "until": None,
    "seed": 0,
    "fold": 0,
    "precision": "fp32",
    "data": None,
    "teachers": {},
    "held": False,
    "post_hoc": [],
}
"""Every key of a document, with what stands where it is left out.

`held` cuts an eighth of train off, for what a method or a post-hoc fusion must not have trained on; it is set where it
is needed. `fold` None trains on the whole development part, which leaves nothing to judge by. `until` ends the training
after so many of the planned epochs; the schedules stay those of all of them. `post_hoc` lists the post-hoc fusions
(documents or names) that are evaluated at the end on the model's own unimodal logits. `sampler` (a document or a name)
says which clips an epoch shows. Its default and that of `until` stay out of a resolved document, which so has the
identity that it had before there were any.
"""

_WHOLE = {"batch_size": 2, "epochs": 1, "seed": 0, "fold": 0}


def method_of(document: Mapping[str, Any]) -> Method:
    """A fresh method object of a document."""
    return METHODS.create(document["method"])


def sampler_of(document: Mapping[str, Any]) -> Sampler:
    """The sampler of a document."""
    given = document.get("sampler", DEFAULTS["sampler"])
    return SAMPLERS.create(given if isinstance(given, Mapping) else {"name": str(given)}, "trial document")


def default_encoder(kind: str) -> dict[str, Any]:
    """The document of the default encoder for a kind of modality.

    Raises:
        MMSearchError: no encoder reads that kind.
    """
    for name in ENCODERS.names():
        cls = ENCODERS.get(name)
        if cls.kind == kind and cls.default:
            return ENCODERS.document(cls())
    raise MMSearchError(f"no encoder for modalities of kind {kind!r}")


def resolve(document: Mapping[str, Any], modalities: Mapping[str, Modality]) -> dict[str, Any]:
    """The document with every default filled in and every value checked: its canonical form.

    Args:
        document: any subset of the keys of :data:`DEFAULTS`.
        modalities: those of the dataset, by name.

    Raises:
        MMSearchError: an unknown key, name or knob, a value out of range, an encoder for the wrong kind, or a
            fusion beside a method that brings its own.
    """
    for key in document:
        if key not in DEFAULTS:
            raise MMSearchError(f"trial document: unknown key {key!r}{nearest(key, DEFAULTS)}")
    full = {**DEFAULTS, **document}
    for key, least in _WHOLE.items():
        if key == "fold" and full[key] is None:
            continue
        if not isinstance(full[key], int) or isinstance(full[key], bool) or full[key] < least:
            raise MMSearchError(f"trial document: {key} must be a whole number of at least {least}, not {full[key]!r}")
    if full["precision"] not in ("fp32", "bf16"):
        raise MMSearchError(f"trial document: precision is {full['precision']!r}; known: fp32, bf16")
    _check_until(full)
    method = METHODS.create(full["method"])
    full["method"] = METHODS.document(method)
    used = method.modalities(list(modalities))
    full["optimizer"] = OPTIMIZERS.document(OPTIMIZERS.create(full["optimizer"]))
    full["sampler"] = SAMPLERS.document(sampler_of(full))
    if full["sampler"] == DEFAULTS["sampler"]:
        del full["sampler"]
    full["encoders"] = {u: _encoder(full["encoders"], m) for u, m in modalities.items()}
    if method.own_fusion:
        if document.get("fusion", {"name": OWN})["name"] != OWN:
            raise MMSearchError(f"trial document: method {method.name} brings its own fusion; leave `fusion` out")
        full["fusion"] = {"name": OWN}
    else:
        full["fusion"] = FUSIONS.document(FUSIONS.create(full["fusion"]))
    reason = refusal(method, full["fusion"], used, full["encoders"])
    if reason:
        raise MMSearchError(f"trial document: {reason}")
    if not isinstance(full["held"], bool):
        raise MMSearchError(f"trial document: held must be true or false, not {full['held']!r}")
    full["post_hoc"] = _post_hoc(full["post_hoc"])
    full["held"] = needs_held(full)
    for u in document.get("encoders", {}):
        if u not in modalities:
            raise MMSearchError(f"trial document: encoder for unknown modality {u!r}{nearest(u, modalities)}")
    if method.needs_teachers and set(full["teachers"]) != set(used):
        raise MMSearchError(f"trial document: method {method.name} needs a teacher for each of {', '.join(used)}")
    if not method.needs_teachers and full["teachers"]:
        raise MMSearchError(f"trial document: method {method.name} has no use for teachers")
    return full


def _check_until(full: dict[str, Any]) -> None:
    """Checks `until`, and takes it out of a document that trains to its end."""
    until, epochs = full["until"], full["epochs"]
    if until is not None and (not isinstance(until, int) or isinstance(until, bool) or not 1 <= until <= epochs):
        raise MMSearchError(f"trial document: until must be a whole number from 1 to epochs ({epochs}), not {until!r}")
    if until in (None, epochs):
        del full["until"]


def refusal(
    method: Method, fusion: Mapping[str, Any], modalities: Sequence[str], encoders: Mapping[str, Mapping[str, Any]]
) -> str:
    """Why a method cannot be trained with a fusion; empty where it can.

    Args:
        method: the method.
        fusion: its document; of a method that brings its own, `own`.
        modalities: those the method trains on.
        encoders: their documents.
    """
    if method.own_fusion:
        reason = method.refuses(FUSIONS.create({"name": "concat"}), modalities)
        return f"method {method.name}: {reason}" if reason else ""
    component = FUSIONS.create(fusion)
    reason = method.refuses(component, modalities)
    if reason:
        return f"method {method.name} cannot go with fusion {component.name}: {reason}"
    reason = component.refuses(modalities, {u: ENCODERS.create(encoders[u]) for u in modalities})
    return f"fusion {component.name}: {reason}" if reason else ""


def needs_held(document: Mapping[str, Any]) -> bool:
    """Whether training leaves out the `held` part: the document, its method or a post-hoc fusion wants it."""
    fusion = document["fusion"]
    fitted = bool(document["post_hoc"]) or (fusion["name"] != OWN and FUSIONS.get(fusion["name"]).post_hoc)
    return document["held"] or fitted or method_of(document).needs_held


def _post_hoc(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list):
        raise MMSearchError(f"trial document: post_hoc must be a list of fusions, not {given!r}")
    known = [n for n in FUSIONS.names() if FUSIONS.get(n).post_hoc]
    documents = {}
    for entry in given:
        document = entry if isinstance(entry, Mapping) else {"name": entry}
        if document.get("name") not in known:
            name = str(document.get("name"))
            raise MMSearchError(f"trial document: no post-hoc fusion {name!r}{nearest(name, known)}")
        full = FUSIONS.document(FUSIONS.create(document))
        documents[post_hoc_label(full)] = full
    return [documents[label] for label in sorted(documents)]


def post_hoc_label(document: Mapping[str, Any]) -> str:
    """A post-hoc fusion in the names of figures: its name and its choices, as in `decision/vote`."""
    knobs = knobs_of(FUSIONS.get(document["name"]))
    chosen = [str(v) for k, v in document.items() if k in knobs and isinstance(knobs[k].paper, str)]
    return "/".join([document["name"], *chosen])


def _encoder(given: Mapping[str, Any], modality: Modality) -> dict[str, Any]:
    document = given.get(modality.name) or default_encoder(modality.kind)
    encoder = ENCODERS.create(document, f"encoder of {modality.name}")
    if encoder.kind != modality.kind:
        raise MMSearchError(
            f"encoder of {modality.name}: {encoder.name} reads {encoder.kind}, the modality is {modality.kind}"
        )
    return ENCODERS.document(encoder)


def trial_id(document: Mapping[str, Any]) -> str:
    """The identity of a resolved document: 12 hexadecimal digits of the hash of its canonical JSON."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def seed_of(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, independent of every other purpose's."""
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
