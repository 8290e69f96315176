"""What `scripts/bench_methods.py` measures and what it says of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmsearch.errors import MMSearchError
from mmsearch.methods import METHODS
from mmsearch.testing import difference, finish, toy_data, weights
from mmsearch.training import train


@pytest.fixture(scope="module")
def bench(load_script: Any) -> Any:
    return load_script("bench_methods")


def test_every_method_has_a_prediction(bench: Any) -> None:
    bench.declared([n for n in METHODS.names() if METHODS.get(n).__module__.startswith("mmsearch.")])


def test_a_method_without_a_prediction_is_named(bench: Any) -> None:
    with pytest.raises(MMSearchError, match="no prediction for mine, yours; declare it in EXTRA"):
        bench.declared(["joint", "mine", "yours"])


@pytest.mark.parametrize("method", ["joint", "ogm", "mla", "gradient_blending"])
def test_its_steps_are_those_of_the_loop(bench: Any, method: str) -> None:
    data = toy_data()
    document = {"method": {"name": method}, "epochs": 3}
    mine, theirs = train(document, data), train(document, data)
    for batch in bench.steps(mine):
        mine.method.step(mine.context, batch)
    finish(theirs)
    assert difference(weights(mine), weights(theirs)) == 0


def test_what_autograd_keeps_is_counted_once_and_at_its_peak(bench: Any) -> None:
    layer = torch.nn.Linear(10, 10, bias=False)
    kept = bench.Kept(layer)
    with kept.hooks():
        for _ in range(2):
            x = torch.randn(5, 10)
            y = layer(x).exp()  # linear keeps x and its weight, exp and the square keep y
            (y * y).sum().backward()
            del x, y
    assert kept.peak == 2 * 5 * 10 * 4


UNITS = {"forwards": 3.0, "backwards": 6.0, "passes": 1.0, "draws": 0.5, "teachers": 2.0, "updates": 1.0}


def judged(bench: Any, mine: float, noise: float = 0.0, **extra: float) -> Any:
    swing = [1 + noise * (-1) ** i for i in range(20)]
    parts = {u: [t] * 20 for u, t in UNITS.items()}
    return bench.judge([mine * s for s in swing], [10.0] * 20, parts, bench.Extra("", **extra))


def test_a_prediction_adds_up_what_is_declared(bench: Any) -> None:
    assert judged(bench, 10, forwards=1, backwards=-0.5, passes=2, draws=2, teachers=1).predicted == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("mine", "noise", "backwards", "flagged"),
    [(10, 0, 0, False), (11.4, 0, 0, False), (11.6, 0, 0, True), (16, 0, 1, False), (18.6, 0, 1, True)],
)
def test_more_than_fifteen_percent_above_its_prediction_is_flagged(
    bench: Any, mine: float, noise: float, backwards: float, flagged: bool
) -> None:
    line = judged(bench, mine, noise, backwards=backwards)
    assert line.flagged is flagged
    text = bench.table({"ogm": line}, {"ogm": 1.0}, {"ogm": bench.Extra("why so", backwards=backwards)})
    assert ("**!**" in text) is flagged and "why so" in text


def test_noise_alone_is_not_flagged(bench: Any) -> None:
    line = judged(bench, 11.8, noise=0.2)
    assert line.excess[0] > bench.LIMIT and not line.flagged


def test_it_runs_from_the_command_line(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--methods joint uniform g2d greedy --device cpu --backbone small --size 16 --batch 4 --rounds 2"
    assert bench.main(arguments.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert rows == ["method", "---", "joint", "uniform", "g2d", "greedy"]
    assert any(line.startswith("| joint | ") and " | 1.00 (1.00 to 1.00) | 1.00 | " in line for line in lines)
