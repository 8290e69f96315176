"""`mmsearch validate`: checks a dataset without decoding it."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from mmsearch.data import Dataset
from mmsearch.data.dataset import SETTINGS
from mmsearch.data.splits import PARTS, development_fold, drawn_from

HELP = "check a dataset's YAML and manifest without decoding, and print a summary"

ALLOW_ABSOLUTE = "let the manifest name files outside the dataset's root, by absolute paths or by `..`"

_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The dataset."""
    parser.add_argument("dataset", type=Path, metavar="DATASET.yaml", help="the dataset")
    parser.add_argument("--allow-absolute", action="store_true", help=ALLOW_ABSOLUTE)


def run(args: argparse.Namespace) -> int:
    """Checks everything up to the splits, and prints the summary."""
    dataset = Dataset.load(args.dataset, allow_absolute=args.allow_absolute)
    label, group, test = drawn_from(dataset.clips)
    part = development_fold(label[~test], None if group is None else group[~test], fold=0)
    published = any(clip.split == "test" for clip in dataset.clips)
    print(f"{dataset.name}: {len(dataset.clips)} clips, {len(dataset.classes)} classes")
    sizes = Counter(clip.label for clip in dataset.clips)
    classes = [f"{name} {sizes[i]}" for i, name in enumerate(dataset.classes)]
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    print(f"classes ({dataset.label_column}): {', '.join(classes[:_SHOWN])}{more}")
    empty = [name for i, name in enumerate(dataset.classes) if not sizes[i]]
    if empty:
        print(f"classes without a clip here ({len(empty)}): {', '.join(empty[:_SHOWN])}")
    for name, config in dataset.modalities.items():
        active = {key: config.settings[key] for key, s in SETTINGS[config.kind].items() if s.active(config.settings)}
        settings = ", ".join(f"{key} {v:g}" if isinstance(v, float) else f"{key} {v}" for key, v in active.items())
        given = sum(name in clip.paths or name in clip.texts for clip in dataset.clips)
        print(
            f"modality {name}: kind {config.kind}, column {config.column}, "
            f"{given} {'texts' if config.inline else 'files'}" + f"; {settings}" * bool(settings)
        )
    sizes_of = ", ".join(f"{PARTS[i]} {int(np.sum(part == i))}" for i in range(3))
    print(f"splits: {sizes_of}, test {int(test.sum())} ({'from the manifest' if published else 'drawn'})")
    if group is not None:
        shared = len(np.intersect1d(group[test], group[~test]))
        print(f"groups: {len(np.unique(group))}" + (f", {shared} of them in test and outside it" if shared else ""))
    return 0
