"""Makes `mmsearch/search/kuberay.json.xz`, against which `mmsearch cluster check` holds KubeRay manifests.

    git clone --depth 1 --branch v1.7.0 https://github.com/ray-project/kuberay
    python scripts/kuberay_schemas.py kuberay/ray-operator/config/crd/bases

The OpenAPI schemas of KubeRay's custom resources become JSON Schema: descriptions go, an object that names its
properties takes no others, and a quantity may be a number or a text.
"""

from __future__ import annotations

import argparse
import json
import lzma
from pathlib import Path
from typing import Any

import yaml

KINDS = ("rayclusters", "rayjobs")
OUT = Path(__file__).parents[1] / "mmsearch" / "search" / "kuberay.json.xz"
KEPT = ("type", "enum", "required", "pattern", "format", "minimum", "maximum", "minItems", "maxItems", "maxLength")


def pruned(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI schema as JSON Schema."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "number", "string"]}
    out = {k: schema[k] for k in KEPT if k in schema and not (k == "format" and schema[k].startswith("int"))}
    if schema.get("nullable"):
        out["type"] = [schema["type"], "null"]
    if "items" in schema:
        out["items"] = pruned(schema["items"])
    if "properties" in schema:
        out["properties"] = {k: pruned(v) for k, v in schema["properties"].items()}
        out["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    elif isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = pruned(schema["additionalProperties"])
    return out


def main() -> None:
    """Writes the schemas of `ray.io/v1`, by kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="KubeRay's config/crd/bases")
    schemas = {}
    for name in KINDS:
        spec = yaml.safe_load((parser.parse_args().folder / f"ray.io_{name}.yaml").read_text())["spec"]
        v1 = next(v for v in spec["versions"] if v["name"] == "v1")
        schema = pruned(v1["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
        schema["required"] = sorted({*schema.get("required", []), "metadata", "spec"})
        schemas[spec["names"]["kind"]] = schema
    OUT.write_bytes(lzma.compress(json.dumps(schemas, sort_keys=True).encode(), preset=9))
    print(OUT)


if __name__ == "__main__":
    main()
