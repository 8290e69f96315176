from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from mmsearch.errors import MMSearchError
from mmsearch.search.journal import Journal
from mmsearch.search.samplers import SAMPLERS
from mmsearch.search.study import Study

SPACE = """
epochs: 9
methods:
  joint:
fusions:
  concat:
  gated:
optimizers:
  sgd: {{lr: {{low: 0.001, high: 1, log: true{prior}}}, weight_decay: 0.0001, momentum: {{low: 0.0, high: 0.99}}}}
"""
PRIOR = ", prior: {at: 0.03, spread: 0.05}"


@pytest.fixture
def make(driver, tmp_path):
    def study(sampler: str, prior: str = "", events: list[dict] | None = None, seed: int = 0) -> Study:
        (tmp_path / "space.yaml").write_text(SPACE.format(prior=prior))
        space = driver.Space.load(tmp_path / "space.yaml", driver.MODALITIES, data="d1", seed=seed)
        journal = Journal(None)
        journal.events[:0] = events or []
        return Study(space, journal, sampler=sampler)

    return study


def drawn(study: Study, trials: int) -> list[dict]:
    """Draws trials of `joint`; the nearer the learning rate is to 0.03 and momentum to 0.7, the better."""
    found = []
    for _ in range(trials):
        ask = study.suggest("joint")
        assert ask is not None
        study.issue(ask)
        lr, momentum = ask.document["optimizer"]["lr"], ask.document["optimizer"]["momentum"]
        score = 1 - (abs(math.log10(lr / 0.03)) + abs(momentum - 0.7)) / 5
        study.report(ask.trial_id, {"epoch": 9, "epochs": 9, "score": score, "metrics": {}})
        study.tell(ask.trial_id, "complete")
        found.append(ask.params)
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_is_a_function_of_the_journal_and_says_nothing(make, sampler: str, capfd) -> None:
    trials = 8 if sampler == "gp" else 14
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = make(sampler)
        params = drawn(whole, trials)
    assert capfd.readouterr() == ("", "")
    resumed = make(sampler, events=whole.journal.events[1 : 1 + 3 * (trials - 2)])
    assert len(resumed.records) == trials - 2 and not resumed.unfinished()
    drawn(resumed, 2)
    assert [r.params for r in resumed.records.values()] == params
    assert {r.why for r in whole.records.values()} == {sampler}
    assert len({tuple(p.items()) for p in params}) == trials


@pytest.mark.parametrize(("sampler", "trials", "seeds"), [("gp", 13, [1]), ("cmaes", 30, [0, 1, 2])])
def test_a_sampler_that_models_finds_more_than_chance(make, sampler: str, trials: int, seeds: list[int]) -> None:
    def late(name: str) -> float:
        scores = []
        for seed in seeds:
            study = make(name, seed=seed)
            drawn(study, trials)
            scores += [r.score for r in list(study.records.values())[-trials // 4 :]]
        return float(np.mean(scores))

    assert late(sampler) > late("random") + 0.05


def test_a_sobol_sequence_goes_on_from_draw_to_draw(make) -> None:
    params = drawn(make("qmc"), 17)[1:]
    shares = [(math.log10(p["sgd.lr"]) + 3) / 3 for p in params]
    assert sorted(int(16 * s) for s in shares) == pytest.approx(list(range(16)), abs=1)
    assert {p["fusion"] for p in params} == {"concat", "gated"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_prior_is_where_a_search_begins(make, sampler: str) -> None:
    first = [p["sgd.lr"] for seed in range(3) for p in drawn(make(sampler, PRIOR, seed=seed), 6)]
    if sampler == "qmc":
        first = [p["sgd.lr"] for p in drawn(make(sampler, PRIOR), 16)[1:]]
    logs = np.log10(np.array(first) / 0.03)
    assert abs(logs.mean()) < 0.15 and 0.05 < logs.std() < 0.3, "the spread is 5 % of three decades"


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (", prior: 0.1", "write a prior as {at: value, spread: share of the range}"),
        (", prior: {at: 0.1}", "write a prior as {at: value, spread: share of the range}"),
        (", prior: {at: 2, spread: 0.1}", "lr is 2; allowed: 0.001 to 1"),
        (", prior: {at: 0.1, spread: 0}", "a share of the range, above 0 to 10, not 0"),
        (", priors: {at: 0.1, spread: 0.1}", "unknown key 'priors'; did you mean 'prior'?"),
    ],
)
def test_a_mistaken_prior_is_named_with_its_line(make, prior: str, message: str) -> None:
    with pytest.raises(MMSearchError) as error:
        make("tpe", prior)
    assert "space.yaml:9: " in str(error.value) and message in str(error.value)


def test_cmaes_moves_to_where_trials_ran_to_their_end(make) -> None:
    study = make("cmaes")
    for i in range(48):
        ask = study.suggest("joint")
        study.issue(ask)
        good = ask.document["optimizer"]["lr"] > 0.1
        study.report(ask.trial_id, {"epoch": 9 if good else 1, "epochs": 9, "score": 0.5 + i / 100, "metrics": {}})
        if not study.records[ask.trial_id].finished:
            study.tell(ask.trial_id, "complete" if good else "pruned")
    rates = [r.params["sgd.lr"] for r in study.records.values()]
    assert np.median(rates[-10:]) > 0.1 > np.median(rates[:10]), "whatever the stopped ones scored"
