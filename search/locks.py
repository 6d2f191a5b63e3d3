"""Locks on files, which the system gives back when their process dies in any way.

They hold between the processes of one machine, and between machines where the folder's file system passes them on.
"""

from __future__ import annotations

import fcntl
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archspec.errors import Problem
from search.durable import NotSaved, write_text

FOLDER = "workers"  # of the lock files, in the folder of a study


def acquire(path: Path, *, wait: bool = False, shared: bool = False) -> int | None:
    """A lock on a file, which is made if missing; None when another process holds it. ``os.close`` gives it back.

    Errors:
        NotSaved: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise NotSaved(
            Problem(f"{path} cannot be written: {error.strerror}", "name another folder with --out")
        ) from None
    with suppress(BlockingIOError):
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        return handle
    os.close(handle)
    return None


@contextmanager
def held(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Waits for a lock, and holds it."""
    handle = acquire(path, wait=True, shared=shared)
    assert handle is not None
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Whether nobody holds a lock; if so, it is held inside."""
    handle = acquire(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def in_use(folder: Path) -> bool:
    """Whether a process works on the study in a folder."""
    for path in (folder / FOLDER).glob("*"):
        with free(path) as is_free:
            if not is_free:
                return True
    return False


def place(folder: Path) -> str:
    """A name of a study's folder that no other has, wherever it is mounted."""
    path = folder / FOLDER / "place"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        name = uuid.uuid4().hex
        write_text(path, name)
        return name


class Quiet:
    """Keeps the work of a study's processes on one machine away from measurements of time.

    Any number may work at a time, or one may measure. Who waits to measure is let in before those that want to begin
    work after it (Courtois, Heymans and Parnas 1971, "Concurrent control with readers and writers").

    Args:
        waits: told True when a wait begins, False when it is over: that time is not the candidate's.
    """

    def __init__(self, folder: Path, waits: Callable[[bool], None] = lambda _: None) -> None:
        place = folder / FOLDER
        self._door, self._room = (place / f"{name}-{platform.node()}" for name in ("door", "room"))
        self._waits = waits

    @contextmanager
    def working(self) -> Iterator[None]:
        """Not while somebody measures."""
        with self._in(shared=True):
            yield

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """While nobody works; not from within `working`."""
        with self._in(shared=False):
            yield

    @contextmanager
    def _in(self, *, shared: bool) -> Iterator[None]:
        self._waits(True)
        try:
            with held(self._door):  # who measures stands in it while others finish
                handle = acquire(self._room, wait=True, shared=shared)
        finally:
            self._waits(False)
        assert handle is not None
        try:
            yield
        finally:
            os.close(handle)
