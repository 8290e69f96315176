"""The sections of a report that explain: inside the models, clip by clip, and the search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.methods import METHODS
from mmsearch.recommend import explain, figures, figures_models, figures_search, media, words
from mmsearch.recommend.content import STATES, Block, Media, Section, Sentences, Table
from mmsearch.recommend.figures import Figure
from mmsearch.recommend.spending import spending
from mmsearch.search.fairness import full_curves, rank_agreement
from mmsearch.search.importance import ENOUGH, importances, shared_importance
from mmsearch.search.objectives import OBJECTIVES
from mmsearch.search.trials import Records, TrialRecord

FEW_TRIALS = 3
"""Fewer trials that ran to their end say nothing of an order."""

MEDIA_CLIPS = 12
"""Clips of each list that are shown where that is asked for."""

CLIPS = 30
"""Clips that are listed as fixed and as broken; the CSV file has all."""


def _trial_ids(finalist: Mapping[str, Any]) -> dict[int, str]:
    return dict(zip(finalist["seeds"], finalist["trial_ids"], strict=True))


def inside(rec: Mapping[str, Any], found: Records, metrics: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Section:
    """What goes on inside joint training and the recommended model."""
    diagnosis = rec.get("diagnosis") or {}
    models = {who: m for who in ("joint", "chosen") if (m := (diagnosis.get("models") or {}).get(who))}
    blocks: list[Block | None] = []
    said = [s for s in diagnosis.get("sentences") or [] if s.get("text")]
    if said:
        blocks.append(Sentences("diagnosis", "In words", said))
    blocks.append(_learning(rec, found, metrics))
    if models:
        drawing = (
            figures_models.encoders, figures_models.shares, figures_models.robustness, figures_models.missing,
            figures_models.calibration,
        )  # fmt: skip
        blocks += [draw(models) for draw in drawing]
        blocks.append(
            Table(
                "measured",
                "All that was measured of each modality",
                figures_models.INSIDE,
                figures_models.inside(models),
                "Gap: what a probe of the encoder is short of the same encoder trained alone (under-training). "
                "Separability: purity of clusters of its features. Agreement: cosine, on the encoder, of the gradients "
                "of the joint loss and of its own. Value: mean over clips of the sample-level value. "
                "docs/diagnosis.md defines them.",
                "wide",
            )
        )
    blocks.append(_rule(diagnosis.get("ume_umt") or {}))
    where = f" on {diagnosis['part']}" if diagnosis.get("part") else ""
    note = (
        "Measured on the confirmation's models by epoch"
        + (f", and on those of one seed{where} by the diagnosis" if models else "")
        + ". It explains the result; it decided nothing."
    )
    return Section("inside", "What goes on inside", note, [b for b in blocks if b])


def _rule(found: Mapping[str, Any]) -> Table | None:
    """The numbers of the UME/UMT rule."""
    rows = [
        ["mean of the predictions of models trained apart", words.percent(found.get("acc_ume"))],
        ["a classifier on the features of all of them", words.percent(found.get("acc_probe"))],
        ["its lead, points", words.points_interval(found.get("lead"))],
        [
            "the rule",
            {"ume": "combine models trained apart", "umt": "teach a joint one"}.get(found.get("rule", ""), ""),
        ],
    ]
    note = (
        "Where the classifier leads beyond the noise, the modalities say something together that they don’t say apart."
    )
    title = "Models trained apart, or teachers of a joint one?"
    return Table("ume-umt", title, ["measured", "value"], rows, note) if found.get("rule") else None


def _learning(
    rec: Mapping[str, Any], found: Records, metrics: Mapping[str, Mapping[int, Mapping[str, float]]]
) -> Figure | None:
    d = rec["decision"]
    by_label = {f["label"]: f for f in rec["finalists"]}
    joint = by_label[d["reference"]]["trial_ids"]
    chosen = [] if d["label"] == d["reference"] or d["kind"] == "unimodal" else by_label[d["label"]]["trial_ids"]
    alone: dict[str, list[str]] = {}
    for r in found.values():
        if r.method == "unimodal" and r.stage != "refit" and not r.searched and r.state == "complete":
            alone.setdefault(r.document["method"].get("modality", ""), []).append(r.trial_id)
    panels = {
        "all modalities": {
            "joint": explain.curves_of(metrics, joint, "val/accuracy"),
            "chosen": explain.curves_of(metrics, chosen, "val/accuracy"),
        },
        **{
            m: {
                "alone": explain.curves_of(metrics, alone.get(m, []), "val/accuracy"),
                "joint": explain.curves_of(metrics, joint, f"val/accuracy/{m}"),
                "chosen": explain.curves_of(metrics, chosen, f"val/accuracy/{m}"),
            }
            for m in rec["provenance"]["dataset"]["modalities"]
        },
    }
    return figures_models.learning(panels, d["label"])


def answers_of(rec: Mapping[str, Any], run_dir: Path | None) -> explain.Answers | None:
    """What joint training and the recommended model answered on select, as far as the run's folder has it."""
    if run_dir is None:
        return None
    by_label = {f["label"]: f for f in rec["finalists"]}
    d = rec["decision"]
    joint, chosen = by_label[d["reference"]], by_label[d["label"]]
    classes = len(rec["provenance"]["dataset"]["classes"])
    return explain.answers(run_dir, _trial_ids(joint), _trial_ids(chosen), classes)


def clips(rec: Mapping[str, Any], run_dir: Path | None, shown: media.Clips | None = None) -> Section:
    """Which classes and which clips the recommended model gets right and joint training does not."""
    d = rec["decision"]
    classes = [str(c) for c in rec["provenance"]["dataset"]["classes"]]
    told = answers_of(rec, run_dir)
    blocks: list[Block | None] = []
    note = ""
    if told is not None:
        blocks.append(figures_models.confusion(told.confusion, classes, d["label"]) or _confused(told, classes, d))
        if told.seeds:
            names = explain.clip_names(run_dir) if run_dir else None
            note = (
                f"Over {words.count(told.seeds, 'seed')} joint training gave "
                f"{words.count(told.errors, 'wrong answer')} on select. {d['label']} turns {told.fixes} of these "
                f"right, and gets {told.breaks} wrong that joint training has right."
            )
            for name, title, changed in (("fixed", "fixes", told.fixed), ("broken", "breaks", told.broken)):
                blocks.append(_changed(name, f"Clips that {d['label']} {title}", changed, names, classes))
                if shown is not None and changed:
                    blocks.append(
                        _media(name, f"Clips that {d['label']} {title}, seen and heard", changed, names, classes, shown)
                    )
    else:
        diagnosis = rec.get("diagnosis") or {}
        models = diagnosis.get("models") or {}
        counts = {who: np.array(m["confusion"]) for who, m in models.items() if m.get("confusion")}
        blocks.append(figures_models.confusion(counts, classes, d["label"], "one seed"))
        clips = diagnosis.get("clips") or {}
        for name, title in (("fixed", "fixes"), ("broken", "breaks")):
            rows = [[str(c)] for c in clips.get(name) or []][:CLIPS]
            blocks.append(Table(name, f"Clips that {d['label']} {title}", ["clip"], rows) if rows else None)
    title = "What it gets wrong" if d["label"] == d["reference"] else "Where the answers differ"
    return Section("clips", title, note, [b for b in blocks if b])


def _media(
    name: str,
    title: str,
    changed: Sequence[explain.ClipChange],
    names: Sequence[str] | None,
    classes: Sequence[str],
    shown: media.Clips,
) -> Media:
    first = changed[:MEDIA_CLIPS]
    items = [
        {
            "name": row[0],
            "text": f"{row[1]}; joint training says {row[2]}, the recommended model {row[3]}",
            "picture": media.picture(shown, c.row) or "",
            "sound": media.sound(shown, c.row) or "",
        }
        for c, row in zip(first, clip_rows(first, names, classes), strict=True)
    ]
    return Media(f"{name}-media", title, items, "Under each clip its true class and what the two models answered.")


def _confused(told: explain.Answers, classes: Sequence[str], d: Mapping[str, Any]) -> Table | None:
    """Stands for a matrix of too many classes."""
    most = figures_models.CONFUSIONS
    columns, rows = figures_models.confused(told.confusion, classes, d["label"], most)
    note = f"The {most} pairs of classes that are confused most, over all seeds of the confirmation."
    return Table("confusion", "What is taken for what", columns, rows, note) if rows else None


def clip_rows(
    changed: Sequence[explain.ClipChange], names: Sequence[str] | None, classes: Sequence[str]
) -> list[list[str]]:
    """A row a clip: name, true class, what each model answered where exactly one was right, on how many seeds."""

    def said(answers: Sequence[int]) -> str:
        return ", ".join(f"{classes[a]} × {n}" if n > 1 else classes[a] for a, n in Counter(answers).most_common())

    return [
        [
            names[c.row] if names and c.row < len(names) else f"row {c.row}",
            classes[c.label],
            said(c.joint),
            said(c.chosen),
            f"{len(c.chosen)} of {c.seeds}",
        ]
        for c in changed
    ]


CLIP_COLUMNS = ["clip", "true class", "joint training says", "recommended says", "seeds"]
"""The columns of :func:`clip_rows`."""


def _changed(
    name: str, title: str, changed: Sequence[explain.ClipChange], names: Sequence[str] | None, classes: Sequence[str]
) -> Table | None:
    if not changed:
        return None
    more = len(changed) - CLIPS
    note = f"The first {CLIPS} of {len(changed)}; `mmsearch report RUN --csv FOLDER` writes all." if more > 0 else ""
    return Table(name, f"{title}: {len(changed)}", CLIP_COLUMNS, clip_rows(changed[:CLIPS], names, classes), note)


def spent(events: Sequence[Mapping[str, Any]], price: float | None) -> Table | None:
    """The table of device-hours by method, and of what was lost and idle.

    Args:
        events: the journal's.
        price: of a device-hour, in whatever money; None for hours alone.
    """
    found = spending(events)
    if found is None or not found.held:
        return None

    def row(name: str, hours: float, lost: float, losses: int) -> list[str]:
        money = [] if price is None else [f"{price * hours:.2f}"]
        return [name, words.hours(hours), f"{hours / found.held:.0%}", *money, words.hours(lost), str(losses)]

    methods = sorted(found.methods.items(), key=lambda item: -item[1].hours)
    idle = max(0.0, found.held - found.used)
    rows = [row(name, used.hours, used.lost, used.losses) for name, used in methods]
    rows += [
        row("no trial", idle, 0.0, 0),
        row("held in all", found.held, found.lost, sum(m.losses for _, m in methods)),
    ]
    money = [] if price is None else ["cost"]
    at = "" if price is None else f" The cost is at {price:g} a {found.device}-hour."
    return Table(
        "spent",
        f"{found.device}-hours",
        ["method", f"{found.device}-hours", "share", *money, "of them lost", "workers lost"],
        rows,
        "All trials of a method, confirmation included; teachers are trials of unimodal. Lost is what was trained "
        "again after a preemption or a stop. No trial: decoding, starting, deciding, and what nobody used." + at,
    )


def search(
    rec: Mapping[str, Any],
    found: Records,
    metrics: Mapping[str, Mapping[int, Mapping[str, float]]],
    look: Mapping[str, figures.Look],
    events: Sequence[Mapping[str, Any]],
) -> Section:
    """What was tried, at what cost, and what it teaches."""
    trials = list(found.values())
    searched = [r for r in trials if r.searched]
    together = shared_importance(searched)
    by_method = {**({"all methods": together} if together.trials else {}), **importances(searched)}
    drawn = figures_search.importance(by_method)
    untold = figures_search.untold(by_method, ENOUGH)
    blocks: list[Block | None] = [
        figures.cost(rec, found, look),
        figures_search.curves(searched, look),
        figures_search.best_so_far(searched, look),
        drawn,
        Sentences("untold", "Knobs of which nothing can be said", [{"about": "", "text": untold}]) if untold else None,
        *_signals(rec, metrics),
        _pareto(rec.get("pareto") or []),
        _fairness(searched),
        spent(events, rec["provenance"]["sweep"].get("arguments", {}).get("price")),
        trials_table(trials),
    ]
    return Section(
        "search",
        "The search",
        "Every method got its paper’s setting first. A joint epoch is the computation of one epoch of plain joint "
        "training of the same model. Scores are on val, high by selection, and no evidence.",
        [b for b in blocks if b],
    )


def _signals(rec: Mapping[str, Any], metrics: Mapping[str, Mapping[int, Mapping[str, float]]]) -> list[Figure]:
    """What the finalists' methods log of themselves, the chosen one's first."""
    d = rec["decision"]
    modalities = list(rec["provenance"]["dataset"]["modalities"])
    ordered = sorted(rec["finalists"], key=lambda f: (f["label"] != d["label"], f["dropped"]))
    drawn: dict[str, Figure] = {}
    for f in ordered:
        if f["method"] not in drawn:
            logged = explain.signals(metrics, f["trial_ids"], f["method"])
            figure = figures_search.signals(f"signals-{len(drawn)}", f["method"], logged, modalities)
            if figure:
                drawn[f["method"]] = figure
    return list(drawn.values())


def _pareto(front: Sequence[Mapping[str, Any]]) -> Table | None:
    """The table of the trials that nothing betters in every objective."""
    if not front:
        return None
    names = list(front[0]["objectives"])
    rows = [
        [f"{f['method']} · {f['fusion']}", *(words.objective(n, v) for n, v in f["objectives"].items()), f["trial_id"]]
        for f in front
    ]
    return Table(
        "front",
        "Search trials that nothing betters in every objective",
        ["method · fusion", *(OBJECTIVES[n] for n in names), "trial"],
        rows,
        "Measured on val during the search: an indication, no evidence. The search itself optimises accuracy.",
    )


def _fairness(search: Sequence[TrialRecord]) -> Table | None:
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
    if not rows:
        return None
    return Table(
        "fairness",
        "Was stopping fair?",
        ["method", "rung, epoch", "Kendall’s τ, 95 % interval", "trials to the end", "stopped"],
        rows,
        "How well the order of a method’s trials at a rung predicts their order at the end: 1 is the same order, 0 "
        "none in common. Only trials that ran to the end can be compared; those stopped at a rung are missing, and the "
        "others are alike, so the true agreement is likely to be higher.",
    )


def trials_table(trials: Sequence[TrialRecord]) -> Table:
    """The table of all trials, with the knobs in which they differ."""
    settings = [dict(words.knobs(r.document)) for r in trials]
    shown = ("method.name", "fusion.name", "data")
    names = [
        n for n in dict.fromkeys(k for s in settings for k in s) if n not in shown and not n.startswith("teachers.")
    ]
    differing = [n for n in names if len({s.get(n) for s in settings}) > 1]
    rows = [
        [
            r.trial_id,
            r.stage,
            r.method,
            r.fusion,
            STATES[r.state],
            words.percent(r.val),
            f"{r.epoch} of {r.epochs}",
            words.joint_epochs(r.cost_joint_epochs),
            words.duration(r.seconds),
            ", ".join(f"{n.removeprefix('method.')} {s[n]}" for n in differing if n in s),
            ((r.reason or "").strip().splitlines() or [""])[-1],
        ]
        for r, s in zip(trials, settings, strict=True)
    ]
    columns = [
        "trial",
        "stage",
        "method",
        "fusion",
        "state",
        "val",
        "epochs",
        "joint epochs",
        "time",
        "knobs",
        "reason",
    ]
    return Table("trials", f"All {len(rows)} trials", columns, rows, shape="long")
