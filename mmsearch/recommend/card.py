"""The recommendation as a claim: `recommendation.json`, and the words that command line and report share."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmsearch.errors import MMSearchError
from mmsearch.files import write_text
from mmsearch.recommend.decision import MARGIN, Decision, Finalist, chances, decide, summary
from mmsearch.recommend.evidence import (
    Rows,
    failed_finalists,
    finalists_of,
    labels_of,
    modality_evidence,
    run_cost,
)
from mmsearch.recommend.fusions import fusion_evidence
from mmsearch.recommend.words import (
    count,
    duration,
    joint_epochs,
    listed,
    percent,
    percent_interval,
    points,
    points_interval,
)
from mmsearch.search.objectives import DEFAULT, front
from mmsearch.search.trials import records

FORMAT = 1
FILE = "recommendation.json"
"""In the run's folder."""

_PACKAGES = ("mmsearch", "torch", "timm", "ray", "optuna", "numpy", "scipy")


class Data(Protocol):
    """What the recommendation needs to know of the clips; a `ClipData` has it."""

    name: str
    digest: str
    classes: list[str]
    clip_ids: list[str]

    @property
    def modalities(self) -> Mapping[str, Any]:
        """By name, each with a `kind`."""
        ...

    def part(self, name: str, fold: int = 0) -> np.ndarray:
        """The rows of a part."""
        ...


def resolution_of(data: Data) -> float:
    """The step in which an accuracy on select moves: one clip over all its clips."""
    return 1.0 / max(1, len(data.part("select", 1)))


def decided(
    events: Sequence[Mapping[str, Any]], data: Data, sweep: Mapping[str, Any]
) -> tuple[list[Finalist], Decision]:
    """Finalists and decision from the events of a finished confirmation; reads select alone.

    Raises:
        MMSearchError: no finished confirmation of plain joint training.
    """
    finalists = finalists_of(records(events), select_rows(data))
    asked = sweep.get("arguments", {})
    margin = asked["margin"] / 100 if "margin" in asked else MARGIN
    return finalists, decide(finalists, margin=margin, resolution=resolution_of(data), planned=asked.get("seeds"))


def select_rows(data: Data) -> Rows:
    """The clips of select by fold, each drawn once."""
    return functools.cache(lambda fold: data.part("select", fold))


def build(events: Sequence[Mapping[str, Any]], data: Data, sweep: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `recommendation.json`.

    Args:
        events: the journal's; with `test` events if the test part has been read.
        data: of the run.
        sweep: the content of `sweep.json` (arguments, versions, created).

    Raises:
        MMSearchError: no finished confirmation of plain joint training.
    """
    events = before_refit(events)
    trials = records(events)
    finalists, decision = decided(events, data, sweep)
    labels = labels_of(finalists)
    best = dict(zip(map(id, finalists), chances(finalists), strict=True))
    resolution = resolution_of(data)
    chosen = decision.chosen
    gain = decision.gain(chosen)
    recommendation: dict[str, Any] = {
        "format": FORMAT,
        "decision": {
            "kind": decision.kind,
            "label": labels[id(chosen)],
            "method": chosen.method,
            "fusion": chosen.fusion,
            "modality": chosen.modality,
            "config": chosen.config,
            "trial_ids": list(chosen.trial_ids.values()),
            "gain_over_joint": gain.to_dict(labels) if gain else None,
            "reference": labels[id(decision.reference)],
            "leader": labels[id(decision.leader)],
            "tied_with": [labels[id(f)] for f in decision.tied],
            "largest_possible_gain": decision.largest_possible_gain,
            "margin": decision.margin,
            "seeds": decision.seeds,
            "seeds_needed": decision.seeds_needed() if decision.kind == "no_clear_winner" else None,
        },
        "finalists": [_finalist(f, labels[id(f)], resolution, best[id(f)]) for f in finalists],
        "comparisons": [c.to_dict(labels) for c in (*decision.against_joint, *decision.against_chosen)],
        "fusions": fusion_evidence(trials, finalists, decision, resolution),
        "modalities": modality_evidence(trials, list(data.modalities), decision),
        "pareto": front(trials, sweep.get("arguments", {}).get("objectives") or DEFAULT),
        "failed": failed_finalists(trials),
        "provenance": {
            "created": _concluded(events),
            "dataset": {
                "name": data.name,
                "digest": data.digest,
                "clips": len(data.clip_ids),
                "classes": list(data.classes),
                "modalities": {name: m.kind for name, m in data.modalities.items()},
                "parts": {p: len(data.part(p, 1)) for p in ("train", "val", "select", "test")},
            },
            "seeds": sorted({s for f in finalists for s in f.select}),
            "run_cost": run_cost(trials),
            "test_readings": sum(e["event"] == "test_read" for e in events),
            "extensions": sum(e["event"] == "extended" for e in events),
            "versions": _versions(),
            "sweep": dict(sweep),
        },
    }
    headline, sentences = words_of(recommendation)
    recommendation["decision"] |= {"headline": headline, "sentences": sentences}
    return recommendation


def before_refit(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The events without those of the refit, which comes after the recommendation and is no evidence."""
    refit = {e["trial_id"] for e in events if e["event"] == "asked" and e["stage"] == "refit"}
    return [e for e in events if e.get("trial_id") not in refit]


def _concluded(events: Sequence[Mapping[str, Any]]) -> str:
    """When the last thing that a recommendation rests on was known."""
    times = [e.get("time", 0.0) for e in events if e["event"] in ("told", "test_read", "test")]
    return datetime.fromtimestamp(max(times, default=0.0), UTC).isoformat(timespec="seconds")


def _finalist(f: Finalist, label: str, resolution: float, best: float) -> dict[str, Any]:
    return {
        "label": label,
        "method": f.method,
        "fusion": f.fusion,
        "modality": f.modality,
        "config": f.config,
        "trial_ids": list(f.trial_ids.values()),
        "seeds": list(f.select),
        "dropped": f.dropped,
        "p_best": best,
        "select": summary(f.select, resolution).to_dict(),
        "test": summary(f.test).to_dict() if f.test else None,
        "cost_joint_epochs": f.cost_joint_epochs,
        "cost_shared_joint_epochs": f.cost_shared_joint_epochs,
        "seconds": f.seconds,
        "seconds_shared": f.seconds_shared,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def words_of(rec: Mapping[str, Any]) -> tuple[str, list[dict[str, str]]]:
    """The headline, and the sentences below it as `{"about", "text"}`, in words a practitioner understands."""
    d = rec["decision"]
    by_label = {f["label"]: f for f in rec["finalists"]}
    chosen = by_label[d["label"]]
    evidence = {"method": _winner, "unimodal": _winner, "baseline": _baseline, "no_clear_winner": _no_clear_winner}
    topics = {
        "Evidence": evidence[d["kind"]](rec, chosen),
        "Tie": _tie(d, by_label),
        "Test": _test(rec, chosen, by_label),
        "Modalities": _modalities(rec, d),
        "Fusion": _fusions(rec, d),
        "Cost": [_cost(rec, chosen)],
        "Failures": rec["failed"],
    }
    return _headline(d), [{"about": about, "text": " ".join(say)} for about, say in topics.items() if say]


def _headline(d: Mapping[str, Any]) -> str:
    if d["kind"] == "baseline":
        return "No method beats plain joint training here"
    if d["kind"] == "no_clear_winner":
        return "No clear winner"
    if d["modality"]:
        return f"Use the {d['modality']} alone"
    return f"Train with {d['label'].split(' · ')[0]}" + ("" if d["fusion"] == "own" else f", fusion {d['fusion']}")


def _against_joint(rec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The comparisons with joint training that count: of the finalists that were not dropped."""
    dropped = {f["label"] for f in rec["finalists"] if f["dropped"]}
    return [c for c in rec["comparisons"] if c["b"] == rec["decision"]["reference"] and c["a"] not in dropped]


def _compared(rec: Mapping[str, Any]) -> str:
    """How many comparisons with joint training the correction is for; those with the dropped count."""
    return count(sum(c["b"] == rec["decision"]["reference"] for c in rec["comparisons"]), "comparison")


def _winner(rec: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    d = rec["decision"]
    return [
        f"It reaches {percent_interval(chosen['select'])} on held-out clips over {count(d['seeds'], 'fresh seed')}. "
        f"That is {points_interval(d['gain_over_joint'])} points against plain joint training: beyond the noise, "
        f"after correction for {_compared(rec)}."
    ]


def _baseline(rec: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    d = rec["decision"]
    seeds = count(d["seeds"], "fresh seed")
    say = [f"Plain joint training reaches {percent_interval(chosen['select'])} on held-out clips over {seeds}."]
    if d["gain_over_joint"]:
        say.append(f"This fusion gains {points_interval(d['gain_over_joint'])} points over the other one.")
        return say
    rivals = [c for c in _against_joint(rec) if c["mean"] is not None]
    if rivals:
        best = max(rivals, key=lambda c: c["mean"])
        say.append(
            f"The best of {count(len(rivals), 'rival')}, {best['a']}, differs by {points_interval(best)} points; a "
            f"gain below {100 * d['margin']:.1f} points is not worth another recipe."
        )
    top = d["largest_possible_gain"]
    if top is not None and top >= d["margin"]:
        say.append(f"These seeds cannot rule out a gain of up to {100 * top:.1f} points.")
    return say


def _no_clear_winner(rec: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    d = rec["decision"]
    seeds = count(d["seeds"], "fresh seed")
    against = _against_joint(rec)
    lead = next((c for c in against if c["a"] == d["leader"]), None)
    if lead is None:
        say = f"Plain joint training has the highest mean over {seeds}, too few for a verdict."
    elif lead["ci95"][0] is None:
        say = (
            f"{lead['a']} leads plain joint training by {points(lead['mean'])} points on one shared seed. One seed "
            "says nothing of the noise, so it supports no claim."
        )
    else:
        say = (
            f"{lead['a']} leads plain joint training by {points_interval(lead)} points over {seeds}, which is not "
            f"beyond the noise after correction for {_compared(rec)}."
        )
    if lead and (needed := d["seeds_needed"]):
        more = needed - len(lead["values"])
        say += f" If the lead stays as it is, about {count(more, 'more seed')} would prove it (--seeds {needed})."
    handed = "plain joint training" if d["label"] == d["reference"] else d["label"]
    which = f"the cheapest whose mean is within {100 * d['margin']:.1f} points of the highest"
    return [say, f"Until more confirmation seeds tell, the configuration handed over is {handed}: {which}."]


def _tie(d: Mapping[str, Any], by_label: Mapping[str, Any]) -> list[str]:
    if d["kind"] == "no_clear_winner":
        return []
    if d["kind"] == "baseline":
        alone = [t for t in d["tied_with"] if by_label[t]["modality"]]
        return [f"Not told apart from {listed(alone)}: the other modalities may add nothing."] if alone else []
    if not d["tied_with"]:
        return ["None: no other finalist that reaches joint training comes within the noise."]
    rivals = [f"{t} ({percent(by_label[t]['select']['mean'])}, {_full(by_label[t])})" for t in d["tied_with"]]
    return [
        f"Not told apart from {listed(rivals)}. Of those whose mean is within {100 * d['margin']:.1f} points of the "
        f"highest, the cheapest is recommended ({_full(by_label[d['label']])})."
    ]


def _full(finalist: Mapping[str, Any]) -> str:
    total = finalist["cost_joint_epochs"] + finalist["cost_shared_joint_epochs"]
    return f"{joint_epochs(total)} joint epochs" + (
        " with its teachers" if finalist["cost_shared_joint_epochs"] else ""
    )


def _test(rec: Mapping[str, Any], chosen: Mapping[str, Any], by_label: Mapping[str, Any]) -> list[str]:
    provenance = rec["provenance"]
    unread = [f["label"] for f in rec["finalists"] if not f["test"]] if provenance["test_readings"] else []
    later = f"Not read for {listed(unread)}, confirmed after the reading; only --read-test-again reads it again."
    if not chosen["test"]:
        return [later] if unread else []
    clips = provenance["dataset"]["parts"]["test"]
    joint = by_label[rec["decision"]["reference"]]
    versus = "" if joint is chosen or not joint["test"] else f"; plain joint training {percent_interval(joint['test'])}"
    say = f"{percent_interval(chosen['test'])} on the {clips} test clips, {_read(provenance)}{versus}."
    if provenance["test_readings"] > 1:
        return [say, "Whoever extended the sweep could know the earlier figures, so they are no longer untouched."]
    return [say, later] if unread else [say]


def _read(provenance: Mapping[str, Any]) -> str:
    readings = provenance["test_readings"]
    if readings > 1:
        return f"read {readings} times, the last after this decision"
    return "read once, before the sweep was extended" if provenance["extensions"] else "read once after the decision"


def _modalities(rec: Mapping[str, Any], d: Mapping[str, Any]) -> list[str]:
    say = []
    for m in rec["modalities"]:
        if m["alone"] is None or m["joint"] is None:
            continue
        inside = "" if m["chosen"] is None else f", inside {d['label']} {percent(m['chosen'])}"
        say.append(
            f"The {m['modality']} encoder alone reaches {percent(m['alone'])}; inside joint training its own "
            f"prediction reaches {percent(m['joint'])}{inside}."
        )
    return say


def _fusions(rec: Mapping[str, Any], d: Mapping[str, Any]) -> list[str]:
    found = rec["fusions"]
    say = [_best_fusion(u) for u in found["under"]]
    if changes := found["changes"]:
        which = "is another one" if changes["changes"] else "is the same"
        say.append(f"The best fusion {which} under both; the chance that it differs is {changes['chance']:.0%}.")
    if say or d["fusion"] == "own" or d["modality"]:
        return say
    tried = [f"{s['fusion']} {percent(s['best'])} ({count(s['trials'], 'trial')})" for s in found["search"]]
    if len(tried) < 2:
        return [f"{d['fusion']}; no other fusion was compared with this method."]
    return [f"{d['fusion']}, by the search's own best scores on val, which are no proof: {listed(tried)}."]


def _best_fusion(under: Mapping[str, Any]) -> str:
    best, *others = under["fusions"]
    rivals = [
        f"{points_interval(f['behind'])} points over {f['fusion']}"
        + ("" if f["behind"]["beyond_noise"] else " (not beyond the noise)")
        for f in others
    ]
    return f"Under {under['method']}, {best['fusion']} is best (chance {best['p_best']:.0%}): {listed(rivals)}."


def _cost(rec: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    run = rec["provenance"]["run_cost"]
    shared = chosen["cost_shared_joint_epochs"]
    extra = f", plus {joint_epochs(shared)} ({duration(chosen['seconds_shared'])}) for its teachers" if shared else ""
    own = joint_epochs(chosen["cost_joint_epochs"])
    return (
        f"One training takes {own} joint epochs ({duration(chosen['seconds'])}){extra}. "
        f"Finding this out took {count(run['trials'], 'trial')} and {joint_epochs(run['joint_epochs'])} joint epochs."
    )


def write(run_dir: Path, recommendation: Mapping[str, Any]) -> Path:
    """`RUN/recommendation.json`, replaced as a whole."""
    path = Path(run_dir) / FILE
    write_text(path, json.dumps(recommendation, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read(run_dir: Path) -> dict[str, Any]:
    """The recorded recommendation.

    Raises:
        MMSearchError: there is none, it is torn, or of another format.
    """
    path = Path(run_dir) / FILE
    try:
        recommendation = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MMSearchError(
            f"{path}: no recommendation yet; `mmsearch status {run_dir}` says how far the run is"
        ) from None
    except ValueError as e:
        raise MMSearchError(
            f"{path}: not valid JSON ({e}); `mmsearch recommend` on a copy without it rebuilds it"
        ) from None
    if not isinstance(recommendation, dict) or recommendation.get("format") != FORMAT:
        raise MMSearchError(f"{path}: not a recommendation of format {FORMAT}; rebuild it with `mmsearch recommend`")
    return recommendation
