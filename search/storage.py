"""What a study has tried, on record in an Optuna storage that several processes and machines may share.

A trial is put on record with its candidate in one transaction before it is trained, and told when it ends. A process
that works on trials holds a lock on a file of its own, which the system releases when the process dies in any way: a
running trial whose worker's lock is free is stale.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import sqlite3
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from archspec.errors import Problem, SpecError
from search.durable import NotSaved

DATABASE = "study.db"
ABANDONED = 3  # a candidate that took its process along so often is not tried again
_DATABASE_ERRORS = (sqlite3.Error, SQLAlchemyError, optuna.exceptions.StorageInternalError)


class Running(NamedTuple):
    """A trial that was put on record by this process."""

    number: int
    trial_id: int


class Record:
    """The trials of one study.

    Each has a user attribute ``candidate`` and, once it has ended, ``result``; a failed one has ``reason``, ``again``
    when its candidate is to be tried once more, and ``died`` when its process did.
    """

    def __init__(self, url: str, name: str, directions: Sequence[str], folder: Path) -> None:
        self.folder, self.name = folder, name
        optuna.logging.set_verbosity(logging.ERROR)
        with _alone(folder), _storage_errors(url, folder):  # the tables are made once
            self.storage = _open(url, folder)
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                directions=[StudyDirection[direction.upper()] for direction in directions],
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),  # has no part in it: candidates are proposed elsewhere
            )
        self.worker = uuid.uuid4().hex[:12]
        self._lock = _acquire(folder / "workers" / self.worker)
        assert self._lock is not None

    @classmethod
    def existing(cls, folder: Path) -> Record:
        """The study whose trials are in a folder.

        Errors:
            SpecError: the file is damaged.
        """
        with _storage_errors("sqlite", folder):
            storage = _open("sqlite", folder)
            summaries = optuna.get_all_study_summaries(storage)
            storage.engine.dispose()
        if not summaries:
            raise SpecError(Problem(f"there is no study in {folder / DATABASE}", "run one with archc search"))
        summary = summaries[0]
        directions = [direction.name.lower() for direction in summary.directions]
        return cls("sqlite", summary.study_name, directions, folder)

    def close(self) -> None:
        """Gives the worker's lock back."""
        if self._lock is not None:
            (self.folder / "workers" / self.worker).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        if isinstance(self.storage, RDBStorage):
            self.storage.remove_session()
            self.storage.engine.dispose()

    def remember(self, key: str, value: Any) -> None:
        """Keeps a fact of the whole study."""
        self.study.set_user_attr(key, value)

    def recall(self, key: str) -> Any:
        return self.study.user_attrs.get(key)

    def trials(self) -> list[FrozenTrial]:
        """All trials in the order of their numbers; not to be changed."""
        return self.study.get_trials(deepcopy=False)

    def start(
        self, params: dict[str, Any], distributions: dict[str, BaseDistribution], system: dict[str, Any], **facts: Any
    ) -> Running:
        """Puts a candidate on record, before it is trained."""
        template = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            # One attribute: each costs the database several queries.
            user_attrs={"candidate": {**facts, "worker": self.worker, "host": platform.node()}},
            system_attrs=system,
        )
        template.datetime_start = datetime.now()
        trial_id = self._storage.create_new_trial(self._study_id, template)
        return Running(self._storage.get_trial(trial_id).number, trial_id)

    def finish(self, trial: Running, values: list[float], result: Mapping[str, Any]) -> None:
        """Puts the end of a trial on record."""
        self._storage.set_trial_user_attr(trial.trial_id, "result", dict(result))
        self._storage.set_trial_state_values(trial.trial_id, TrialState.COMPLETE, values)

    def fail(self, trial: Running, reason: str, *, again: bool = False, died: bool = False) -> None:
        """Puts a failure on record; with `again`, of the process and not of the candidate."""
        facts = {"reason": reason[:2000], "again": again, "died": died}
        for name, fact in facts.items():
            if fact:
                self._storage.set_trial_user_attr(trial.trial_id, name, fact)
        self._storage.set_trial_state_values(trial.trial_id, TrialState.FAIL)

    def stale(self) -> list[FrozenTrial]:
        """Running trials whose process is dead; those of other machines are not judged."""
        running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        return [trial for trial in running if candidate(trial).get("host") == platform.node() and self._is_dead(trial)]

    def _is_dead(self, trial: FrozenTrial) -> bool:
        worker = str(candidate(trial).get("worker"))
        if worker == self.worker:
            return False
        path = self.folder / "workers" / worker
        if not path.exists():
            return True
        handle = _acquire(path)
        if handle is None:
            return False
        path.unlink(missing_ok=True)
        os.close(handle)
        return True

    def alone(self) -> AbstractContextManager[None]:
        """Keeps other workers of this folder from proposing at the same time."""
        return _alone(self.folder)

    @property
    def _storage(self) -> BaseStorage:
        return self.study._storage  # the cached one; Optuna hands out no public name for it

    @property
    def _study_id(self) -> int:
        return self.study._study_id


def candidate(trial: FrozenTrial) -> dict[str, Any]:
    """What was known of a trial's candidate before its training.

    ``key`` (what may be trained only once), ``hash`` (of the spec), ``draws`` and ``refused`` (before it was accepted),
    ``worker`` and ``host`` (that train it).
    """
    found: dict[str, Any] = trial.user_attrs.get("candidate", {})
    return found


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that are spent of the study's budget: all but those that are to be tried again."""
    return [trial for trial in trials if not trial.user_attrs.get("again")]


def _open(url: str, folder: Path) -> RDBStorage:
    if url != "sqlite":
        return RDBStorage(url)
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / DATABASE).resolve()
    # A write-ahead log needs one flush a transaction, not three; it is consistent after any death, and a transaction
    # that a power cut takes is restored from the trial's own files.
    with sqlite3.connect(path, timeout=60) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    storage = RDBStorage(
        f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}}, skip_table_creation=False
    )

    @event.listens_for(storage.engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.remove_session()
    storage.engine.dispose()  # connections that were made before the line above
    return storage


@contextmanager
def _storage_errors(url: str, folder: Path) -> Iterator[None]:
    """Tells in one line why a storage cannot be opened."""
    try:
        yield
    except (*_DATABASE_ERRORS, ImportError, ValueError) as error:
        raise SpecError(_problem(url, folder, "opened", error)) from None


@contextmanager
def database_errors(url: str, folder: Path) -> Iterator[None]:
    """Tells in one line why a storage that was opened fails.

    Errors:
        NotSaved: the database's disk is full, or it cannot be reached; what it has stays.
    """
    try:
        yield
    except _DATABASE_ERRORS as error:
        hint = "repair that and give the same command again: it goes on from what was saved"
        raise NotSaved(_problem(url, folder, "used", error)._replace(hint=hint)) from None


def _problem(url: str, folder: Path, how: str, error: BaseException) -> Problem:
    cause = str(getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error).splitlines()[0]
    where = folder / DATABASE if url == "sqlite" else url.split("@")[-1]  # without a password
    return Problem(f"the storage {where} cannot be {how}: {cause}", None, "storage")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    handle = _acquire(folder / "workers" / "alone", wait=True)
    assert handle is not None
    try:
        yield
    finally:
        os.close(handle)


def _acquire(path: Path, *, wait: bool = False) -> int | None:
    """An exclusive lock on a file, or None when another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise NotSaved(
            Problem(f"{path} cannot be written: {error.strerror}", "name another folder with --out")
        ) from None
    with suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return handle
    os.close(handle)
    return None


def in_use(folder: Path) -> bool:
    """Whether a process works on the study in a folder."""
    for path in (folder / "workers").glob("*"):
        handle = _acquire(path)
        if handle is None:
            return True
        os.close(handle)
    return False
