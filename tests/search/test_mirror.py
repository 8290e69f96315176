from __future__ import annotations

import io
import json
import logging
from collections import Counter
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.trial import TrialState

from mmsearch.errors import MMSearchError
from mmsearch.search import mirror as mirror_module
from mmsearch.search.journal import Journal
from mmsearch.search.mirror import FILE, Mirror, check_database, database, file_storage
from mmsearch.search.sources import SearchSource
from mmsearch.search.study import Study

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@pytest.fixture
def searched(driver, tmp_path: Path, simulate):
    """Searches in a run's folder, or goes on, with a mirror."""

    def search(trials: int, *, name: str = "run", mirror: bool = True, storage=None) -> Study:
        run = tmp_path / name
        with Journal(run) as journal:
            study = Study(driver.make_space(run), journal)
            if mirror:
                Mirror(study, storage or file_storage(run / FILE), name)
            source = SearchSource(study, trials=trials)
            simulate(study, source, fail=lambda d: d["method"]["name"] == "ogm" and driver.quality(d) < 0.5)
        return study

    return search


def states(run: Path, name: str = "run") -> dict[str, Counter]:
    storage = file_storage(run / FILE)
    names = optuna.get_all_study_names(storage)
    assert all(n.startswith(f"{name}/") for n in names)
    return {
        n.partition("/")[2]: Counter(t.state for t in optuna.load_study(study_name=n, storage=storage).trials)
        for n in names
    }


def expected(study: Study) -> dict[str, Counter]:
    return {
        m: Counter(STATES[r.state] for r in study.searched(m)) for m in study.space.methods if study.searched(m)
    }  # fmt: skip


def test_the_studies_are_those_of_the_journal(searched, tmp_path: Path) -> None:
    study = searched(24)
    assert states(tmp_path / "run") == expected(study)
    assert sum(sum(c.values()) for c in expected(study).values()) == 24
    storage = file_storage(tmp_path / "run" / FILE)
    told = {e["trial_id"]: e["time"] for e in study.journal.events if e["event"] == "told"}
    seen = set()
    for method in expected(study):
        for trial in optuna.load_study(study_name=f"run/{method}", storage=storage).trials:
            record = study.records[trial.user_attrs["trial_id"]]
            seen.add(record.state)
            assert trial.params == record.params and trial.intermediate_values == dict(record.curve)
            assert trial.value == (None if record.state == "failed" else record.score)
            assert trial.user_attrs["reason"] == record.reason
            assert trial.datetime_complete.timestamp() == pytest.approx(told[record.trial_id], abs=1e-3)
    assert seen == {"complete", "pruned", "failed"}


@pytest.mark.filterwarnings("ignore:The value of `grace_period`")
@pytest.mark.parametrize("harm", ["missing", "behind", "torn", "unreadable", "lock"])
def test_what_a_kill_has_left_is_mended_without_doubles(searched, tmp_path: Path, monkeypatch, harm: str) -> None:
    searched(12)
    log = tmp_path / "run" / FILE
    whole = log.read_bytes()
    if harm == "missing":
        log.unlink()
    elif harm == "behind":
        log.write_bytes(b"".join(whole.splitlines(True)[:-4]))
    elif harm == "torn":
        log.write_bytes(whole[:-40])
    elif harm == "unreadable":
        log.write_bytes(b"\0\n" + whole)
    else:
        monkeypatch.setattr(mirror_module, "STALE", 1)
        Path(f"{log}.lock").symlink_to(log)
    study = searched(16)
    assert states(tmp_path / "run") == expected(study)


def test_a_study_whose_making_a_kill_has_cut_short_is_made_anew(searched, tmp_path: Path) -> None:
    searched(0)
    storage = file_storage(tmp_path / "run" / FILE)
    optuna.create_study(study_name="run/ogm", storage=storage, direction="maximize")
    searched(8)
    study = searched(12)
    assert states(tmp_path / "run") == expected(study)


def test_trials_that_the_journal_does_not_have_are_written_anew(searched, tmp_path: Path) -> None:
    searched(12)
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(True)[:-30]))
    study = searched(12)
    assert states(tmp_path / "run") == expected(study)


def test_a_folder_that_was_renamed_keeps_one_study_a_method(searched, tmp_path: Path) -> None:
    searched(12)
    (tmp_path / "run").rename(tmp_path / "other")
    study = searched(14, name="other")
    assert states(tmp_path / "other", "other") == expected(study)


def test_trouble_with_the_storage_never_ends_a_search(searched, tmp_path: Path, monkeypatch, caplog) -> None:
    storage = file_storage(tmp_path / FILE)
    log, aside = tmp_path / FILE, tmp_path / "aside"
    create, read, calls = storage.create_new_trial, storage.get_all_studies, Counter()

    def create_new_trial(*args, **kwargs):
        calls["create"] += 1
        if calls["create"] == 4:
            log.rename(aside)
            log.mkdir()
        return create(*args, **kwargs)

    def get_all_studies():
        calls["read"] += 1
        if calls["read"] == 4:
            log.rmdir()
            aside.rename(log)
        return read()

    monkeypatch.setattr(storage, "create_new_trial", create_new_trial)
    monkeypatch.setattr(storage, "get_all_studies", get_all_studies)
    monkeypatch.setattr(mirror_module, "PAUSE", 0.0)
    with caplog.at_level(logging.WARNING):
        study = searched(16, storage=storage)
    assert states(tmp_path) == expected(study)
    assert caplog.text.count("the Optuna studies are behind: Is a directory") == 3


def test_a_database_beside_it(searched, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = searched(12, storage=database(url))
    study = searched(14, storage=database(url))
    for method, counts in expected(study).items():
        assert Counter(t.state for t in optuna.load_study(study_name=f"run/{method}", storage=url).trials) == counts
    (tmp_path / "run" / "journal.jsonl").unlink()
    with pytest.raises(MMSearchError, match="run/joint: the Optuna storage has a study of that name, of another sweep"):
        searched(12, storage=database(url))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("studies.db", "--optuna: 'studies.db' is no address of a database such as sqlite:///studies.db"),
        ("sqlite:////nowhere/at/all.db", "--optuna: sqlite:////nowhere/at/all.db: no folder /nowhere/at"),
        ("nosuch://host/db", "--optuna: nosuch://host/db: "),
    ],
)
def test_a_database_that_does_not_answer_is_named(url: str, message: str) -> None:
    with pytest.raises(MMSearchError) as error:
        check_database(url)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_check_writes_nothing_and_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "studies.db"
    check_database(f"sqlite:///{file}")
    assert not file.exists()
    file.write_text("no database, whatever its name says, and long enough to be looked at")
    with pytest.raises(MMSearchError, match=r"--optuna: sqlite:///.*studies.db: .*file is not a database"):
        database(f"sqlite:///{file}")


def test_a_password_does_not_get_into_a_run() -> None:
    with pytest.raises(MMSearchError, match="leave the password to the environment") as error:
        check_database("postgresql://me:hunter2@host/db")
    assert "hunter2" not in str(error.value)


def test_the_dashboard_opens_it(searched, tmp_path: Path) -> None:
    import optuna_dashboard

    study = searched(12)
    app = optuna_dashboard.wsgi(file_storage(tmp_path / "run" / FILE))
    environ: dict = {"PATH_INFO": "/api/studies", "wsgi.input": io.BytesIO()}
    setup_testing_defaults(environ)
    status: list[str] = []
    body = b"".join(app(environ, lambda s, headers, exc_info=None: status.append(s)))
    assert status == ["200 OK"]
    shown = {s["study_name"] for s in json.loads(body)["study_summaries"]}
    assert shown == {f"run/{m}" for m in expected(study)}
