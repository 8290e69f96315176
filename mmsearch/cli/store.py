"""`mmsearch store`: what a clip store holds, whether it is whole, and what of it can go."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from mmsearch.data import Dataset, Store, default_store
from mmsearch.data.pipeline import clip_keys
from mmsearch.data.places import Place, said
from mmsearch.data.upkeep import files_of_shards, leftovers, refuse_while_decoding, remove, unneeded, verify
from mmsearch.errors import MMSearchError
from mmsearch.recommend.words import count

HELP = "look into a clip store, check it, or remove from it what is not needed"

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each for looking, checking and clearing up."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=type(parser))
    for act, text in (
        (info, "what is in it"),
        (check, "compare every file with its checksum; code 1 where one is damaged"),
        (collect, "remove what killed decodes left behind, damaged shards, and shards that are not needed"),
    ):
        name = {info: "info", check: "verify", collect: "gc"}[act]
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.add_argument(
            "--store", metavar="PLACE", help="a folder, or an address such as s3://bucket/prefix (default: the usual)"
        )
        action.set_defaults(act=act, parser=action)
        if act is check:
            action.add_argument(
                "--repair", action="store_true", help="remove damaged shards: the next prepare decodes their clips"
            )
        if act is collect:
            action.add_argument(
                "--keep",
                nargs="+",
                default=[],
                metavar="PATH",
                type=Path,
                help="dataset YAML files and folders of sweeps: shards with none of their clips are not needed",
            )
            action.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(args: argparse.Namespace) -> int:
    """Does what was asked for."""
    place = Place(args.store or default_store())
    try:
        return args.act(Store.open(place), args)
    except OSError as error:
        raise MMSearchError(f"{place}: {said(error)}") from None


def info(store: Store, args: argparse.Namespace) -> int:
    """Prints what is in the store."""
    held = f"{count(len(store), 'clip')} in {count(len(store.shards), 'shard')}"
    print(f"{store.place}: {held}, {count(store.decodes, 'clip')} decoded into it")
    for name in sorted({name for shard in store.shards for name in shard.parts}):
        parts = [shard.parts[name] for shard in store.shards if name in shard.parts]
        clips = sum(int((part.offset >= 0).sum()) for part in parts)
        kept = ", ".join(sorted({f"{part.codec} {part.dtype}" for part in parts}))
        print(f"modality {name}: {count(clips, 'clip')}, {_size(sum(part.bytes for part in parts))}, {kept}")
    aside = store.set_aside
    print(f"{count(len(aside), 'clip')} set aside" + (":" if aside else ""))
    _few([f"{number} x {reason}" for reason, number in Counter(aside.values()).most_common()])
    _damage(store, store.damaged)
    return 0


def check(store: Store, args: argparse.Namespace) -> int:
    """Reads everything; code 1 where damage was found and is still there."""
    whole = len(store.shards) + len(store.damaged)
    damaged = verify(store, _progress if sys.stderr.isatty() else lambda done, total: None)
    unknown = sum(any(part.checksum is None for part in shard.parts.values()) for shard in store.shards)
    if unknown:
        print(f"{count(unknown, 'shard')} of an older format without checksums: only sizes were compared")
    _damage(store, damaged)
    if damaged and args.repair:
        refuse_while_decoding(store.place)
        remove(store.place, files_of_shards(store.place, damaged))
        print(f"removed {count(len(damaged), 'shard')}; `mmsearch prepare` decodes their clips again")
    print(f"{store.place}: {whole - len(damaged)} of {count(whole, 'shard')} as written")
    return int(bool(damaged) and not args.repair)


def collect(store: Store, args: argparse.Namespace) -> int:
    """Removes what is not needed, and says how much that frees."""
    place = store.place
    refuse_while_decoding(place)
    keep = set().union(*(_kept(path, place) for path in args.keep)) if args.keep else None
    removed = 0
    for what, files in (
        ("left behind by killed decodes", leftovers(place)),
        ("damaged", files_of_shards(place, store.damaged)),
        ("not needed", files_of_shards(place, unneeded(store, keep))),
    ):
        if not args.dry_run:
            remove(place, files)
        print(f"{what}: {count(len(files), 'file')}, {_size(sum(files.values()))}")
        removed += sum(files.values())
    print(f"{place}: {_size(removed)} {'could be freed' if args.dry_run else 'freed'}")
    return 0


def _kept(path: Path, place: Place) -> set[str]:
    """The keys of the clips of a dataset, or of a sweep by its folder or its `data.json`."""
    if path.is_dir() or path.suffix == ".json":
        file = path / "data.json" if path.is_dir() else path
        try:
            return set(map(str, json.loads(file.read_text(encoding="utf-8"))["key"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MMSearchError(f"{file}: not the clips of a sweep: {said(error)}") from None
    keys, failed = clip_keys(Dataset.load(path, allow_absolute=True), place)
    if failed:
        raise MMSearchError(
            f"{path}: {len(failed)} of its files cannot be read ({next(iter(failed.values()))}), so nobody knows which "
            "clips are theirs; nothing was removed"
        )
    return {key for key in keys if key is not None}


def _damage(store: Store, damaged: dict[str, str]) -> None:
    if damaged:
        print(f"{count(len(damaged), 'shard')} damaged:")
        _few([f"{index.partition('.')[0]}: {what}" for index, what in damaged.items()])


def _few(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        print(f"  {line}")
    if len(lines) > _SHOWN:
        print(f"  and {len(lines) - _SHOWN} more")


def _progress(done: int, total: int) -> None:
    print(f"\rread {_size(done)} of {_size(total)} ", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _size(number: int) -> str:
    value, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.4g} {unit}"
