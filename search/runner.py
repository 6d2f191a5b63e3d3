"""Runs a study: proposes, trains and records, candidate after candidate, until its trials are spent.

The same call goes on where the last one stopped, however it stopped. Several processes may run the same study at the
same time; they share its storage and nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from optuna.trial import TrialState

from archspec.errors import Problem, SpecError
from archspec.kinds.interface import Interface
from search.cost.price import price
from search.data.batches import DataSet
from search.durable import NotSaved
from search.evaluate import evaluate
from search.proposals import Exhausted, Proposal, Proposer, refusals
from search.storage import ABANDONED, DATABASE, Record, Running, compare, counted
from search.study import Study, differences
from search.train import Progress, TrainingFailed
from spaces.space import load as load_space


class Interrupted(KeyboardInterrupt):
    """The study was stopped from outside; everything that ended is on record. `str()` tells how to go on."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended."""

    folder: Path
    exhausted: Exhausted | None  # why there are fewer trials than asked for


class OpenStudy:
    """A study that is being run: ask for a candidate, tell what came of it.

    Args:
        folder: of its results.

    Errors:
        SpecError: the space, the data or the storage cannot be opened, or the study changed against its storage.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self.study, self.folder = study, folder
        self.space = load_space(study.space)
        self._opened: list[tuple[Interface, DataSet]] = []
        interface = self.space.sample(Random(0)).spec.interface
        fingerprint = self.data(interface).fingerprint
        next(self.data(interface).validation(size=1, length=study.recipe.length, batches=1))  # refuses a wrong length
        self.record = Record(study.storage, study.name, [objective.direction for objective in study.objectives], folder)
        try:
            identity = {**study.identity(), "data.content": fingerprint}
            changed = compare(self.record, identity, differences)
            if changed:
                raise _changed(study, folder, changed)
            columns = [{"name": o.name, "unit": o.unit, "direction": o.direction} for o in study.objectives]
            self.record.remember("objectives", columns)
        except BaseException:
            self.record.close()
            raise
        self.proposer = Proposer(study, self.space, self.record, fingerprint, prices)

    def close(self) -> None:
        """Gives up the study; trials of this process that run become stale."""
        self.record.close()

    def data(self, interface: Interface) -> DataSet:
        """The study's data for an interface; read once."""
        for known, data in self._opened:
            if known == interface:
                return data
        data = self.study.data.open(interface)
        self._opened.append((interface, data))
        return data

    def ask(self) -> tuple[Running, Proposal] | Exhausted | None:
        """The next candidate, put on record as a running trial; None when the study's trials are spent.

        Errors:
            SpecError: the study has no trial yet, and no candidate keeps its constraints.
        """
        with self.record.alone():
            self._settle()
            trials = counted(self.record.trials())
            if len(trials) >= self.study.trials:
                return None
            proposal = self.proposer.ask()
            if isinstance(proposal, Exhausted):
                if not trials:
                    raise _infeasible(self.study, proposal)
                return proposal
            trial = self.record.start(
                proposal.params,
                proposal.distributions,
                proposal.system,
                key=proposal.key,
                hash=proposal.spec.full,
                draws=proposal.draws,
                refused=proposal.refused,
            )
            self.proposer.adopt(trial.number, proposal)
            return trial, proposal

    def place(self, proposal: Proposal) -> Path:
        """The folder of a candidate."""
        return self.folder / "trials" / proposal.spec.full[:16]

    def run_one(self, progress: Progress | None = None) -> Running | Exhausted | None:
        """Asks, trains and tells once.

        Errors:
            NotSaved: the disk is full; the candidate is tried again when the study goes on.
            KeyboardInterrupt: likewise.
        """
        asked = self.ask()
        if asked is None or isinstance(asked, Exhausted):
            return asked
        trial, proposal = asked
        try:
            evaluation = evaluate(
                self.study, proposal, self.data(proposal.spec.interface), self.place(proposal), progress=progress
            )
        except (NotSaved, KeyboardInterrupt) as error:
            signal.signal(signal.SIGINT, signal.SIG_IGN) if isinstance(error, KeyboardInterrupt) else None
            self.record.fail(trial, "interrupted" if isinstance(error, KeyboardInterrupt) else str(error), again=True)
            raise
        except Exception as error:
            self.record.fail(trial, _reason(error))
        else:
            self.record.finish(trial, evaluation.values, evaluation.result)
        return trial

    def _settle(self) -> None:
        """Fails the trials of dead processes, and has their candidates tried again."""
        trials = self.record.trials()
        for stale in self.record.stale():
            died = sum(t.user_attrs.get("died", False) and t.user_attrs["key"] == stale.user_attrs["key"] for t in trials)
            trial = Running(stale.number, stale._trial_id)
            reason = "the process died while it was trained"
            self.record.fail(trial, reason, again=died + 1 < ABANDONED, died=True)


def prices(spec: Any, **conditions: Any) -> dict[str, Any]:
    """The nested cost figures of a spec."""
    return price(spec, **conditions).as_dict()


def _reason(error: Exception) -> str:
    if isinstance(error, (TrainingFailed, SpecError)):
        return str(error).strip()
    return f"{type(error).__name__}: {error}"


def _infeasible(study: Study, exhausted: Exhausted) -> SpecError:
    cause = f"no candidate of {study.space} is feasible: {exhausted.draws:,} were tried; {refusals(exhausted.refused)}"
    return SpecError(Problem(cause, "loosen a constraint, or widen the space", "constraints", study.place("constraints")))


def _changed(study: Study, folder: Path, changed: list[str]) -> SpecError:
    lines = "\n  ".join(changed[:12] + ([f"and {len(changed) - 12} more"] if len(changed) > 12 else []))
    where = folder / DATABASE if study.storage == "sqlite" else study.storage.split("@")[-1]
    cause = f"the study is not the one whose trials are in {where}:\n  {lines}"
    hint = "give it a new name: to keep both, or run it with --fresh to set the old results aside"
    return SpecError(Problem(cause, hint, "name", study.place(changed[0])))
