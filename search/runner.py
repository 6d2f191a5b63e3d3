"""Runs a study, candidate after candidate, until its trials are spent.

The same call goes on where the last one stopped, however it stopped. Several processes may run the same study at the
same time; they share its storage and nothing else.

With one worker or more, candidates are trained by processes that are replaced when they die (`search.crew`). With 0
they are trained by the process that calls, which begins two seconds sooner and knows kinds that are in no file; a
candidate that crashes the interpreter takes it along, and its limit on time is not watched.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from archspec.errors import Problem, SpecError
from search import crew, interrupts, ray_workers, storages, winners
from search.interrupts import INTERRUPTED
from search.progress import Display
from search.proposals import Exhausted
from search.session import Asked, OpenStudy
from search.storage import Record, counted, database_errors, in_use
from search.study import Study

__all__ = ["INTERRUPTED", "Interrupted", "Outcome", "run", "set_aside"]


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
    ray: str | None = None,
    quiet: bool = False,
) -> Outcome:
    """Runs a study to its end, and writes ``pareto/`` beside the trials.

    Args:
        out: folder of the results, ``runs/<name>`` by default.
        fresh: sets older results aside, under another name.
        plugin_files: Python files with kinds of the user, for further processes to import as well.
        ray: address of a Ray cluster that the workers run on, see `search.ray_workers`.
        quiet: shows nothing.

    Errors:
        SpecError: the study cannot be opened, changed against its storage, has no feasible candidate; the disk is full.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP.
    """
    folder = out or Path("runs") / study.name
    if fresh:
        set_aside(study, folder)
    try:
        with (
            interrupts.heeded(),
            database_errors(study.storage, folder),
            closing(OpenStudy(study, folder)) as opened,
            Display(study.objectives, study.trials, within=[*map(str, study.bounds)], quiet=quiet) as display,
        ):
            _greet(opened, display)
            if ray is not None:
                exhausted = ray_workers.run(opened, display, plugin_files, address=ray)
            else:
                exhausted = crew.run(opened, display, plugin_files) if study.workers else _alone(opened, display)
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
    if not storages.within(study.storage):
        cause = "--fresh sets aside a folder, the trials of this study are elsewhere"
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


def _ended(record: Record) -> int:
    return sum(trial.state != TrialState.RUNNING for trial in counted(record.trials()))
