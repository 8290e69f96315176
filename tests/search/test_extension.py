"""A study on the journal of an extended sweep: what its present space still has, under whatever name, is known."""

from __future__ import annotations

import pytest

from mmsearch.search.sources import SearchSource, TeacherSource

WIDER = """
epochs: 9
methods:
  joint:
  ogm: {ge: true}
  opm:
  unimodal_teacher:
    teacher: [ume, umt]
fusions:
  concat:
  sum:
optimizers:
  sgd:
"""


@pytest.fixture
def extended(make_study, simulate, driver):
    """A study on a wider space, over the journal of a finished search, and that search's study."""
    old = make_study(text=driver.SPACE.replace("ogm:", "ogm: {{alpha: {{low: 0.2, high: 0.5}}}}"))
    for source in (TeacherSource(old), SearchSource(old, trials=14)):
        simulate(old, source)
    events = [*old.journal.events[1:], {"event": "extended", "time": 0.0, "space": "space-2.yaml", "arguments": {}}]
    return make_study(events, text=WIDER.replace("{", "{{").replace("}", "}}")), old


def test_a_document_is_found_again_by_its_parameters(make_study) -> None:
    study = make_study()
    for method in study.space.methods:
        for ask in [*study.paper(method), study.suggest(method)]:
            if ask is not None:
                assert study.space.params_of(ask.document) == ask.params


def test_old_trials_feed_the_samplers_where_the_new_ranges_have_them(extended) -> None:
    study, old = extended
    assert [t.user_attrs["trial_id"] for t in study.view("joint").trials] == [
        t.user_attrs["trial_id"] for t in old.view("joint").trials
    ]
    fusions = [t.distributions["fusion"].choices for t in study.view("joint").trials]
    assert set(fusions) == {("concat", "sum")}, "under the new choices"
    ge = [r.document["method"]["ge"] for r in study.searched("ogm")]
    assert len(study.view("ogm").trials) == sum(ge) < len(ge), "trials with ge off are no trials of this space"


def test_old_trials_stay_trials_and_new_methods_get_theirs(extended, simulate) -> None:
    study, old = extended
    before = {i: (r.state, r.curve, r.document) for i, r in study.records.items()}
    assert list(before) == list(old.records)
    asked = [*simulate(study, TeacherSource(study)), *simulate(study, SearchSource(study, trials=14 + 6))]
    assert {i: (r.state, r.curve, r.document) for i, r in study.records.items() if i in before} == before
    assert asked[0].method == "opm" and asked[0].why == "paper setting"
    assert sum(a.method == "opm" for a in asked) >= 4, "up to the floor"


def test_a_killed_extension_goes_on_with_the_same_documents(extended, make_study, simulate) -> None:
    whole, _ = extended
    start = len(whole.journal.events)
    simulate(whole, SearchSource(whole, trials=22))
    events = whole.journal.events
    text = WIDER.replace("{", "{{").replace("}", "}}")
    for cut in range(start + 3, len(events), 17):
        resumed = make_study(events[:cut], text=text)
        simulate(resumed, SearchSource(resumed, trials=22))
        assert list(resumed.records) == list(whole.records)
