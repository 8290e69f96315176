"""What is wrong with a file for a cluster, found without one.

A Ray launcher file, a KubeRay manifest, or the runtime environment of a job.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.resources
import json
import logging
import lzma
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
from ray.autoscaler._private.providers import _NODE_PROVIDERS
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv

from mmsearch import __version__
from mmsearch.data.document import Document
from mmsearch.data.places import Place, said
from mmsearch.errors import MMSearchError, nearest

GROUP = "ray.io/v1"
_PACKAGES = frozenset(("pip", "uv", "conda"))
_INSTALL = re.compile(r"\b(ray|mmsearch)(?:\[[^\]]*\])?==([\w.]+)")
_TAGGED = re.compile(r"\b(ray|mmsearch)[:-]?v?(\d+\.\d+\.\d+)")


def problems(path: Path) -> list[str]:
    """Every mistake that can be seen in a file, each with its line; none for a file that validates.

    Manifests of other kinds beside a `RayCluster` or `RayJob`, such as the claim of its volume, are not looked into.

    Raises:
        MMSearchError: it cannot be read, or holds neither a launcher file nor a `RayCluster` or `RayJob`.
    """
    found: list[str] = []
    known = False
    for file in Document.several(path):
        if str(file.data.get("apiVersion", "")).startswith("ray.io/"):
            mistakes = _kuberay(file)
        elif "cluster_name" in file.data:
            mistakes = _launcher(file)
        elif file.data.keys() & RuntimeEnv.known_fields:
            mistakes = _runtime_env(file)
        else:
            continue
        known = True
        found += [*mistakes, *_images(file), *_versions(file)]
    if not known:
        raise MMSearchError(
            f"{path}:1: neither a Ray launcher file (it would have `cluster_name`) nor a KubeRay manifest "
            f"(`apiVersion: {GROUP}`) nor a runtime environment (`env_vars`, `excludes`)"
        )
    return found


def _launcher(file: Document) -> Iterator[str]:
    schema = json.loads((importlib.resources.files("ray.autoscaler") / "ray-schema.json").read_text())
    found = list(_against(file, file.data, schema))
    yield from found
    provider, types = file.data.get("provider"), file.data.get("available_node_types")
    kind, head = provider.get("type") if isinstance(provider, dict) else None, file.data.get("head_node_type")
    if isinstance(kind, str) and kind not in _NODE_PROVIDERS:
        yield f"{file.at('provider', 'type')}: unknown provider {kind!r}{nearest(kind, _NODE_PROVIDERS)}"
    elif isinstance(types, dict) and isinstance(head, str) and head not in types:
        yield f"{file.at('head_node_type')}: no node type {head!r}{nearest(head, types)}"
    elif not found:
        logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
        try:
            validate_config(prepare_config(copy.deepcopy(file.data)))
        except Exception as error:  # whatever Ray's own check says
            yield f"{file.path}: {said(error)}"


def _runtime_env(file: Document) -> Iterator[str]:
    known = sorted(name for name in RuntimeEnv.known_fields if not name.startswith("_"))
    wrong = [str(key) for key in file.data if key not in known]
    for key in wrong:
        yield f"{file.at(key)}: a runtime environment has no {key!r}{nearest(key, known)}"
    for key in sorted(_PACKAGES & file.data.keys()):
        yield f"{file.at(key)}: {key} installs on every machine at every start; put packages into the image"
    if not wrong and not _PACKAGES & file.data.keys():
        try:
            RuntimeEnv(**file.data)
        except (TypeError, ValueError) as error:
            yield f"{file.path}: {said(error)}"


def _kuberay(file: Document) -> Iterator[str]:
    packed = importlib.resources.files("mmsearch.search") / "kuberay.json.xz"
    schemas = json.loads(lzma.decompress(packed.read_bytes()))
    kind = file.data.get("kind")
    if file.data["apiVersion"] != GROUP:
        yield f"{file.at('apiVersion')}: {file.data['apiVersion']!r}, not {GROUP!r}"
    elif kind not in schemas:
        yield f"{file.at('kind')}: unknown kind {kind!r}{nearest(str(kind), schemas)}"
    else:
        yield from _against(file, file.data, schemas[kind])


def _against(file: Document, data: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    errors = jsonschema.Draft7Validator(schema).iter_errors(data)
    for error in sorted(errors, key=lambda e: [str(p) for p in e.absolute_path]):
        at = [str(p) for p in error.absolute_path]
        where = ".".join(at) or "the file"
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            known = error.schema.get("properties", {})
            for key in (k for k in error.instance if k not in known):
                yield f"{file.at(*at, str(key))}: {where} has no {key!r}{nearest(str(key), known)}"
        elif error.validator == "type":
            wanted = error.validator_value
            kinds = wanted if isinstance(wanted, str) else " or ".join(wanted)
            yield f"{file.at(*at)}: {where} is {error.instance!r}, not of type {kinds}"
        else:
            yield f"{file.at(*at)}: {where}: {error.message}"


def _texts(data: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in a document, with the keys that lead to it."""
    if isinstance(data, str):
        yield at, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _texts(value, (*at, str(key)))
    elif isinstance(data, Sequence):
        for i, value in enumerate(data):
            yield from _texts(value, (*at, str(i)))


def _images(file: Document) -> Iterator[str]:
    for at, text in _texts(file.data):
        if at[-1] in ("image", "head_image", "worker_image") and "@sha256:" not in text:
            tag = text.rpartition("/")[2].partition(":")[2]
            if tag in ("", "latest"):
                yield f"{file.at(*at)}: {text!r} is another image tomorrow; pin a tag or a digest"


def _versions(file: Document) -> Iterator[str]:
    installed = {"ray": importlib.metadata.version("ray"), "mmsearch": __version__}
    for at, text in _texts(file.data):
        named = [("ray", text)] if at[-1] == "rayVersion" else [*_INSTALL.findall(text)]
        if at[-1].endswith("image"):
            named += _TAGGED.findall(text)
        for package, version in named:
            if version != installed[package]:
                yield (
                    f"{file.at(*at)}: {package} {version}, but {installed[package]} is installed here; "
                    "a cluster of another version refuses this one's jobs"
                )


def storage_problem(address: str) -> str | None:
    """What keeps a sweep from writing to a storage, found by writing a small file, reading it and deleting it."""
    place, name, content = Place(address), f"mmsearch-check-{uuid.uuid4().hex}", b"mmsearch"
    try:
        place.write(name, content)
        same = place.read(name) == content
        place.delete(name)
    except OSError as error:
        return f"{place}: {said(error)}"
    return None if same else f"{place}: what was written is not what is read"
