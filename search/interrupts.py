"""Signals that ask a process to stop: Ctrl-C, SIGTERM of a system or a scheduler, SIGHUP of a closed terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # the exit status of a process that one of them ended


@contextmanager
def heeded() -> Iterator[None]:
    """All of them raise KeyboardInterrupt, as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with _handled({one: stop for one in STOPS if signal.getsignal(one) is not signal.SIG_IGN}):  # as nohup asks
        yield


@contextmanager
def ignored() -> Iterator[None]:
    """Keeps a second one from cutting off what the first one began."""
    with _handled(dict.fromkeys(STOPS, signal.SIG_IGN)):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, handler) for one, handler in handlers.items()}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
