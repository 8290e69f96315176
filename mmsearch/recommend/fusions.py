"""Which fusion: the second answer, under joint training and under the leading method, each with its own evidence.

Every fusion that was trained to its end under one of the two is a finalist with its best setting. A post-hoc fusion
needs no training of its own: it combines the unimodal logits of the host's trainings, so that its accuracy less the
host's on the same clips (val, which the fresh seeds use for nothing else) is paired with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mmsearch.fusion import OWN
from mmsearch.recommend.decision import (
    BASELINE,
    ONE_LOOK,
    UNIMODAL,
    Decision,
    Finalist,
    chances,
    compare,
)
from mmsearch.recommend.evidence import labels_of
from mmsearch.search.trials import TrialRecord

_POST_HOC = "val/accuracy/fusion/"


def fusion_evidence(
    records: Mapping[str, TrialRecord], finalists: Sequence[Finalist], decision: Decision, resolution: float
) -> dict[str, Any]:
    """The second answer: how fusions compare.

    Returns:
        `under`: for joint training and the leading method, the fusions that were compared, best first; see
        :func:`_under`. `changes`: whether the best fusion is another one under the leading method than under joint
        training, with the chance of that; None where the two cannot be compared. Of the chosen method, `confirmed`:
        comparisons over seeds; `search`: `{"fusion", "trials", "best"}` by the search's own best score on val, an
        indication and no evidence.
    """
    chosen = decision.chosen
    rivals = [f for f in finalists if f.method == chosen.method and f.fusion != chosen.fusion]
    labels = labels_of(finalists)
    confirmed = compare([(chosen, f) for f in rivals], ONE_LOOK, resolution, decision.noise)
    tried: dict[str, list[float]] = {}
    for r in records.values():
        if r.method == chosen.method != UNIMODAL and r.searched and r.state == "complete" and r.score is not None:
            tried.setdefault(r.fusion, []).append(r.score)
    search = [{"fusion": k, "trials": len(v), "best": max(v)} for k, v in tried.items()]
    under = [
        found
        for method in dict.fromkeys([BASELINE, _leading(finalists, decision)])
        if (found := _under(method, records, finalists, resolution)) is not None
    ]
    return {
        "under": under,
        "changes": _changes(under),
        "confirmed": [c.to_dict(labels) for c in confirmed],
        "search": sorted(search, key=lambda s: -float(s["best"])),  # type: ignore[arg-type]
    }


def _leading(finalists: Sequence[Finalist], decision: Decision) -> str:
    """The method beside joint training whose fusions were confirmed; the chosen one where there are several."""
    fusions: dict[str, set[str]] = {}
    for f in (f for f in finalists if f.fusion != OWN):
        fusions.setdefault(f.method, set()).add(f.fusion)
    several = [m for m, found in fusions.items() if m != BASELINE and len(found) > 1]
    return decision.chosen.method if decision.chosen.method in several or not several else several[0]


def _under(
    method: str, records: Mapping[str, TrialRecord], finalists: Sequence[Finalist], resolution: float
) -> dict[str, Any] | None:
    """The fusions under a method.

    Returns:
        `method`; `best`, the fusion with the highest mean; `proven`, whether it is beyond the noise better than each
        other one; `fusions`, best first: `{"fusion", "post_hoc", "label", "seeds", "mean", "p_best",
        "behind"}` with `behind` the comparison of the best less this one (None for the best). None where there is
        nothing to compare.
    """
    trained = [f for f in finalists if f.method == method and f.fusion != OWN and f.select]
    if not trained:
        return None
    host = max(trained, key=lambda f: (not f.dropped, f.mean))
    entries = [(f.fusion, False, f) for f in trained] + [
        (name, True, dataclasses.replace(host, select=select, dropped=False, right={}))
        for name, select in _post_hoc(host, records).items()
    ]
    if len(entries) < 2:
        return None
    share = chances([f for *_, f in entries])
    whole = [e for e in entries if not e[2].dropped]
    best = max(whole, key=lambda e: e[2].mean)
    others = [e for e in entries if e is not best]
    behind = compare([(best[2], f) for *_, f in others], ONE_LOOK, resolution)
    against = {id(c.b): c for c in behind}
    labels = labels_of(finalists)
    fusions: list[dict[str, Any]] = []
    ranked = sorted(zip(entries, share, strict=True), key=lambda x: (x[0] is not best, -x[0][2].mean))
    for (name, post_hoc, f), p in ranked:
        entry = {"fusion": name, "post_hoc": post_hoc, "label": None if post_hoc else labels[id(f)]}
        fusions.append({**entry, "seeds": len(f.select), "mean": f.mean, "p_best": p, "behind": None})
        if (c := against.get(id(f))) is not None:
            difference = c.difference.to_dict() if c.difference else {"mean": None, "ci95": [None, None]}
            fusions[-1]["behind"] = {**difference, "beyond_noise": c.proven}
    return {"method": method, "best": best[0], "proven": all(c.proven for c in behind), "fusions": fusions}


def _post_hoc(host: Finalist, records: Mapping[str, TrialRecord]) -> dict[str, dict[int, float]]:
    """By post-hoc fusion the host's accuracy of each seed, plus what the fusion gains on val of that seed."""
    found: dict[str, dict[int, float]] = {}
    for seed, identity in host.trial_ids.items():
        metrics = records[identity].metrics or {}
        for key, value in metrics.items():
            if key.startswith(_POST_HOC) and "val/accuracy" in metrics:
                gain = value - metrics["val/accuracy"]
                found.setdefault(key.removeprefix(_POST_HOC), {})[seed] = host.select[seed] + gain
    return {name: select for name, select in found.items() if len(select) == len(host.select)}


def _changes(under: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Whether the best fusion changes with the method, and the chance of it if both answers are independent."""
    if len(under) < 2:
        return None
    joint, leading = ({e["fusion"]: e["p_best"] for e in u["fusions"]} for u in under)
    if len(joint.keys() & leading.keys()) < 2:
        return None
    same = sum(joint[f] * leading[f] for f in joint.keys() & leading.keys())
    return {"changes": under[0]["best"] != under[1]["best"], "chance": 1 - same}
