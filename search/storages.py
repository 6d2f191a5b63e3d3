"""Where trials are kept, opened by URL, and what is said when that fails.

===========================  ===================================================================================
``sqlite``                   a file in the folder of the results: one machine (the default)
``journal``                  Optuna's journal, a file in the folder; ``journal:/path`` elsewhere, as on a shared disk
``postgresql://user@host/db``  any number of machines; likewise ``mysql://``
``grpc://host:port``         a server that `serve` runs before such a database
===========================  ===================================================================================

A password is better left to ``PGPASSWORD`` or ``~/.pgpass``; one in the URL is never shown.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import random
import re
import sqlite3
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, get_storage
from optuna.storages._rdb.models import TrialParamModel
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from archspec.errors import Problem, SpecError, did_you_mean
from search.durable import NotSaved, not_saved
from search.locks import held

DATABASE, JOURNAL = "study.db", "study.journal"
CONNECT_SECONDS = 10
DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "grpc": "grpc"}  # each in an extra of that name
SCHEMES = ("sqlite", "journal", *DRIVERS)
_SQL_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_DATABASE_ERRORS = (sqlite3.Error, SQLAlchemyError, optuna.exceptions.StorageInternalError)


def open_storage(url: str, folder: Path) -> BaseStorage:
    """The storage of a study whose results are in a folder; made if missing.

    Errors:
        SpecError: there is no such kind of storage, its driver is not installed, it cannot be reached, or a file of it
            is damaged.
    """
    scheme = _checked(url)
    optuna.logging.set_verbosity(logging.ERROR)
    with storage_errors(url, folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match scheme:
            case "sqlite":
                return _sqlite(folder)
            case "journal":
                return JournalStorage(_Journal(file(url, folder)))
            case "grpc":
                return _grpc(url)
            case _:
                return _server(_sql_url(url))


def close_storage(storage: BaseStorage) -> None:
    """Gives connections back."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()
    elif isinstance(storage, GrpcStorageProxy):
        storage.close()


def serve(url: str, folder: Path, host: str, port: int) -> None:
    """Serves a storage to ``grpc://host:port``, until it is interrupted.

    Errors:
        SpecError: as `open_storage`, or the port is in use.
    """
    _checked(f"grpc://{host}:{port}")
    if _checked(url) in ("journal", "grpc"):
        raise SpecError(Problem(f"{shown(url, folder)} cannot be served by gRPC, a database can", None, "storage"))
    storage = get_storage(open_storage(url, folder))  # with Optuna's cache
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            optuna.storages.run_grpc_proxy_server(storage, host=host, port=port)
        except RuntimeError as error:  # so gRPC tells that it cannot bind
            raise SpecError(
                Problem(f"{host}:{port} cannot be served: {_first_line(error)}", "name another --port")
            ) from None


def file(url: str, folder: Path) -> Path | None:
    """The file that holds the trials, or None when a server does."""
    scheme, _, path = url.partition(":")
    if url == "sqlite":
        return folder / DATABASE
    if scheme == "journal":
        return Path(path).expanduser() if path else folder / JOURNAL
    return None


def within(url: str) -> bool:
    """Whether the trials lie in the folder of the results."""
    return url in ("sqlite", "journal")


def found(folder: Path) -> str | None:
    """The URL of the storage that lies in a folder."""
    return next((url for url in ("sqlite", "journal") if (path := file(url, folder)) and path.is_file()), None)


def shown(url: str, folder: Path) -> str:
    """How a storage is named to the user: without a password."""
    if (path := file(url, folder)) is not None:
        return str(path)
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}://{rest.rpartition('@')[2].partition('?')[0]}"


@contextmanager
def storage_errors(url: str, folder: Path) -> Iterator[None]:
    """Tells in one line why a storage cannot be opened."""
    try:
        yield
    except SpecError:
        raise
    except (*_errors(), ImportError, ValueError, OSError, KeyError) as error:
        raise SpecError(_problem(url, folder, "opened", error)) from None


@contextmanager
def database_errors(url: str, folder: Path) -> Iterator[None]:
    """Tells in one line why a storage that was opened fails.

    Errors:
        NotSaved: the database's disk is full, or it cannot be reached; what it has stays.
    """
    try:
        yield
    except _errors() as error:
        hint = "repair that and give the same command again: it goes on from what was saved"
        raise NotSaved(_problem(url, folder, "used", error)._replace(hint=hint)) from None


def _errors() -> tuple[type[BaseException], ...]:
    grpc = sys.modules.get("grpc")
    return _DATABASE_ERRORS if grpc is None else (*_DATABASE_ERRORS, grpc.RpcError)


def _problem(url: str, folder: Path, how: str, error: BaseException) -> Problem:
    cause: Any = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
    if hasattr(cause, "details"):  # of gRPC
        cause = cause.details() or cause
    return Problem(f"the storage {shown(url, folder)} cannot be {how}: {_first_line(cause)}", None, "storage")


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _checked(url: str) -> str:
    """The kind of a storage, whose driver is there."""
    said = url.partition(":")[0]
    scheme = {"postgres": "postgresql", "mariadb": "mysql"}.get(said.partition("+")[0], said.partition("+")[0])
    if scheme not in SCHEMES or (scheme in DRIVERS and "://" not in url) or (scheme == "sqlite" and url != "sqlite"):
        hint = did_you_mean(scheme, SCHEMES) or "postgresql://user@host/database"
        raise SpecError(Problem(f"there is no storage {shown(url, Path())}", hint, "storage"))
    driver = DRIVERS.get(scheme)
    if "+" not in said and driver is not None and importlib.util.find_spec(driver) is None:
        hint = f"pip install 'archspec-nas[{scheme}]'"
        raise SpecError(Problem(f"a storage of {scheme} needs {driver}, which is not installed", hint, "storage"))
    return scheme


def _sql_url(url: str) -> str:
    scheme = _checked(url)
    try:
        parsed = make_url(url)
        if "@" in (parsed.host or ""):
            raise ValueError  # the rest of a password, which the driver would tell
    except (ArgumentError, ValueError):
        raise ValueError(
            "it is no URL of a database; signs like / or @ in a password are written as %2F, %40"
        ) from None
    whole = parsed if "+" in parsed.drivername else parsed.set(drivername=_SQL_DRIVERS[scheme])
    return whole.render_as_string(hide_password=False)


def _server(url: str) -> RDBStorage:
    options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_SECONDS}}
    attempts = 10
    while True:
        try:
            return _Database(url, engine_kwargs=options)
        except SQLAlchemyError as error:  # another machine makes the same tables at this moment
            attempts -= 1
            if not attempts or not re.search("already exists|duplicate", str(error), re.IGNORECASE):
                raise
            time.sleep(random.random())


def _grpc(url: str) -> GrpcStorageProxy:
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise ValueError("a host and a port are missing, as in grpc://node1:13000")
    storage = GrpcStorageProxy(host=parts.hostname, port=parts.port)
    try:
        storage.wait_server_ready(timeout=CONNECT_SECONDS)
    except ConnectionError:
        raise ConnectionError(f"no server answers within {CONNECT_SECONDS} s") from None
    return storage


def _sqlite(folder: Path) -> RDBStorage:
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / DATABASE).resolve()
    # A write-ahead log needs one flush a transaction, not three; it is consistent after any death, and a transaction
    # that a power cut takes is restored from the trial's own files.
    with sqlite3.connect(path, timeout=60) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    storage = _Database(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}}, skip_table_creation=False)

    @event.listens_for(storage.engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.remove_session()
    storage.engine.dispose()  # connections that were made before the line above
    return storage


class _Database(RDBStorage):
    """Optuna's database, where a choice of a new trial takes one statement rather than three.

    Optuna asks before every choice whether the trial still runs, which is made in the same transaction, and whether the
    study has used the name for another distribution, which a study of one space does not.
    """

    def _set_trial_param_without_commit(
        self,
        session: Any,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None = None,
    ) -> None:
        session.add(
            TrialParamModel(
                trial_id=trial_id,
                param_name=param_name,
                param_value=param_value_internal,
                distribution_json=distribution_to_json(distribution),
            )
        )


class _Journal(JournalFileBackend):
    """Optuna's journal file, proof against deaths in the middle of a line.

    Optuna's own appends to a line that a full disk or a power cut left half written, and neither part can be read from
    then on; and its locks are files that outlive a killed process for half a minute.
    """

    def __init__(self, path: Path | None) -> None:
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        super().__init__(os.fspath(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        try:
            with held(self._path.with_name(f"{self._path.name}.lock")), open(self._path, "r+b") as journal:
                end = _whole(journal)
                journal.truncate(end)
                try:
                    journal.seek(end)
                    journal.write(lines)
                    journal.flush()
                    os.fsync(journal.fileno())
                except OSError:
                    os.ftruncate(journal.fileno(), end)
                    raise
        except OSError as error:
            raise not_saved(self._path, error) from None


def _whole(journal: Any) -> int:
    """Where the last whole line ends."""
    end: int = journal.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - 4096)
        journal.seek(begin)
        newline = journal.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + int(newline) + 1
        end = begin
    return 0
