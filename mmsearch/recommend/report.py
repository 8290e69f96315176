"""One self-contained `report.html`: the answer on the first screen, the evidence below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmsearch.files import write_text
from mmsearch.recommend import figures, words
from mmsearch.search.trials import TrialRecord, records

_STATES = {"complete": "complete", "pruned": "stopped", "failed": "failed", "running": "running", "asked": "waiting"}
_VERDICTS = {
    "method": "A method wins",
    "unimodal": "One modality wins",
    "baseline": "Joint training stands",
    "no_clear_winner": "Not settled",
}


def html(recommendation: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    """The page. It needs no network and no script; everything from outside is escaped.

    Args:
        recommendation: the content of `recommendation.json`.
        events: the journal's.
    """
    trials = list(records(events).values())
    search = [r for r in trials if r.searched]
    finalists = [f["method"] for f in recommendation["finalists"]]
    colour = figures.colours([*finalists, *(r.method for r in trials)], recommendation["decision"]["method"])
    environment = Environment(
        loader=PackageLoader("mmsearch.recommend", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = Markup
    return environment.get_template("report.html.j2").render(
        rec=recommendation,
        d=recommendation["decision"],
        verdict=_VERDICTS[recommendation["decision"]["kind"]],
        facts=_facts(recommendation),
        finalists=figures.finalists(recommendation),
        differences=figures.differences(recommendation),
        modalities=figures.modalities(recommendation),
        cost=figures.cost(recommendation, search, colour),
        best=figures.best_so_far(search, colour),
        curves=figures.curves(search, colour),
        trials=_trials(trials),
        config=words.knobs(recommendation["decision"]["config"]),
        provenance=_provenance(recommendation),
        css=Markup((Path(__file__).parent / "report.css").read_text(encoding="utf-8")),
    )


def write(run_dir: Path, recommendation: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Path:
    """`RUN/report.html`, replaced as a whole."""
    return save(Path(run_dir) / "report.html", recommendation, events)


def save(path: Path, recommendation: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Path:
    """The page at `path`, replaced as a whole."""
    write_text(path, html(recommendation, events))
    return path


def _facts(rec: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers beside the verdict."""
    d = rec["decision"]
    chosen = next(f for f in rec["finalists"] if f["label"] == d["label"])
    shared = chosen["cost_shared_joint_epochs"]
    facts = [
        {
            "name": "Held-out accuracy" + ("" if d["kind"] in ("method", "unimodal") else f", {d['label']}"),
            "value": words.percent(chosen["select"]["mean"]),
            "note": _range(chosen["select"]) + (f" over {words.count(d['seeds'], 'seed')}" if d["seeds"] > 1 else ""),
        }
    ]
    if d["gain_over_joint"]:
        facts.append(
            {
                "name": "Points over joint training",
                "value": words.points(d["gain_over_joint"]["mean"]),
                "note": _range(d["gain_over_joint"], words.points),
            }
        )
    if chosen["test"]:
        facts.append(
            {"name": "Test, read once", "value": words.percent(chosen["test"]["mean"]), "note": _range(chosen["test"])}
        )
    facts.append(
        {
            "name": "One training",
            "value": words.duration(chosen["seconds"] + chosen["seconds_shared"]),
            "note": f"{words.joint_epochs(chosen['cost_joint_epochs'])} joint epochs"
            + (f" + {words.joint_epochs(shared)} for teachers" if shared else ""),
        }
    )
    return facts


def _range(part: Mapping[str, Any], text: Any = lambda v: f"{100 * v:.1f}") -> str:
    low, high = part["ci95"]
    return "no interval: one seed" if low is None else f"{text(low)} to {text(high)}"


def _trials(trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The rows of the table of all trials, with the knobs in which they differ."""
    settings = [dict(words.knobs(r.document)) for r in trials]
    shown = ("method.name", "fusion.name", "data")
    names = [
        n for n in dict.fromkeys(k for s in settings for k in s) if n not in shown and not n.startswith("teachers.")
    ]
    differing = [n for n in names if len({s.get(n) for s in settings}) > 1]
    return [
        {
            "id": r.trial_id,
            "stage": r.stage,
            "method": r.method,
            "fusion": r.fusion,
            "state": _STATES[r.state],
            "score": words.percent(r.score),
            "epoch": f"{r.epoch} of {r.epochs}",
            "cost": words.joint_epochs(r.cost_joint_epochs),
            "time": words.duration(r.seconds),
            "knobs": ", ".join(f"{n.removeprefix('method.')} {s[n]}" for n in differing if n in s),
            "reason": ((r.reason or "").strip().splitlines() or [""])[-1],
        }
        for r, s in zip(trials, settings, strict=True)
    ]


def _provenance(rec: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    p = rec["provenance"]
    data, run = p["dataset"], p["run_cost"]
    parts = ", ".join(f"{name} {n}" for name, n in data["parts"].items())
    modalities = ", ".join(f"{name} ({kind})" for name, kind in data["modalities"].items())
    return [
        (
            "Data",
            [
                ("name", data["name"]),
                ("digest", data["digest"]),
                ("clips", f"{data['clips']}: {parts}"),
                ("classes", f"{len(data['classes'])}: {', '.join(map(str, data['classes'][:30]))}"),
                ("modalities", modalities),
            ],
        ),
        (
            "Run",
            [
                ("written", p["created"]),
                ("trials", ", ".join(f"{_STATES[s]} {n}" for s, n in run["states"].items())),
                (
                    "cost",
                    f"{words.joint_epochs(run['joint_epochs'])} joint epochs, {words.duration(run['trial_seconds'])}",
                ),
                ("confirmation seeds", ", ".join(map(str, p["seeds"]))),
                ("readings of test", str(p["test_readings"])),
            ],
        ),
        ("Arguments", words.knobs(p["sweep"].get("arguments", p["sweep"]))),
        ("Versions", list(p["versions"].items())),
    ]
