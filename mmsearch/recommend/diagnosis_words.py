"""The diagnosis in words, each with its number. Where a number is inside the noise nothing is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmsearch.recommend.words import count, duration, listed, percent

UNDER_TRAINING = "Under-training"
"""What is said of what encoders learned beside what they can learn alone."""

SMALL = 0.05
"""A loss that is surely smaller is called small, and a fall of accuracy that is not larger is not worth a word."""


def sentences(diagnosis: Mapping[str, Any]) -> list[dict[str, str]]:
    """`{"about", "text"}` for everything that the figures bear out.

    Args:
        diagnosis: `models`, `ume_umt` and `clips` of :func:`mmsearch.recommend.diagnosis.diagnose`.
    """
    models = list(diagnosis["models"].values())
    topics = {
        UNDER_TRAINING: [*(t for m in models for t in _gaps(m)), *_recovered(diagnosis["models"])],
        "Reliance": [t for m in models for t in _reliance(m)],
        "Agreement": [t for m in models for t in _conflicts(m)],
        "Together": list(_together(diagnosis["ume_umt"])),
        "Confidence": [t for m in models for t in _confidence(m)],
        "Robustness": [t for m in models for t in _robustness(m)],
        "Missing": [t for m in models for t in _missing(m)],
        "Clips": list(_clips(diagnosis)),
    }
    return [{"about": about, "text": text} for about, texts in topics.items() for text in texts]


def cost(cost: Mapping[str, Any]) -> str:
    """On how many clips it rests, and what it took beside the sweep."""
    trials = cost["trial_seconds"]
    beside = f" beside {duration(trials)} of training ({percent(cost['seconds'] / trials)})" if trials else ""
    return (
        f"Measured on {count(cost['clips'], 'clip')} of select, {cost['robustness_clips']} of them made worse, with "
        f"probes fitted to {cost['train_clips']} of train, in {duration(cost['seconds'])}{beside}. The test part was "
        "not touched."
    )


def _gaps(model: Mapping[str, Any]) -> Iterator[str]:
    """What encoders learned less or more than alone; that none lost much, where the intervals are narrow enough.

    Clips are not all that varies: a gap that another training seed turns round is not told.
    """
    known = {u: m for u, m in model["modalities"].items() if m["gap"] is not None and not m["same_weights"]}
    told = False
    for u, m in known.items():
        low, high = m["gap_ci95"]
        seeds = [g["gap"] for g in m["gaps"]]
        less = low > 0 and min(seeds) > 0
        if less or (high < 0 and max(seeds) < 0):
            told = True
            other = "" if m["same_encoder"] else ", of another shape"
            yield (
                f"Inside {model['label']} the {u} encoder learned {_points(abs(m['gap']))} points "
                f"{'less' if less else 'more'} than it can alone{other} ({_spread(low, high, seeds)}): a "
                f"linear probe of it reaches {percent(m['probe'])}, of the one trained alone "
                f"{percent(m['alone'])}."
            )
    worst = max((max(m["gap_ci95"][1], *(g["gap"] for g in m["gaps"])) for m in known.values()), default=1.0)
    if known and not told and worst < SMALL:
        yield (
            f"Inside {model['label']} no encoder falls more than {_points(worst)} points short of what it can learn "
            "alone (95 % over clips, and on every seed)."
        )


def _recovered(models: Mapping[str, Any]) -> Iterator[str]:
    """What encoders of the chosen model learned more or less than in joint training of the same seed."""
    if len(models) < 2:
        return
    chosen, joint = models["chosen"], models["joint"]
    for u, m in chosen["modalities"].items():
        gain = m["over_joint"]
        if gain is None or m["same_weights"]:
            continue
        low, high = gain["ci95"]
        seeds = [g["gain"] for g in gain["seeds"]]
        more = low > 0 and min(seeds) > 0
        if more or (high < 0 and max(seeds) < 0):
            yield (
                f"Inside {chosen['label']} the {u} encoder learned {_points(abs(gain['mean']))} points "
                f"{'more' if more else 'less'} than inside {joint['label']} on the same seed "
                f"({_spread(low, high, seeds)})."
            )


def _reliance(model: Mapping[str, Any]) -> Iterator[str]:
    """Which modality the accuracy comes from, for the pairs that are told apart."""
    shares = {u: m["shapley"] for u, m in model["modalities"].items()}
    sure = [lead for lead in model["leads"] if lead["ci95"][0] > 0]
    if not sure:
        return
    parts = [f"{_points(s)} from the {u}" for u, s in sorted(shares.items(), key=lambda x: -x[1])]
    apart = listed([f"{p['a']} over {p['b']} {_points(p['ci95'][0])} to {_points(p['ci95'][1])}" for p in sure])
    yield (
        f"{model['label']} is right in {percent(model['accuracy'])}, and would be in {percent(model['without_any'])} "
        f"without any modality; the points between are {listed(parts)} (Shapley shares; 95 %: {apart})."
    )


def _conflicts(model: Mapping[str, Any]) -> Iterator[str]:
    """Where the joint loss and an encoder's own pull against each other in every batch looked at."""
    for u, m in model["modalities"].items():
        seen = m["gradient_agreements"]
        if len(seen) > 3 and max(seen) < 0:
            yield (
                f"In {model['label']} the joint loss pulls the {u} encoder against what its own prediction needs "
                f"(cosine {_cosine(m['gradient_agreement'])}, below zero in all of "
                f"{count(len(seen), 'batch', 'batches')})."
            )


def _together(rule: Mapping[str, Any] | None) -> Iterator[str]:
    """Whether the modalities say something together that they don't say apart."""
    if rule is None:
        return
    low, high = rule["lead"]["ci95"]
    numbers = (
        f"{percent(rule['acc_probe'])} against {percent(rule['acc_ume'])}, "
        f"95 % of the difference: {_signed(low)} to {_signed(high)} points"
    )
    if low > 0:
        yield (
            "The modalities say something together that they do not say apart: a classifier on both frozen encoders' "
            f"features beats the mean of their own predictions ({numbers})."
        )
    elif high < 0:
        yield (
            "The modalities add up rather than interact: the mean of the predictions of models trained apart beats a "
            f"classifier on their features ({numbers})."
        )


def _confidence(model: Mapping[str, Any]) -> Iterator[str]:
    """Whether the model is surer than it is right."""
    over = model["overconfidence"]
    if over is None or over["ci95"][0] <= 0 <= over["ci95"][1]:
        return
    sure = model["accuracy"] + over["mean"]
    yield (
        f"{model['label']} is {'more' if over['mean'] > 0 else 'less'} sure than it is right: on average it "
        f"gives its answers {percent(sure)}, and {percent(model['accuracy'])} of them are right "
        f"(expected calibration error {percent(model['ece'])})."
    )


def _robustness(model: Mapping[str, Any]) -> Iterator[str]:
    """The mildest level of each dial that costs more than a little, beyond the noise."""
    for dial, curve in model["robustness"].items():
        clean = curve[0]["accuracy"]
        for point in curve[1:]:
            drop = point["drop"]
            if drop is not None and drop["mean"] >= SMALL and drop["ci95"][0] > 0:
                yield (
                    f"{model['label']} falls from {percent(clean)} to {percent(point['accuracy'])} "
                    f"with {_worse(dial, point['level'])}."
                )
                break


def _missing(model: Mapping[str, Any]) -> Iterator[str]:
    """What is left of the accuracy without a modality."""
    if len(model["missing"]) < 2:
        return
    parts = [f"{percent(a)} without the {u}" for u, a in model["missing"].items()]
    yield f"{model['label']} gets {listed(parts)}, and {percent(model['accuracy'])} with everything."


def _clips(diagnosis: Mapping[str, Any]) -> Iterator[str]:
    """How many clips are won and lost, where that is beyond the noise."""
    found = diagnosis["clips"]
    change = found["change"]
    if change is None or change["ci95"][0] <= 0 <= change["ci95"][1]:
        return
    chosen, joint = (diagnosis["models"].get(role, {}).get("label", role) for role in ("chosen", "joint"))
    yield (
        f"On seed {found['seed']}, {chosen} gets {count(len(found['fixed']), 'clip')} right that {joint} gets wrong, "
        f"and {len(found['broken'])} the other way round, of {found['of']}."
    )


def _worse(dial: str, level: float) -> str:
    """A level of a dial in words."""
    u, _, name = dial.partition("/")
    if name == "snr_db":
        return f"noise on the {u} ({f'{level:g}'.replace('-', '−')} dB signal to noise)"
    if name == "severity":
        return f"blur and noise on the {u} (level {level:g} of 5)"
    return f"{percent(level)} of the words of the {u} lost"


def _spread(low: float, high: float, seeds: Sequence[float]) -> str:
    """The interval over clips and the range over seeds of a difference whose sign is sure, without the sign."""
    a, b = sorted((abs(low), abs(high)))
    c, d = sorted((abs(min(seeds)), abs(max(seeds))))
    over = f"{_points(c)} to {_points(d)} over {count(len(seeds), 'seed')}" if len(seeds) > 1 else "one seed"
    return f"95 % over clips: {_points(a)} to {_points(b)}; {over}"


def _points(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _cosine(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
