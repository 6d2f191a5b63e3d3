"""What a study has tried, on record in an Optuna storage that several processes and machines may share.

A trial is put on record with its candidate in one transaction before it is trained, and told when it ends. What is
evaluated is named by the candidate's ``key``: the hash of its spec, the fidelity and the seed of its training, and its
data. The invariant, on every storage and with any number of machines:

    **No finished (hash, fidelity, seed) has two records.**

Storages number trials in the order in which they take them, and a trial that has ended stays as it ended; both hold
without any lock of ours. A worker that has put a trial on record looks at those before it: if one has the same key and
was not given back, the worker gives back its own, so of two that are the same the later one never runs. One that was
given back, because its worker was held for dead, cannot finish any more: its worker, if it lives, is refused.

Locks only spare effort. A process that works on trials holds one on a file of its own: on its machine a running trial
whose worker's lock is free is stale at once; elsewhere it is when its heart has not beaten for a while.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from archspec.errors import Problem, SpecError
from search import storages
from search.durable import NotSaved
from search.heartbeat import Heart, Listener, beats
from search.locks import FOLDER, acquire, free, held, in_use, place
from search.storages import DATABASE, database_errors

__all__ = ["DATABASE", "Record", "Running", "candidate", "counted", "database_errors", "in_use"]

T = TypeVar("T")

ABANDONED = 3  # a candidate that took its process along so often is not tried again
SILENCE = 60.0  # seconds without a sign of a worker elsewhere
PATIENCE = (1, 2, 4, 8, 15)  # seconds between attempts to reach a server that does not answer
POLL_SECONDS = 0.5


class Running(NamedTuple):
    """A trial that was put on record by this process."""

    number: int
    trial_id: int


class Record:
    """The trials of one study.

    Each is one evaluation of a candidate: at a rung of its training, with a seed. It has a user attribute ``candidate``
    and, once it has ended, ``result``; one that stopped below the last rung is pruned; a failed one has ``reason``,
    ``again`` when its candidate is to be tried once more, and ``died`` when its process did.

    Args:
        url: of the storage, see `search.storages`.
        folder: of the results; machines may share it or have their own.
        silence: seconds without a sign after which a worker elsewhere counts as dead.
        supervisor: the `worker` of the record of a process that outlives this one's crashes.

    Errors:
        SpecError: the storage cannot be opened, or has another study of this name.
    """

    def __init__(
        self,
        url: str,
        name: str,
        directions: Sequence[str],
        folder: Path,
        *,
        silence: float = SILENCE,
        supervisor: str | None = None,
    ) -> None:
        self.url, self.folder, self.name, self.silence, self.supervisor = url, folder, name, silence, supervisor
        wanted = [StudyDirection[direction.upper()] for direction in directions]
        with self.alone(), storages.storage_errors(url, folder):  # the tables are made once
            self.storage = storages.open_storage(url, folder)
            self.place = place(folder)
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                directions=wanted,
                load_if_exists=True,
                sampler=optuna.samplers.RandomSampler(),  # has no part in it: candidates are proposed elsewhere
            )
            if self.study.directions != wanted:
                cause = f"{storages.shown(url, folder)} has another study called {name}, of other objectives"
                raise SpecError(Problem(cause, "give this one another name:", "name"))
        self.worker = uuid.uuid4().hex[:12]
        self._lock = acquire(folder / FOLDER / self.worker, wait=True)
        self._heart = Heart(self._storage, silence)
        self._listener = Listener(silence)

    @classmethod
    def existing(cls, folder: Path) -> Record:
        """The study whose trials are in a folder.

        Errors:
            SpecError: there is none, or the file is damaged.
        """
        url = storages.found(folder) or "sqlite"
        with storages.storage_errors(url, folder):
            storage = storages.open_storage(url, folder)
            summaries = optuna.get_all_study_summaries(storage)
            storages.close_storage(storage)
        if not summaries:
            raise SpecError(Problem(f"there is no study in {storages.file(url, folder)}", "run one with archc search"))
        summary = summaries[0]
        directions = [direction.name.lower() for direction in summary.directions]
        return cls(url, summary.study_name, directions, folder)

    def close(self) -> None:
        """Gives the worker's lock back; trials of this process that run become stale."""
        self._heart.close()
        if self._lock is not None:
            (self.folder / FOLDER / self.worker).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        storages.close_storage(self.storage)

    def remember(self, key: str, value: Any) -> None:
        """Keeps a fact of the whole study."""
        self.study.set_user_attr(key, value)

    def recall(self, key: str) -> Any:
        return self.study.user_attrs.get(key)

    def name_objectives(self, names: list[str]) -> None:
        """Gives values their names, for dashboards that read the storage."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.set_metric_names(names)

    def trials(self) -> list[FrozenTrial]:
        """All trials in the order of their numbers; not to be changed."""
        return self._patiently(lambda: self.study.get_trials(deepcopy=False))

    def start(
        self,
        params: dict[str, Any],
        distributions: dict[str, BaseDistribution],
        system: dict[str, Any],
        *,
        key: str,
        most: int | None = None,
        **facts: Any,
    ) -> Running | None:
        """Puts a candidate on record, before it is trained.

        Args:
            key: what may be evaluated only once.
            most: how many candidates the study starts in all; None for what is trained further.
            facts: JSON data to keep with the candidate.

        Returns:
            None when another worker was first, with this candidate or with the last trial: propose anew.
        """
        worker = {"worker": self.worker, "host": platform.node(), "place": self.place, "supervisor": self.supervisor}
        template = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions,
            # One attribute: each costs the database several queries.
            user_attrs={"candidate": {"key": key, **facts, **worker}},
            system_attrs=system,
        )
        template.datetime_start = datetime.now()
        trial_id = self._storage.create_new_trial(self._study_id, template)
        trial = Running(self._storage.get_trial(trial_id).number, trial_id)
        before = valid([other for other in self.trials() if other.number < trial.number])
        if any(candidate(other).get("key") == key for other in before) or (
            most is not None and len(counted(before)) >= most
        ):
            self.fail(trial, "another worker was first", again=True)
            return None
        self._heart.begin(trial_id)
        return trial

    def finish(self, trial: Running, values: list[float], result: Mapping[str, Any]) -> bool:
        """Puts the end of a trial on record; False when the trial was taken from this process."""

        def write() -> None:
            self._storage.set_trial_user_attr(trial.trial_id, "result", dict(result))
            self._storage.set_trial_state_values(trial.trial_id, TrialState.COMPLETE, values)

        return self._ended(trial, write)

    def pause(self, trial: Running, result: Mapping[str, Any]) -> bool:
        """Puts on record what a candidate reached at a rung below the last. False as for `finish`."""

        def write() -> None:
            self._storage.set_trial_user_attr(trial.trial_id, "result", dict(result))
            self._storage.set_trial_state_values(trial.trial_id, TrialState.PRUNED)

        return self._ended(trial, write)

    def fail(self, trial: Running, reason: str, *, again: bool = False, died: bool = False) -> bool:
        """Puts a failure on record; with `again`, of the process and not of the candidate. False as for `finish`."""
        facts = {"reason": reason[:2000], "again": again, "died": died}

        def write() -> None:
            for name, fact in facts.items():
                if fact:
                    self._storage.set_trial_user_attr(trial.trial_id, name, fact)
            self._storage.set_trial_state_values(trial.trial_id, TrialState.FAIL)

        return self._ended(trial, write)

    def lost(self, trial: Running) -> bool:
        """Whether a trial of this process was ended by another one, so that what comes of it would be refused."""
        return self._heart.lost(trial.trial_id)

    def stale(self) -> list[FrozenTrial]:
        """Running trials whose process is dead."""
        return [trial for trial in self._running() if self._is_dead(trial)]

    def blames(self, trial: FrozenTrial) -> bool:
        """Whether a stale trial may have killed its process: not so if what watched the process died as well."""
        supervisor = candidate(trial).get("supervisor")
        return supervisor is None or (self._is_near(trial) and not self._has_gone(supervisor))

    def wait_for_signs(self) -> bool:
        """Waits until each trial that runs elsewhere gave a sign, ended, or can be held for dead.

        Returns:
            Whether one ended or is dead, so that there may be something to do.
        """
        first = {trial._trial_id: beats(trial) for trial in self._running() if not self._is_near(trial)}
        left, deadline = set(first), time.monotonic() + self.silence + POLL_SECONDS
        while left:
            running = {trial._trial_id: trial for trial in self._running()}
            if any(trial_id not in running or self._listener.silent(running[trial_id]) for trial_id in left):
                return True
            if time.monotonic() > deadline:
                return True
            left = {trial_id for trial_id in left if beats(running[trial_id]) == first[trial_id]}
            if left:
                time.sleep(POLL_SECONDS)
        return False

    def alone(self) -> AbstractContextManager[None]:
        """Keeps other workers of this folder from proposing at the same time."""
        return held(self.folder / FOLDER / "alone")

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials() if trial.state == TrialState.RUNNING]

    def _is_dead(self, trial: FrozenTrial) -> bool:
        if not self._is_near(trial):
            return self._listener.silent(trial)
        return self._has_gone(str(candidate(trial).get("worker")))

    def _has_gone(self, worker: str) -> bool:
        path = self.folder / FOLDER / worker
        if worker == self.worker or not path.exists():
            return worker != self.worker
        with free(path) as is_free:
            if is_free:
                path.unlink(missing_ok=True)
            return is_free

    def _is_near(self, trial: FrozenTrial) -> bool:
        """Whether the lock of a trial's worker can be tried from here."""
        known = candidate(trial)
        return known.get("place") == self.place and known.get("host") == platform.node()

    def _ended(self, trial: Running, write: Callable[[], None]) -> bool:
        try:
            self._patiently(write)
        except UpdateFinishedTrialError:
            return False
        finally:
            self._heart.end(trial.trial_id)
        return True

    def _patiently(self, call: Callable[[], T]) -> T:
        """Tries again for a while when a server does not answer; only what may be done twice."""
        for seconds in PATIENCE if storages.file(self.url, self.folder) is None else ():
            try:
                with database_errors(self.url, self.folder):
                    return call()
            except NotSaved:
                time.sleep(seconds)
        return call()

    @property
    def _storage(self) -> BaseStorage:
        return self.study._storage  # the cached one; Optuna hands out no public name for it

    @property
    def _study_id(self) -> int:
        return self.study._study_id


def candidate(trial: FrozenTrial) -> dict[str, Any]:
    """What was known of a trial's candidate before its training.

    ``key`` (what may be trained only once), ``hash`` (of the spec), ``rung`` and ``seed`` (of the evaluation),
    ``further`` (whether the candidate was started before), ``draws`` and ``refused`` (before it was accepted),
    ``predicted`` and ``surrogates`` (see `search.sources.Sources.learned`),
    ``worker``, ``host``, ``place`` and ``supervisor`` (that train it: process, machine, folder, watching process).
    """
    found: dict[str, Any] = trial.user_attrs.get("candidate", {})
    return found


def valid(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that stand: all but those that were given back, to be tried again."""
    return [trial for trial in trials if not (trial.state == TrialState.FAIL and trial.user_attrs.get("again"))]


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that are spent of the study's budget: those that started a candidate, and stand."""
    return [trial for trial in valid(trials) if not candidate(trial).get("further")]
