"""`mmsearch train`: trains a model that a sweep has handed over again, on the same clips or on others."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsearch.cli.validate import ALLOW_ABSOLUTE
from mmsearch.errors import MMSearchError

if TYPE_CHECKING:
    from mmsearch.data import ClipData
    from mmsearch.data.document import Document

HELP = "train a model again from its train.yaml, without a search"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe, the clips, and where the model goes."""
    parser.add_argument("recipe", type=Path, metavar="train.yaml", help="the recipe, such as RUN/best/train.yaml")
    parser.add_argument("--dataset", required=True, metavar="YAML|demo", help="the dataset, or `demo`")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the model's folder, which is made")
    parser.add_argument("--store", metavar="PLACE", help="the clip store: a folder or s3://... (default: this user's)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: a GPU if any)")
    parser.add_argument("--allow-absolute", action="store_true", help=ALLOW_ABSOLUTE)


def run(args: argparse.Namespace) -> int:
    """Decodes what the store lacks, trains the teachers and then the model, and writes its folder."""
    from mmsearch.arguments import Arguments
    from mmsearch.data import clip_data, default_store, prepare
    from mmsearch.data.document import Document
    from mmsearch.sweep import dataset_of

    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise MMSearchError(f"--out: {args.out} is there already and is not an empty folder")
    recipe = Document(args.recipe)
    recipe.check_keys(("document", "teachers", "order", "threads"))
    for key in ("document", "teachers"):
        if not isinstance(recipe.data.get(key, {} if key == "teachers" else None), dict):
            raise MMSearchError(f"{recipe.at(key)}: {key} must be a mapping; a sweep writes it in RUN/best/train.yaml")
    dataset = dataset_of(Arguments(dataset=args.dataset, allow_absolute=args.allow_absolute))
    store = args.store or default_store()
    data = clip_data(dataset, store, prepare(dataset, store), order=recipe.data.get("order", "clips"))
    train_again(recipe, data, args.out, args.device)
    print(f"model: {args.out}")
    return 0


def train_again(recipe: Document, data: ClipData, out: Path, device: str) -> None:
    """Trains under a recipe and writes the model's folder, with the recipe beside it.

    Raises:
        MMSearchError: the recipe does not fit the clips.
    """
    import torch

    from mmsearch.data import decode
    from mmsearch.training.bundle import save_bundle

    torch.set_num_threads(int(recipe.data.get("threads", torch.get_num_threads())))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        teachers, folders = {}, {}
        for u, document in recipe.data.get("teachers", {}).items():
            folders[u] = Path(scratch) / u
            run = _trained(document, data, device, f"teacher of {u}", recipe)
            run.save_weights(folders[u])
            teachers[u] = run.document
        run = _trained(recipe.data["document"], data, device, "model", recipe, teachers, folders)
        about = {
            "data": {"name": data.name, "digest": data.digest, "quality": data.quality},
            "decode_version": decode.VERSION,
            "origin": {"stage": "train", "seed": run.document["seed"], "clips": len(run.rows)},
        }
        fresh = Path(scratch) / "model"
        save_bundle(fresh, run.predictor, data.decoding, about)
        shutil.copyfile(recipe.path, fresh / "train.yaml")
        if out.exists():
            out.rmdir()
        fresh.rename(out)


def _trained(  # type: ignore[no-untyped-def]
    document: Mapping[str, Any],
    data: ClipData,
    device: str,
    what: str,
    recipe: Document,
    teachers: Mapping[str, Mapping[str, Any]] | None = None,
    folders: Mapping[str, Path] | None = None,
):
    """A training of a document that has run to its end; a line an epoch is printed."""
    from mmsearch.training import train, trial_id

    ids = {u: trial_id(d) for u, d in (teachers or {}).items()}
    try:
        run = train({**document, **({"teachers": ids} if ids else {})}, data, teachers=folders, device=device)
    except MMSearchError as error:
        raise MMSearchError(f"{recipe.path}: {error}") from None
    part = "seen" if run.document["fold"] is None else "val"
    for result in run:
        name = "clips trained on" if part == "seen" else part
        print(f"{what}: epoch {result.epoch} of {run.last}, {100 * result.score:.1f}% on {name}", flush=True)
    return run
