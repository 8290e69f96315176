"""The search as Optuna studies on disk, for `optuna.load_study` and `optuna-dashboard`: a view, never read as truth."""

from __future__ import annotations

import copy
import datetime
import logging
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial

from mmsearch.data.places import said
from mmsearch.errors import MMSearchError
from mmsearch.search.journal import Event
from mmsearch.search.samplers import quiet
from mmsearch.search.study import Study

FILE = "optuna.log"

PAUSE = 30.0
"""Seconds after a failure before the storage is tried again."""

STALE = 3
"""Seconds after which a killed process's lock on the file counts for nothing."""

_LOG = logging.getLogger(__name__)


class Mirror:
    """Optuna studies of a sweep, kept up to date as a subscriber of the journal.

    One study a method, named `<sweep>/<method>`, with every trial of its search that has ended, as in
    :meth:`mmsearch.search.study.Study.view`, when it was asked and told; the trials that another sweep knew are not in
    it. What the storage lacks is written on opening; what the journal knows otherwise is written anew. Trouble with the
    storage never ends a sweep: it is logged, and mended when a later trial ends or the run is opened again.

    Args:
        study: on the run's open journal.
        storage: see :func:`file_storage` and :func:`database`.
        name: of the sweep.

    Raises:
        MMSearchError: the storage has the studies of another sweep of this name.
    """

    def __init__(self, study: Study, storage: BaseStorage, name: str) -> None:
        self._study = study
        self._storage = storage
        self._name = name
        events = study.journal.events
        self._sweep = events[0]["time"]
        self._times: dict[str, list[float]] = {}
        self._ids: dict[str, int] = {}
        self._behind = False
        self._failed = 0.0
        for event in events:
            self._note(event)
        self._mend()
        study.journal.subscribe(self)

    def __call__(self, event: Event) -> None:
        """Takes note of an event."""
        if not self._note(event):
            return
        if self._behind and time.monotonic() < self._failed + PAUSE:
            return
        try:
            self._mend() if self._behind else self._add(event["trial_id"])
            self._behind = False
        except Exception as error:
            self._behind, self._failed = True, time.monotonic()
            _LOG.warning("the Optuna studies are behind: %s", said(error))

    def _note(self, event: Event) -> bool:
        """Keeps the times of a trial of the search; says whether it has ended."""
        kind = event["event"]
        if kind not in ("asked", "told") or not self._study.records[event["trial_id"]].searched:
            return False
        self._times.setdefault(event["trial_id"], []).append(event["time"])
        return kind == "told"

    def _mend(self) -> None:
        """Brings the storage up to date, whatever it holds."""
        with quiet():
            self._ids.clear()
            told = {i: self._trial(i) for i, times in self._times.items() if len(times) == 2}
            there: set[str] = set()
            for found in self._storage.get_all_studies():
                name, _, method = found.study_name.rpartition("/")
                sweep = found.user_attrs.get("sweep")
                trials = self._storage.get_all_trials(found._study_id, deepcopy=False)
                if name == self._name and sweep != self._sweep and (trials or sweep is not None):
                    raise MMSearchError(
                        f"{found.study_name}: the Optuna storage has a study of that name, of another sweep; "
                        "give this sweep another folder name, or name another storage"
                    )
                if name == self._name and sweep == self._sweep and self._same(trials, told):
                    there |= {t.user_attrs["trial_id"] for t in trials}
                    self._ids[method] = found._study_id
                elif sweep == self._sweep or name == self._name:
                    self._storage.delete_study(found._study_id)
            for trial_id in sorted(told, key=lambda i: self._times[i][1]):
                if trial_id not in there:
                    self._add(trial_id)

    @staticmethod
    def _same(trials: list[FrozenTrial], told: dict[str, FrozenTrial | None]) -> bool:
        """Whether all of these trials are as the journal has them, each once."""
        ids = [t.user_attrs.get("trial_id") for t in trials]
        return len(set(ids)) == len(ids) and all(
            (known := told.get(str(i))) is not None
            and (t.state, t.value, t.params, t.distributions)
            == (known.state, known.value, known.params, known.distributions)
            for i, t in zip(ids, trials, strict=True)
        )

    def _add(self, trial_id: str) -> None:
        trial = self._trial(trial_id)
        if trial is not None:
            method = self._study.records[trial_id].method
            self._storage.create_new_trial(self._study_id(method), template_trial=trial)

    def _study_id(self, method: str) -> int:
        if method not in self._ids:
            with quiet():
                study = optuna.create_study(
                    study_name=f"{self._name}/{method}",
                    storage=self._storage,
                    direction="maximize",
                    load_if_exists=True,
                )
                study.set_user_attr("sweep", self._sweep)
            self._ids[method] = study._study_id
        return self._ids[method]

    def _trial(self, trial_id: str) -> FrozenTrial | None:
        known = self._study.trial(self._study.records[trial_id])
        if known is None:
            return None
        trial = copy.copy(known)
        asked, told = (datetime.datetime.fromtimestamp(t) for t in self._times[trial_id])
        trial.datetime_start, trial.datetime_complete = asked, told
        return trial


def file_storage(path: Path) -> JournalStorage:
    """Optuna's storage in a file of its own, one line a change.

    For whoever writes: a last line that a kill has torn is cut off, and a file that cannot be read is begun again.
    """
    if path.exists():
        whole = path.read_bytes()
        if not whole.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(whole.rfind(b"\n") + 1)
    try:
        return _opened(path)
    except (ValueError, KeyError, TypeError, optuna.exceptions.OptunaError):
        path.unlink()
        return _opened(path)


def _opened(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileSymlinkLock(str(path), STALE)))


def database(url: str) -> RDBStorage:
    """Optuna's storage in a database.

    Raises:
        MMSearchError: it cannot be opened.
    """
    check_database(url)
    with quiet():
        try:
            return RDBStorage(url)
        except Exception as error:
            raise MMSearchError(f"--optuna: {url}: {said(error)}") from None


def check_database(url: str) -> None:
    """Whether an address is one of a database that answers; nothing is written.

    Raises:
        MMSearchError: it is not, or it holds a password, which would end up in the run's folder.
    """
    import sqlalchemy

    try:
        address: Any = sqlalchemy.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise MMSearchError(f"--optuna: {url!r} is no address of a database such as sqlite:///studies.db") from None
    if address.password is not None:
        raise MMSearchError(
            f"--optuna: {address.render_as_string()}: leave the password to the environment (PGPASSWORD, ~/.my.cnf)"
        )
    if address.get_backend_name() == "sqlite":
        folder = Path(address.database or "").parent
        if not folder.is_dir():
            raise MMSearchError(f"--optuna: {url}: no folder {folder}")
        return
    try:
        engine = sqlalchemy.create_engine(address)
        with engine.connect():
            pass
        engine.dispose()
    except Exception as error:
        raise MMSearchError(f"--optuna: {url}: {said(error)}") from None
