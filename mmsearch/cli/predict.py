"""`mmsearch predict`: what a trained model says of raw files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.cli.validate import ALLOW_ABSOLUTE
from mmsearch.data.dataset import leads_out
from mmsearch.data.layouts._files import SOUNDS, VIDEOS, files_below, is_folder, pictures_in
from mmsearch.data.manifest import Manifest, printable
from mmsearch.errors import MMSearchError

if TYPE_CHECKING:
    from mmsearch.trained import Clip, Prediction, TrainedModel

HELP = "label raw files with a trained model, such as RUN/best"

_MANIFESTS = frozenset((".csv", ".parquet", ".pq"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the clips, and how the answer looks."""
    parser.add_argument("model", metavar="MODEL", help="a model's folder or address, such as RUN/best")
    parser.add_argument(
        "clips",
        type=Path,
        nargs="+",
        metavar="CLIPS",
        help="files, folders of files, or manifests (.csv, .parquet) with the columns of the training's",
    )
    parser.add_argument("--json", action="store_true", help="as a JSON list of {path, label, probabilities, ...}")
    parser.add_argument("--plain", action="store_true", help="a line a clip, with tabs between the columns")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, ... (default: a GPU if any)")
    parser.add_argument("--allow-absolute", action="store_true", help=ALLOW_ABSOLUTE)


def run(args: argparse.Namespace) -> int:
    """Prints a prediction a clip; code 1 where a clip could not be read."""
    import torch

    from mmsearch import load
    from mmsearch.search.run_folder import near
    from mmsearch.training.evaluation import pick_device

    try:
        device = pick_device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MMSearchError(f"--device: {args.device}: {str(error).splitlines()[0]}") from None
    model = load(near(args.model))
    clips = [clip for given in args.clips for clip in clips_of(given, model, args.allow_absolute)]
    predictions = model.predict(clips, device=device)
    if args.json:
        print(json.dumps([p.to_dict() for p in predictions], indent=2, ensure_ascii=False))
    elif args.plain:
        print("\n".join("\t".join(_cells(p, model)) for p in predictions))
    else:
        _table(predictions, model)
    return int(any(p.error for p in predictions))


def clips_of(given: Path, model: TrainedModel, allow_absolute: bool = False) -> list[Path] | list[Clip]:
    """The clips behind one argument.

    Args:
        given: a file, a folder of files (at any depth) or of the pictures of one clip, or a manifest.
        model: for the kinds of files and the columns that it reads.
        allow_absolute: whether a manifest may name files outside its folder.

    Raises:
        MMSearchError: a folder without any clip, or a manifest that cannot be read or lacks a column.
    """
    if given.suffix.lower() in _MANIFESTS:
        return list(_of_manifest(given, model, allow_absolute))
    if not is_folder(given):
        return [given]
    kinds = {m.kind for m in model.modalities.values()}
    if "frames" in kinds and "image" not in kinds and pictures_in(given):
        return [given]
    endings = _endings(kinds)
    found = [given / file for file in files_below(given) if Path(file).suffix.lower() in endings]
    if not found:
        raise MMSearchError(f"{given}: no clip in this folder: looked for {', '.join(sorted(endings))}")
    return found


def _endings(kinds: set[str]) -> set[str]:
    from mmsearch.data.decode import PICTURES

    of_kind = {
        "sound": VIDEOS | SOUNDS,
        "frames": VIDEOS,
        "flow": VIDEOS,
        "image": VIDEOS | PICTURES,
        "text": {".txt"},
        "series": {".npy"},
        "vector": {".npy"},
    }
    return {ending for kind in kinds for ending in of_kind[kind]}


def _of_manifest(path: Path, model: TrainedModel, allow_absolute: bool) -> Iterator[Clip]:
    from mmsearch.trained import Clip

    manifest, columns = Manifest(path), model.columns
    inline = {d["name"] for d in model.config["modalities"] if d.get("inline")}
    for u, column in columns.items():
        manifest.need(column, f"the {'texts' if u in inline else 'files'} of modality {u}")
    starts, ends = manifest.seconds("start"), manifest.seconds("end")
    for i, row in enumerate(manifest.rows):
        files: dict[str, str | Path] = {}
        for u, column in columns.items():
            cell = row[column]
            if u in inline:
                files |= {u: cell} if cell else {}
                continue
            if not allow_absolute and (leads := leads_out(cell)):
                raise MMSearchError(
                    f"{manifest.at(i)}: {column}: {printable(cell)} {leads}: make it relative to the manifest's "
                    "folder, or allow it with --allow-absolute"
                )
            files |= {u: path.parent / cell} if cell else {}
        first = next((f for f in files.values() if isinstance(f, Path)), None)
        yield Clip(files, starts[i], ends[i], manifest.at(i) if first is None else printable(str(first)))


def _cells(p: Prediction, model: TrainedModel) -> list[str]:
    """Path, label and probability, and the same by modality; of a clip that could not be read the reason."""
    path = printable(p.path)
    if p.error is not None:
        return [path, f"error: {printable(p.error)}"]
    joint = [str(p.label), _share(p.probabilities[str(p.label)])]
    return [path, *joint, *(_alone(p, u) for u in model.modalities)]


def _alone(p: Prediction, modality: str) -> str:
    own = p.unimodal.get(modality)
    if own is None:
        return "missing"
    label = max(own, key=lambda c: own[c])
    return f"{label} {_share(own[label])}"


def _share(p: float) -> str:
    return f"{p:.4f}"


def _table(predictions: Sequence[Prediction], model: TrainedModel) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    good = [p for p in predictions if p.error is None]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("clip", overflow="fold")
    table.add_column("label")
    table.add_column("probability", justify="right")
    for u in model.modalities:
        table.add_column(f"{u} alone")
    for p in good:
        table.add_row(*(Text(cell) for cell in _cells(p, model)))
    console = Console()
    if good:
        console.print(table)
    for p in predictions:
        if p.error is not None:
            console.print(Text(f"{printable(p.path)}: {printable(p.error)}", "red"), soft_wrap=True)
