"""What blocks cost, remembered on disk: ``archspec/costs.sqlite`` in the user's cache folder.

An entry is JSON under a hash of what decides it: the block and the tensors that it is given, torch's version, and the
sources that build and measure it. Whatever is unreadable is measured again and replaced; a folder that cannot be
written means that nothing is remembered. `LARGEST` bounds the file; the oldest entries go first. With
``ARCHSPEC_CACHE=off`` in the environment, no file is read or written.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from functools import cache, lru_cache
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from search.cost.block import BlockCost, Flow, Operator, Result

LARGEST = 200_000_000  # bytes
PATIENCE = 0.5  # seconds that another process may write
LOOK = 256  # entries between two looks at the size
SOURCES = ("archspec/**/*.py", "compiler/**/*.py", "search/cost/*.py", "search/losses.py")


def recall(key: str) -> Any:
    """The value under a key; None if there is none, or none that can be read."""
    try:
        with _connection() as connection:
            row = connection.execute("SELECT value FROM units WHERE key = ?", (_hash(key),)).fetchone()
        return None if row is None else json.loads(row[0])
    except (_OffError, sqlite3.Error, OSError, ValueError):
        return None


def keep(key: str, value: Any) -> None:
    """Puts a value of JSON under a key."""
    with suppress(_OffError, sqlite3.Error, OSError), _connection() as connection:
        text = json.dumps(value, separators=(",", ":"))
        place = connection.execute("REPLACE INTO units (key, value) VALUES (?, ?)", (_hash(key), text)).lastrowid
        if place is not None and place % LOOK == 0:
            _shrink(connection)


def _shrink(connection: sqlite3.Connection) -> None:
    (size,) = connection.execute("SELECT sum(length(value)) FROM units").fetchone()
    if size > LARGEST:
        connection.execute("DELETE FROM units WHERE place <= (SELECT (min(place) + max(place)) / 2 FROM units)")


def off() -> bool:
    """Whether nothing is to be remembered."""
    return os.environ.get("ARCHSPEC_CACHE") == "off"


class _OffError(Exception):
    pass


def _connection() -> sqlite3.Connection:
    """As a context it commits.

    Errors:
        _OffError: nothing is to be remembered.
        sqlite3.Error, OSError: nothing can be remembered.
    """
    if off():
        raise _OffError
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archspec"
    found = _opened(folder / "costs.sqlite", os.getpid(), threading.get_ident())
    if found is None:
        raise _OffError
    return found


@lru_cache(maxsize=8)
def _opened(file: Path, process: int, thread: int) -> sqlite3.Connection | None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _open(file)
        except sqlite3.OperationalError:  # locked, or not to be written
            return None
        except sqlite3.DatabaseError:  # something else lies there
            file.unlink()
            return _open(file)
    except (sqlite3.Error, OSError):
        return None


def _open(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=PATIENCE, check_same_thread=False)
    try:
        connection.execute("PRAGMA auto_vacuum = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE IF NOT EXISTS units (place INTEGER PRIMARY KEY, key TEXT UNIQUE, value TEXT)")
        connection.execute("SELECT place, key, value FROM units LIMIT 1")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def forget() -> None:
    """Empties the file."""
    with suppress(_OffError, sqlite3.Error, OSError), _connection() as connection:
        connection.execute("DELETE FROM units")


def _hash(key: str) -> str:
    return blake2b(f"{fingerprint()} {key}".encode(), digest_size=16).hexdigest()


@cache
def fingerprint() -> str:
    """A hash of torch's version and of the sources that build and measure blocks."""
    digest = blake2b(torch.__version__.encode(), digest_size=16)
    root = Path(__file__).parents[2]
    for pattern in SOURCES:
        for file in sorted(root.glob(pattern)):
            digest.update(f"{file.relative_to(root)} {file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


_row = attrgetter(*(one.name for one in fields(Operator)))
_result = attrgetter(*(one.name for one in fields(Result)))
_figures = attrgetter(*(one.name for one in fields(BlockCost)))
_flow = attrgetter(*(one.name for one in fields(Flow)))


def plain(cost: BlockCost) -> Any:
    """A cost as JSON: records are lists of their fields."""
    inference, training, *rest, flow = _figures(cost)
    first, second, *others = _flow(flow)
    tables = [[_row(row) for row in rows] for rows in (inference, training)]
    results = [
        [
            [str(field).removeprefix("torch.") if isinstance(field, torch.dtype) else field for field in _result(one)]
            for one in form
        ]
        for form in (first, second)
    ]
    return [*tables, *rest, [*results, *others]]


def block_cost(value: Any) -> BlockCost:
    """The cost that `plain` wrote.

    Errors:
        TypeError, ValueError, AttributeError: it did not.
    """
    inference, training, *rest, flow = value
    first, second, *others = flow
    tables = (tuple(Operator(*map(_tuple, row)) for row in rows) for rows in (inference, training))
    results = (tuple(_results(rows)) for rows in (first, second))
    return BlockCost(*tables, *rest, Flow(*results, *map(_tuple, others)))


def _results(rows: Any) -> Iterator[Result]:
    for shape, stride, dtype, *rest in rows:
        yield Result(tuple(shape), tuple(stride), getattr(torch, dtype), *rest)


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
