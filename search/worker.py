"""A process that works on a study: asks for a candidate, trains it, tells, until nothing is left.

It is started by `search.crew` as ``python -m search.worker``, and tells it through a pipe what it does, as pairs:

=============  ======================================================================
``trial``      a trial began: `search.storage.Running`; None: it ended
``waits``      True while it waits for a measurement of another process, then False
``step``       steps done, of how many, loss
``error``      the problems that end it
``exhausted``  why there is no further candidate
=============  ======================================================================
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from archspec.errors import Problem, SpecError
from search import interrupts

STEP_SECONDS = 0.5  # between two tellings


@dataclass(frozen=True)
class Task:
    """What a worker is started with."""

    file: str
    freeze: dict[str, Any]
    trials: int
    folder: str
    plugin_files: list[str]
    threads: int | None
    supervisor: str
    pipe: int  # handle of the end that is written to

    def command(self) -> list[str]:
        return [sys.executable, "-m", "search.worker", json.dumps(asdict(self))]


def work(task: Task, tell: Callable[[str, Any], None]) -> None:
    """Works until the study's trials are spent, its space is exhausted, or the parent process has died.

    Errors:
        SpecError: the study cannot be opened or used.
        KeyboardInterrupt: from outside, or the parent has died.
    """
    import torch

    from search import plugins
    from search.session import Asked, OpenStudy
    from search.storages import database_errors
    from search.study import load

    parent, told = os.getppid(), 0.0

    def orphaned() -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt

    def step(done: int, of: int, loss: float) -> None:
        nonlocal told
        orphaned()
        if time.monotonic() - told > STEP_SECONDS:
            told = time.monotonic()
            tell("step", (done, of, loss))

    if task.threads is not None:
        torch.set_num_threads(task.threads)
    plugins.load_installed()
    plugins.load(task.plugin_files)
    study = replace(load(task.file, freeze=task.freeze), trials=task.trials)
    folder = Path(task.folder)
    with (
        database_errors(study.storage, folder),
        closing(
            OpenStudy(study, folder, waits=lambda wait: tell("waits", wait), idle=orphaned, supervisor=task.supervisor)
        ) as opened,
    ):
        while isinstance(asked := opened.ask(), Asked):
            tell("trial", asked.trial)
            opened.train(asked, step)
            tell("trial", None)
            orphaned()
    if asked is not None:
        tell("exhausted", asked)


def main() -> None:
    """Runs the task that is given as JSON."""
    task = Task(**json.loads(sys.argv[1]))
    pipe = Connection(task.pipe, readable=False)

    def tell(kind: str, content: Any) -> None:
        with suppress(OSError):  # a dead parent is noticed elsewhere
            pipe.send((kind, content))

    try:
        with interrupts.heeded():
            work(task, tell)
    except SpecError as error:
        tell("error", error.problems)
    except KeyboardInterrupt:
        with interrupts.ignored():
            sys.exit(interrupts.INTERRUPTED)
    except Exception as error:  # of this program, not of a candidate: told once, and not tried again
        tell("error", (Problem(f"a worker failed: {type(error).__name__}: {error}"),))
        raise


if __name__ == "__main__":
    main()
