"""Runs a study, candidate after candidate, until its trials are spent.

The same call goes on where the last one stopped, however it stopped. Several processes may run the same study at the
same time; they share its storage and nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from optuna.trial import TrialState

from archspec.errors import Problem, SpecError
from search import plugins, winners
from search.progress import Display
from search.proposals import Exhausted
from search.session import Asked, OpenStudy
from search.storage import Record, counted, database_errors, in_use
from search.study import Study, load

INTERRUPTED = 130  # the exit status of a process that Ctrl-C ended
POLL_SECONDS = 0.2


class Interrupted(KeyboardInterrupt):
    """The study was stopped from outside; everything that ended is on record. ``str()`` tells how to go on."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended."""

    folder: Path
    exhausted: Exhausted | None  # why there are fewer trials than asked for


def run(
    study: Study,
    *,
    out: Path | None = None,
    fresh: bool = False,
    plugin_files: Sequence[Path] = (),
    quiet: bool = False,
) -> Outcome:
    """Runs a study to its end, and writes ``pareto/`` beside the trials.

    Args:
        out: folder of the results, ``runs/<name>`` by default.
        fresh: sets older results aside, under another name.
        plugin_files: Python files with kinds of the user, for further processes to import as well.
        quiet: shows nothing.

    Errors:
        SpecError: the study cannot be opened, changed against its storage, has no feasible candidate; the disk is full.
        Interrupted: Ctrl-C.
    """
    folder = out or Path("runs") / study.name
    if fresh:
        set_aside(study, folder)
    try:
        with (
            database_errors(study.storage, folder),
            closing(OpenStudy(study, folder)) as opened,
            Display(study.objectives, study.trials, within=[*map(str, study.bounds)], quiet=quiet) as display,
        ):
            _greet(opened, display)
            exhausted = _alone(opened, display) if study.workers == 1 else _together(opened, display, plugin_files)
            if exhausted is not None:
                display.say(f"the space is exhausted: {exhausted}")
                opened.record.remember("exhausted", str(exhausted))
            winners.write(opened)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; give the same command again to go on from {folder}") from None
    return Outcome(folder, exhausted)


def set_aside(study: Study, folder: Path) -> Path | None:
    """Renames a folder of results; where to, or None if there was none.

    Errors:
        SpecError: the results are in a database elsewhere, or the study is running.
    """
    if study.storage != "sqlite":
        cause = "--fresh sets aside a folder, the trials of this study are in a database"
        raise SpecError(Problem(cause, "give the study another name:", "storage", study.place("storage")))
    if not folder.exists():
        return None
    if in_use(folder):
        raise SpecError(Problem(f"the study in {folder} is running", "stop it first, or give this one another name:"))
    number = next(n for n in range(1, sys.maxsize) if not folder.with_name(f"{folder.name}.{n}").exists())
    return folder.rename(folder.with_name(f"{folder.name}.{number}"))


def _greet(opened: OpenStudy, display: Display) -> None:
    before = len(counted(opened.record.trials()))
    display.seen(opened.record.trials())
    display.done(before)
    if before:
        display.say(f"going on from {opened.folder}: {before} of {opened.study.trials} trials are there")


def _alone(opened: OpenStudy, display: Display) -> Exhausted | None:
    while isinstance(asked := opened.ask(), Asked):
        opened.train(asked, display.step)
        trials = opened.record.trials()
        display.ended(trials[asked.trial.number])
        display.done(_ended(opened.record))
    return asked


def _together(opened: OpenStudy, display: Display, plugin_files: Sequence[Path]) -> Exhausted | None:
    study = opened.study
    context = multiprocessing.get_context("spawn")
    messages = context.SimpleQueue()
    threads = max(1, (os.cpu_count() or 1) // study.workers)
    told = {trial.number for trial in opened.record.trials() if trial.state.is_finished()}
    exhausted: Exhausted | None = None

    def start() -> tuple[BaseProcess, int]:
        arguments = (study.file, study.trials, opened.folder, [str(path) for path in plugin_files], threads, messages)
        process = context.Process(target=_work, args=arguments)
        process.start()
        return process, len(opened.record.trials())

    workers = [start() for _ in range(study.workers)]
    try:
        while workers:
            time.sleep(POLL_SECONDS)
            trials = opened.record.trials()
            for trial in trials:
                if trial.state.is_finished() and trial.number not in told:
                    told.add(trial.number)
                    display.ended(trial)
            display.done(_ended(opened.record))
            while not messages.empty():
                kind, content = messages.get()
                if kind == "error":
                    raise SpecError(*content)
                exhausted = content
            for worker in list(workers):
                process, trials_before = worker
                if process.exitcode is None:
                    continue
                workers.remove(worker)
                if process.exitcode == INTERRUPTED:
                    raise KeyboardInterrupt
                if process.exitcode != 0:
                    display.say(f"a worker died ({_status(process.exitcode)}); its candidate is tried again")
                    if len(trials) > trials_before:  # else it did not get as far as a trial, and never will
                        workers.append(start())
        if (left := study.trials - len(counted(opened.record.trials()))) > 0 and exhausted is None:
            raise SpecError(
                Problem(f"all workers died with {left} trials left", "give the same command again to go on")
            )
    finally:
        _stop([process for process, _ in workers])
    return exhausted


def _work(file: str, trials: int, folder: Path, plugin_files: list[str], threads: int, messages: Any) -> None:
    """What a worker process does."""
    parent = os.getppid()

    def orphaned(*_: object) -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt

    try:
        torch.set_num_threads(threads)
        plugins.load_installed()
        plugins.load(plugin_files)
        study = replace(load(file), trials=trials)
        with database_errors(study.storage, folder), closing(OpenStudy(study, folder)) as opened:
            while isinstance(asked := opened.ask(), Asked):
                opened.train(asked, orphaned)
                orphaned()
        if asked is not None:
            messages.put(("exhausted", asked))
    except SpecError as error:
        messages.put(("error", error.problems))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(INTERRUPTED)


def _stop(processes: list[BaseProcess]) -> None:
    """Ends workers gently, so that they put on record what they give up."""
    deadline = time.monotonic() + 0.5  # a Ctrl-C on the terminal has reached them already
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    for process in processes:
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, signal.SIGINT)
    for process in processes:
        process.join(10)
        process.kill()


def _ended(record: Record) -> int:
    return sum(trial.state != TrialState.RUNNING for trial in counted(record.trials()))


def _status(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
