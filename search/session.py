"""An open study: ask for a candidate, train it, tell what came of it.

::

    with closing(OpenStudy(load("demo.yaml"), Path("runs/demo"))) as study:
        while isinstance(asked := study.ask(), Asked):
            study.tell(asked, [loss_of(asked.proposal.spec)])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

from archspec.errors import Problem, SpecError
from archspec.kinds.interface import Interface
from archspec.spec import Spec
from search import companions, interrupts, provenance, storages
from search.cost.price import price
from search.data.batches import DataSet
from search.durable import NotSaved
from search.evaluate import evaluate
from search.limits import Limits
from search.locks import Quiet
from search.objectives import Priced
from search.outcome import TrainingFailed
from search.proposals import Exhausted, Proposal, Proposer, refusals
from search.schedule import Further
from search.storage import ABANDONED, Record, Running, candidate, counted
from search.study import Study, differences
from search.train import Progress

POLL_SECONDS = 0.2


class Asked(NamedTuple):
    """A candidate, and its trial on record."""

    trial: Running
    proposal: Proposal


class OpenStudy:
    """A study that is being run: ask for a candidate, tell what came of it.

    Args:
        folder: of its results.
        waits: told True and False around waits for other processes' measurements of time.
        idle: called now and then while others must end first.
        supervisor: as for `Record`.

    Errors:
        SpecError: the space, the data or the storage cannot be opened, or the study changed against its storage.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        *,
        waits: Callable[[bool], None] = lambda _: None,
        idle: Callable[[], None] = lambda: None,
        supervisor: str | None = None,
    ) -> None:
        self.idle = idle
        self.study, self.folder = study, folder
        self.limits: Limits = study.limits
        self.quiet = Quiet(folder, waits)
        self.space = study.members()
        self._opened: list[tuple[Interface, DataSet]] = []
        probe = self.space.sample(Random(0)).spec
        self._try(probe)
        data = self.data(probe.interface)
        self.fingerprint = fingerprint = data.fingerprint
        with _placed(study):
            data.batch(0, seed=0, size=1, length=study.recipe.length)  # refuses a wrong length
        directions = [objective.direction for objective in study.objectives]
        with _placed(study):
            self.record = Record(
                study.storage, study.name, directions, folder, silence=self.limits.silence, supervisor=supervisor
            )
        try:
            identity = {**study.identity(), "data.content": fingerprint, **provenance.fixed(study)}
            if changed := differences(self.record.recall("identity") or identity, identity):
                raise _changed(study, folder, changed)
            self.record.remember("identity", identity)
            columns = [
                {"name": o.name, "unit": o.unit, "direction": o.direction, "worst": o.worst} for o in study.objectives
            ]
            self.record.remember("objectives", columns)
            self.record.name_objectives([objective.name for objective in study.objectives])
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
        with _placed(self.study):
            data = self.study.data.open(interface)
        self._opened.append((interface, data))
        return data

    def ask(self) -> Asked | Exhausted | None:
        """The next candidate, put on record as a running trial; None when the study's trials are spent.

        What other machines work on is waited for until it gave a sign of life; what gives none is taken up again.

        Errors:
            SpecError: the study has no trial yet, and no candidate keeps its constraints.
        """
        while True:
            with self.record.alone(), self.quiet.working():
                asked = self._ask()
            if asked == "wait":
                self.idle()
                time.sleep(POLL_SECONDS)
            elif isinstance(asked, Asked) or not self.record.wait_for_signs():
                return asked

    def _ask(self) -> Asked | Exhausted | Literal["wait"] | None:
        proposer, exhausted = self.proposer, None
        while True:
            self.settle()
            trials = self.record.trials()
            step = proposer.schedule.next(trials, exhausted=exhausted is not None)
            if step is None or step == "wait":
                return exhausted if step is None else "wait"
            proposal = proposer.further(step) if isinstance(step, Further) else proposer.ask()
            if isinstance(proposal, Exhausted):
                if not counted(trials):
                    raise _infeasible(self.study, proposal)
                exhausted = proposal
                continue
            if (trial := self._start(proposal)) is not None:
                if not proposal.further:
                    proposer.adopt(trial.number, proposal)
                return Asked(trial, proposal)

    def _start(self, proposal: Proposal) -> Running | None:
        return self.record.start(
            proposal.params,
            proposal.distributions,
            proposal.system,
            key=proposal.key,
            most=None if proposal.further else self.study.trials,
            hash=proposal.spec.full,
            rung=proposal.rung,
            seed=proposal.seed,
            further=proposal.further,
            draws=proposal.draws,
            refused=proposal.refused,
            **proposal.learned,
        )

    def place(self, proposal: Proposal) -> Path:
        """The folder of a candidate."""
        return self.folder / "trials" / proposal.folder

    def tell(self, asked: Asked, values: list[float], result: dict[str, Any] | None = None) -> None:
        """Puts the values of the objectives on record."""
        if asked.proposal.rung < self.proposer.schedule.top:
            names = [objective.name for objective in self.study.objectives]
            self.record.pause(asked.trial, {"values": dict(zip(names, values, strict=True)), **(result or {})})
        else:
            self.record.finish(asked.trial, values, result or {})

    def fail(self, asked: Asked, reason: str) -> None:
        """Puts on record why a candidate has no values; it is not tried again."""
        self.record.fail(asked.trial, reason)

    def train(self, asked: Asked, progress: Progress | None = None) -> None:
        """Trains a candidate and tells; what goes wrong with it is put on record.

        Where a seed is due of a candidate that has others to come, they are trained together if that is faster.

        Errors:
            NotSaved, KeyboardInterrupt: the candidate is tried again when the study goes on.
        """
        left = [asked]
        try:
            facts = self._train_together(left, progress)
            while left:
                self._train(left[0], progress, facts)
                left.pop(0)
        except (NotSaved, KeyboardInterrupt) as error:
            with interrupts.ignored():
                reason = str(error).strip() or "interrupted"
                for one in left:
                    self.record.fail(one.trial, reason, again=True)
            raise

    def _train(self, asked: Asked, progress: Progress | None, facts: dict[str, Any]) -> None:
        trial, proposal = asked
        try:
            evaluation = evaluate(
                self.study,
                proposal,
                self.data(proposal.spec.interface),
                self.place(proposal),
                progress=self._watched(trial, progress),
                limits=self.limits,
                quiet=self.quiet,
            )
        except (NotSaved, KeyboardInterrupt):
            raise
        except Exception as error:
            self.record.fail(trial, _reason(error))
        else:
            result = {**evaluation.result, **facts}
            if proposal.rung < self.proposer.schedule.top:
                self.record.pause(trial, result)
            else:
                self.record.finish(trial, evaluation.values, result)

    def _train_together(self, asked: list[Asked], progress: Progress | None) -> dict[str, Any]:
        """Trains what was asked for as far as a checkpoint, with its companions, which join it; how, to put on record.

        Empty where it is to be trained alone, and nothing has been done.
        """
        trial, proposal = asked[0]
        if not proposal.further or self.study.seeds < 3 or self.limits.seconds is not None:
            return {}  # a limit on time is of one alone
        steps = self.proposer.schedule.companions(self.record.trials(), proposal.spec.full)
        wanted = [proposal, *map(self.proposer.further, steps)]
        data = self.data(proposal.spec.interface)
        with self.quiet.working(), self.limits.enforced(self.study.recipe.device):
            times = companions.times_as_fast(wanted, data)
            if times is None:
                return {}
            asked += [Asked(started, one) for one in wanted[1:] if (started := self._start(one)) is not None]
            chosen = [one.proposal for one in asked]
            done = companions.train(chosen, data, list(map(self.place, chosen)), self._watched(trial, progress))
        return {"together": {"count": len(chosen), "times_as_fast": round(times, 2)}} if done else {}

    def _watched(self, trial: Running, progress: Progress | None) -> Progress:
        def step(step: int, of: int, loss: float) -> None:
            if self.record.lost(trial):
                raise TrainingFailed("another process has ended this trial")
            if progress is not None:
                progress(step, of, loss)

        return step

    def _try(self, spec: Spec) -> None:
        """Prices one candidate, so that what is wrong with an objective is told before anything is trained."""
        priced = Priced(spec, self.study.recipe, prices)
        parts = {"objectives": self.study.objectives, "constraints": [bound.objective for bound in self.study.bounds]}
        for part, objectives in parts.items():
            for number, objective in enumerate(objectives):
                with _placed(self.study, f"{part}[{number}]"):
                    if not objective.needs_training:
                        objective.before(priced)

    def settle(self) -> None:
        """Fails the trials of dead processes, and has their candidates tried again."""
        for stale in self.record.stale():
            blamed = self.record.blames(stale)
            died = blamed + sum(
                t.user_attrs.get("died", False) and candidate(t)["key"] == candidate(stale)["key"]
                for t in self.record.trials()
            )
            again = died < ABANDONED
            said = "the process died while it trained this"
            reason = said if again else f"{said}, for the {ABANDONED}rd time"
            self.record.fail(Running(stale.number, stale._trial_id), reason, again=again, died=blamed)


def prices(spec: Spec, **conditions: Any) -> dict[str, Any]:
    """The nested cost figures of a spec."""
    return price(spec, **conditions).as_dict()


def _reason(error: Exception) -> str:
    if isinstance(error, (TrainingFailed, SpecError)):
        return str(error).strip()
    return f"{type(error).__name__}: {error}"


def _infeasible(study: Study, exhausted: Exhausted) -> SpecError:
    cause = f"no candidate of {study.space} is feasible: {exhausted.draws:,} were tried; {refusals(exhausted.refused)}"
    return SpecError(
        Problem(cause, "loosen a constraint, or widen the space", "constraints", study.place("constraints"))
    )


def _changed(study: Study, folder: Path, changed: list[str]) -> SpecError:
    lines = "\n  ".join(changed[:12] + ([f"and {len(changed) - 12} more"] if len(changed) > 12 else []))
    where = storages.shown(study.storage, folder)
    cause = f"the study is not the one whose trials are in {where}:\n  {lines}"
    hint = "give it a new name: to keep both"
    if storages.within(study.storage):
        hint += ", or run it with --fresh to set the old results aside"
    path = changed[0].split()[0]
    return SpecError(Problem(cause, hint, path, study.place(path)))


@contextmanager
def _placed(study: Study, path: str | None = None) -> Iterator[None]:
    """Gives errors about a part of the study their place in its file."""
    try:
        yield
    except SpecError as error:
        placed = (
            p if p.mark else p._replace(path=path or p.path, mark=study.place(path or p.path)) for p in error.problems
        )
        raise SpecError(*placed) from None
