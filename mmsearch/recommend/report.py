"""One self-contained `report.html`: the answer on the first screen, the evidence below."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmsearch.files import write_text
from mmsearch.methods import METHODS
from mmsearch.recommend import figures, words
from mmsearch.search.fairness import full_curves, rank_agreement
from mmsearch.search.objectives import OBJECTIVES
from mmsearch.search.trials import TrialRecord, records

FEW_TRIALS = 3
"""Fewer trials that ran to their end say nothing of an order."""

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
    found = records(events)
    trials = list(found.values())
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
        cost=figures.cost(recommendation, found, colour),
        pareto=_pareto(recommendation.get("pareto", [])),
        fairness=_fairness(search),
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
            {"name": _reading(rec), "value": words.percent(chosen["test"]["mean"]), "note": _range(chosen["test"])}
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


def _reading(rec: Mapping[str, Any]) -> str:
    times = rec["provenance"]["test_readings"]
    return "Test, read once" if times == 1 else f"Test, read {times} times"


def _pareto(front: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The table of the trials that nothing betters in every objective."""
    if not front:
        return None
    names = list(front[0]["objectives"])
    rows = [
        [f"{f['method']} · {f['fusion']}", *(words.objective(n, v) for n, v in f["objectives"].items()), f["trial_id"]]
        for f in front
    ]
    return {"columns": ["method · fusion", *(OBJECTIVES[n] for n in names), "trial"], "rows": rows}


def _fairness(search: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """The table of how well the order at a rung agrees with the order at the end, by method."""
    stopped = Counter(r.method for r in search if r.state == "pruned")
    curves = full_curves(search)
    earliest = {m: METHODS.get(m).earliest for m in METHODS.names()}
    agreement = rank_agreement(curves, earliest=earliest)
    rows = [
        [
            method,
            str(epoch),
            words.UNKNOWN if a.tau is None else f"{a.tau:.2f} ({a.low:.2f} to {a.high:.2f})".replace("-", "−"),
            str(a.n),
            str(stopped[method]),
        ]
        for method, rungs in agreement.items()
        for epoch, a in rungs.items()
        if a.n >= FEW_TRIALS
    ]
    columns = ["method", "rung, epoch", "Kendall’s τ, 95 % interval", "trials to the end", "stopped"]
    return {"columns": columns, "rows": rows} if rows else None


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
