"""The content of a report: the answer in front, the evidence behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmsearch.recommend import explain, figures, figures_search, sections, words
from mmsearch.recommend.content import STATES, Block, Page, Section, Table
from mmsearch.recommend.media import Clips
from mmsearch.search.journal import seconds_spent
from mmsearch.search.trials import TrialRecord, records

_VERDICTS = {
    "method": "A method wins",
    "unimodal": "One modality wins",
    "baseline": "Joint training stands",
    "no_clear_winner": "Not settled",
}
_PHASES = {
    "decode": "decoding clips",
    "teachers": "training single modalities",
    "search": "searching",
    "confirm": "confirming finalists on fresh seeds",
    "decide": "deciding",
    "refit": "training the model to hand over",
    "diagnose": "diagnosing",
    "done": "done",
}


def page(
    rec: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    run_dir: Path | None = None,
    shown: Clips | None = None,
) -> Page:
    """The report of a finished run.

    Args:
        rec: the content of `recommendation.json`.
        events: the journal's.
        run_dir: the run's folder, for the models' answers clip by clip; None where it is not at hand.
        shown: the clips, where some are to be seen and heard.
    """
    d = rec["decision"]
    found = records(events)
    look = figures.looks([*(f["method"] for f in rec["finalists"]), *(r.method for r in found.values())], d["method"])
    metrics = explain.metrics_by_epoch(events)
    parts = [
        _evidence(rec),
        sections.inside(rec, found, metrics),
        sections.clips(rec, run_dir, shown),
        sections.search(rec, found, metrics, look, events),
        _provenance(rec),
    ]
    return Page(
        kind=d["kind"],
        verdict=_VERDICTS[d["kind"]],
        dataset=rec["provenance"]["dataset"]["name"],
        headline=d["headline"],
        lead=d["sentences"][0]["text"],
        facts=_facts(rec),
        steps=_steps(rec, run_dir),
        reasons=d["sentences"][1:],
        sections=[s for s in parts if s.blocks],
        foot=rec["provenance"]["created"],
    )


def live(events: Sequence[Mapping[str, Any]], name: str) -> Page:
    """The report of a run that has no recommendation yet: the search so far, and no verdict.

    Args:
        events: the journal's so far.
        name: of the run.
    """
    found = records(events)
    trials = list(found.values())
    search = [r for r in trials if r.searched]
    look = figures.looks(r.method for r in trials)
    phase = next((e["name"] for e in reversed(events) if e["event"] == "phase"), "start")
    states = Counter(STATES[r.state] for r in trials)
    ended = sum(r.finished for r in trials)
    last = datetime.fromtimestamp(events[-1]["time"] if events else 0.0, UTC).isoformat(timespec="seconds")
    drawn = [figures_search.best_so_far(search, look), figures_search.curves(search, look)]
    blocks: list[Block] = [
        _methods(trials),
        *(f for f in drawn if f),
        *(t for t in [sections.spent(events, None)] if t),
        *([sections.trials_table(trials)] if trials else []),
    ]
    return Page(
        kind="running",
        verdict=_PHASES.get(phase, phase).capitalize(),
        dataset=name,
        headline=f"{words.count(ended, 'trial')} done, {states['running']} running",
        lead="There is no recommendation yet. The best score of a search is high by selection and is no evidence: the "
        "finalists are first retrained on fresh seeds and compared on clips that the search has not seen.",
        facts=[
            {
                "name": "Elapsed",
                "value": words.duration(seconds_spent(list(map(dict, events)))),
                "note": "all sessions",
            },
            {
                "name": "Spent",
                "value": words.joint_epochs(sum(r.cost_joint_epochs or 0.0 for r in trials)),
                "note": "joint epochs",
            },
            {"name": "Stopped early", "value": str(states["stopped"]), "note": "trials, to save cost"},
            {"name": "Failed", "value": str(states["failed"]), "note": "trials"},
        ],
        steps=[],
        reasons=[],
        sections=[Section("search", "The search so far", "", blocks)],
        foot=f"as of {last}",
    )


def _methods(trials: Sequence[TrialRecord]) -> Table:
    rows = []
    for method in dict.fromkeys(r.method for r in trials):
        own = [r for r in trials if r.method == method]
        best = [r.score for r in own if r.searched and r.state == "complete" and r.score is not None]
        states = Counter(STATES[r.state] for r in own)
        rows.append(
            [
                method,
                *(str(states[s]) for s in ("complete", "running", "stopped", "failed")),
                words.percent(max(best, default=None)),
                words.joint_epochs(sum(r.cost_joint_epochs or 0.0 for r in own)),
            ]
        )
    columns = ["method", "complete", "running", "stopped", "failed", "best on val", "joint epochs"]
    return Table("methods", "Methods", columns, rows)


def _facts(rec: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers beside the verdict: how good, how much better, how sure, on test, at what cost."""
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
    facts += _sureness(rec)
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


def _sureness(rec: Mapping[str, Any]) -> list[dict[str, str]]:
    """How sure the verdict is, where the seeds allow a number."""
    d = rec["decision"]
    if d["kind"] == "baseline":
        top = d["largest_possible_gain"]
        if top is None:
            return []
        note = "points, the largest gain that these seeds leave open"
        return [{"name": "How sure", "value": "none" if top <= 0 else f"≤ {100 * top:.1f}", "note": note}]
    lead = next((c for c in rec["comparisons"] if c["a"] == d["leader"] and c["b"] == d["reference"]), None)
    shown = d["gain_over_joint"] if d["kind"] != "no_clear_winner" else lead
    if not shown or shown["ci95"][0] is None:
        return []
    p = shown["p_holm"]
    against = "beyond the noise" if shown["beyond_noise"] else "not beyond the noise"
    whose = "" if shown["a"] == d["label"] else f"{shown['a']} over joint training: "
    value = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    return [{"name": "How sure", "value": value, "note": f"{whose}{against}, corrected for all comparisons"}]


def _reading(rec: Mapping[str, Any]) -> str:
    times = rec["provenance"]["test_readings"]
    return "Test, read once" if times == 1 else f"Test, read {times} times"


def _range(part: Mapping[str, Any], text: Any = lambda v: f"{100 * v:.1f}") -> str:
    low, high = part["ci95"]
    return "no interval: one seed" if low is None else f"{text(low)} to {text(high)}"


def _steps(rec: Mapping[str, Any], run_dir: Path | None) -> list[dict[str, str]]:
    """What the reader can do now, the most useful first."""
    d = rec["decision"]
    run = str(run_dir) if run_dir else "RUN"
    steps = []
    top = d["largest_possible_gain"]
    if d["kind"] == "no_clear_winner" or (d["kind"] == "baseline" and top is not None and top >= d["margin"]):
        needed = d.get("seeds_needed")
        more = f"about {words.count(needed - d['seeds'], 'more seed')}" if needed else "more seeds"
        seeds = needed or 2 * d["seeds"]
        text = f"To be surer, confirm on {more}"
        steps.append({"text": text, "command": f"mmsearch extend {run} --seeds {seeds}"})
    if run_dir and (run_dir / "best").is_dir():
        steps.append({"text": "Use the trained model", "command": f"mmsearch predict {run}/best CLIPS"})
    else:
        steps.append(
            {
                "text": "See the recommended training, its knobs and its log",
                "command": f"mmsearch show {run} {d['trial_ids'][0]}",
            }
        )
    if d["kind"] == "unimodal":
        others = [m for m in rec["provenance"]["dataset"]["modalities"] if m != d["modality"]]
        text = (
            f"Before you drop {words.listed(others)}, look at some of these clips: a modality out of step adds nothing"
        )
        steps.append({"text": text, "command": ""})
    if rec["failed"]:
        steps.append({"text": "Read why trainings failed", "command": f"mmsearch show {run}"})
    return steps


def _evidence(rec: Mapping[str, Any]) -> Section:
    blocks: list[Block | None] = [
        figures.finalists(rec),
        figures.differences(rec),
        figures.modalities(rec),
        _fusions(rec),
        Table(
            "config",
            "Configuration handed over",
            ["knob", "value"],
            [list(k) for k in words.knobs(rec["decision"]["config"])],
            shape="long",
        ),
    ]
    return Section(
        "evidence",
        "The evidence",
        "Finalists were retrained from scratch, each seed on a fresh split, and compared on the part of that split "
        "that was held out of the training (select). Intervals cover 95 %.",
        [b for b in blocks if b],
    )


def _fusions(rec: Mapping[str, Any]) -> Block | None:
    """The second answer: confirmed where several fusions were, else what the search says of the chosen method's."""
    found = rec.get("fusions") or {}
    if found.get("under"):
        return figures.fusions(found["under"], rec["decision"]["margin"])
    rows = [[s["fusion"], words.percent(s["best"]), str(s["trials"])] for s in found.get("search") or []]
    if len(rows) < 2:
        return None
    return Table(
        "fusions",
        f"Which fusion, under {rec['decision']['method']}",
        ["fusion", "best of the search, val", "complete trials"],
        rows,
        "No two fusions were confirmed on fresh seeds; the search's own best is high by selection and no evidence.",
    )


def _provenance(rec: Mapping[str, Any]) -> Section:
    p = rec["provenance"]
    data, run = p["dataset"], p["run_cost"]
    parts = ", ".join(f"{name} {n}" for name, n in data["parts"].items())
    modalities = ", ".join(f"{name} ({kind})" for name, kind in data["modalities"].items())
    states = ", ".join(f"{STATES[s]} {n}" for s, n in run["states"].items())
    cost = f"{words.joint_epochs(run['joint_epochs'])} joint epochs, {words.duration(run['trial_seconds'])}"
    pairs = {
        "Data": [
            ("name", data["name"]),
            ("digest", data["digest"]),
            ("clips", f"{data['clips']}: {parts}"),
            ("classes", f"{len(data['classes'])}: {', '.join(map(str, data['classes'][:30]))}"),
            ("modalities", modalities),
        ],
        "Run": [
            ("written", p["created"]),
            ("trials", states),
            ("cost", cost),
            ("confirmation seeds", ", ".join(map(str, p["seeds"]))),
            ("readings of test", str(p["test_readings"])),
        ],
        "Arguments": words.knobs(p["sweep"].get("arguments", p["sweep"])),
        "Versions": list(p["versions"].items()),
    }
    blocks: list[Block] = [
        Table(f"provenance-{title.lower()}", title, ["what", "value"], [[str(n), str(v)] for n, v in rows])
        for title, rows in pairs.items()
        if rows
    ]
    return Section("provenance", "Provenance", "", blocks)
