"""`mmsearch extend`: goes on with a finished sweep, with more methods, fusions, ranges, trials or seeds."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mmsearch.cli.sweep import add_session, conduct, count, names
from mmsearch.data.document import Document
from mmsearch.errors import MMSearchError
from mmsearch.files import write_text

if TYPE_CHECKING:
    from mmsearch.arguments import Arguments
    from mmsearch.search.space import Space
    from mmsearch.search.trials import Records

HELP = "add methods, fusions, ranges, trials or seeds to a finished sweep; everything it knows is used"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and what it gets."""
    parser.add_argument("out", metavar="RUN", help="the run's folder, or its address (s3://...)")
    parser.add_argument("--methods", type=names, default=(), metavar="A,B", help="these methods too")
    parser.add_argument("--fusions", type=names, default=(), metavar="A,B", help="these fusions too")
    parser.add_argument("--space", type=Path, metavar="YAML", help="a search space in place of the run's")
    parser.add_argument(
        "--trials",
        type=count,
        metavar="N",
        help="so many more (default: the floor of each method that is new or changed)",
    )
    parser.add_argument("--seeds", type=count, metavar="N", help="fresh seeds of every finalist, in all")
    parser.add_argument(
        "--read-test-again", action="store_true", help="read the test part for the new finalists too; it is recorded"
    )
    add_session(parser)


def run(args: argparse.Namespace) -> int:
    """Records the extension, then goes on with the sweep."""
    from mmsearch.search.run_folder import RunFolder

    folder = RunFolder(args.out).taken()
    return conduct(extend(folder.path, args), folder, args, resume=True)


def extend(out: Path, asked: argparse.Namespace) -> Arguments:
    """Checks an extension and records it in the run's folder, its space as `space-2.yaml` and so on.

    Args:
        out: the run's folder.
        asked: what :func:`add_arguments` has read.

    Returns:
        The arguments of the extended sweep. Budgets are lifted: an extension is bounded by its trials.

    Raises:
        MMSearchError: the sweep is not finished, the space is one under which nothing known would count, a name is
            unknown, or nothing changes.
    """
    from mmsearch.arguments import recorded, recorded_sweep, space_in
    from mmsearch.data import ClipData
    from mmsearch.fusion import FUSIONS
    from mmsearch.methods import METHODS
    from mmsearch.search.journal import read_events
    from mmsearch.search.trials import records
    from mmsearch.sweep import space_of

    events = read_events(out)
    phase = next((e["name"] for e in reversed(events) if e["event"] == "phase"), "start")
    if phase != "done":
        raise MMSearchError(f"{out}: the sweep is still in its phase {phase!r}; finish it first: mmsearch resume {out}")
    for name in asked.methods:
        METHODS.get(name, "--methods")
    for name in asked.fusions:
        FUSIONS.get(name, "--fusions")
    known, before = records(events), recorded(out)
    if asked.seeds is not None and asked.seeds < before.seeds:
        raise MMSearchError(
            f"--seeds: the run has {before.seeds}, and what is confirmed stays so; give as many or more"
        )
    data = ClipData.open(out / "data.json")
    old_file = asked.space or space_in(out)
    content = _with(Document(old_file).data, {"methods": asked.methods, "fusions": asked.fusions})
    arguments = dataclasses.replace(
        before,
        space=str(asked.space.absolute()) if asked.space else before.space,
        methods=_more(before.methods, asked.methods, content.get("methods")),
        fusions=_more(before.fusions, asked.fusions, content.get("fusions")),
        trials=sys.maxsize,
        budget=None,
        time_budget=None,
        seeds=asked.seeds or before.seeds,
        read_test_again=asked.read_test_again,
    )
    extensions = recorded_sweep(out).get("extensions", [])
    new_file = out / f"space-{len(extensions) + 2}.yaml"
    same_text = content == Document(old_file).data
    write_text(
        new_file, old_file.read_text(encoding="utf-8") if same_text else yaml.safe_dump(content, sort_keys=False)
    )
    try:
        old = space_of(space_in(out), data.modalities, data.digest, before)
        new = space_of(old_file if same_text else new_file, data.modalities, data.digest, arguments)
        _check_recipe(old, new, out)
        more = _trials(old, new, known, asked, before)
    except MMSearchError as error:
        new_file.unlink()
        raise MMSearchError(str(error).replace(str(new_file), "the extended space")) from None
    arguments = dataclasses.replace(arguments, trials=sum(r.searched for r in known.values()) + more)
    extension = {"space": new_file.name, "arguments": arguments.to_dict()}
    sweep = {**recorded_sweep(out), "arguments": arguments.to_dict(), "extensions": [*extensions, extension]}
    write_text(out / "sweep.json", json.dumps(sweep, indent=2) + "\n")
    return arguments


def _with(space: Mapping[str, Any], added: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """A space's content with these components in its sections; a section that is not there has everything already."""
    content = dict(space)
    for section, wanted in added.items():
        if isinstance(content.get(section), dict):
            content[section] = {**content[section], **{n: None for n in wanted if n not in content[section]}}
    return content


def _more(before: tuple[str, ...] | None, added: tuple[str, ...], section: Any) -> tuple[str, ...] | None:
    """A restriction with these names added, and without those that the space has no more."""
    if before is None:
        return None
    return tuple(n for n in dict.fromkeys([*before, *added]) if not isinstance(section, dict) or n in section)


def _check_recipe(old: Space, new: Space, out: Path) -> None:
    """Raises where all trials of the new space differ from those of the old one, so that nothing known would count."""
    was, now = old.recipe(), new.recipe()
    was["post_hoc"], now["post_hoc"] = (s.paper_documents("joint")[0]["post_hoc"] for s in (old, new))
    for key, value in was.items():
        if now[key] != value:
            what = "post-hoc fusions" if key in ("held", "post_hoc") else key
            raise MMSearchError(
                f"{out}: {what} would differ from those of every trial of the run, so nothing it knows would count; "
                f"start another sweep, with --warm-start {out}"
            )


def _changed(old: Space, new: Space) -> list[str]:
    """The methods that are new, go with a new fusion, or have other ranges."""
    everywhere = old.encoders != new.encoders or old.optimizers != new.optimizers
    everywhere = everywhere or any(old.fusions.get(f, choice) != choice for f, choice in new.fusions.items())
    added = new.fusions.keys() - old.fusions.keys()
    return [
        m
        for m, choice in new.methods.items()
        if everywhere
        or old.methods.get(m) != choice
        or any(d["fusion"]["name"] in added for d in new.paper_documents(m))
    ]


def _trials(old: Space, new: Space, known: Records, asked: argparse.Namespace, before: Arguments) -> int:
    """How many trials an extension adds.

    Raises:
        MMSearchError: nothing changes, or the trials are too few for the new methods.
    """
    from mmsearch.search.allocation import FLOOR
    from mmsearch.training import trial_id

    changed = _changed(old, new)
    unread = any(r.select and not r.test for r in known.values())
    if not changed and asked.trials is None and (asked.seeds or 0) <= before.seeds:
        if not (asked.read_test_again and unread):
            raise MMSearchError(
                "extend: this changes nothing; give methods or fusions that the run has not, a space with other "
                "ranges, --trials or more --seeds"
            )
        return 0
    unknown = {m: sum(trial_id(d) not in known for d in new.paper_documents(m)) for m in changed}
    fresh = [m for m in new.methods if m not in old.methods]
    if asked.trials is not None and asked.trials < len(fresh):
        raise MMSearchError(
            f"--trials: {asked.trials} more are too few for one of each new method; at least {len(fresh)}"
        )
    return asked.trials if asked.trials is not None else sum(max(FLOOR, n) for n in unknown.values())
