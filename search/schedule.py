"""What a free worker does next: starts a candidate, trains one further, repeats one with another seed, waits, or ends.

Trials on record are evaluations: a candidate has one for each rung of its training and one for each seed. Those below
the last rung end as pruned, with their values among their attributes. The state is the record alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from search.fidelity import rungs
from search.fidelity.curves import ENOUGH, foretell
from search.fidelity.rungs import Stage
from search.fidelity.seeds import deserving
from search.storage import candidate, valid
from search.study import Study

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Further:
    """Another evaluation of a candidate that has one."""

    trial: FrozenTrial
    rung: int
    seed: int


Step = Further | Literal["start", "wait"] | None


class Schedule:
    """The schedule of a study.

    Attributes:
        levels: steps or tokens of each rung; one rung without fidelities.
        signs: -1 for objectives that are maximised.
    """

    def __init__(self, study: Study) -> None:
        self.study, self.halving = study, study.fidelities
        self.levels = self.halving.levels(study.recipe) if self.halving else (study.recipe.steps,)
        self.top = len(self.levels) - 1
        self.signs = np.array([-1.0 if objective.direction == "maximize" else 1.0 for objective in study.objectives])

    def stage(self, rung: int, seed: int | None = None) -> Stage:
        """How an evaluation is trained."""
        recipe = self.study.recipe
        if seed is not None:
            recipe = recipe.model_copy(update={"seed": seed})
        return self.halving.stage(recipe, rung) if self.halving else Stage(recipe=recipe)

    def next(self, trials: Sequence[FrozenTrial], *, exhausted: bool = False) -> Step:
        """What to do.

        Args:
            trials: all on record.
            exhausted: whether no new candidate can be started.
        """
        first = [trial for trial in valid(trials) if self._seed(trial) == self.study.recipe.seed]
        own: dict[str, list[FrozenTrial]] = {}
        for trial in first:
            own.setdefault(candidate(trial)["hash"], []).append(trial)
        starts = len(own) if exhausted else self.study.trials
        decision = rungs.decide(
            [self._candidate(key, some) for key, some in own.items()],
            rungs=len(self.levels),
            reduction=self.halving.reduction if self.halving else 2,
            starts=starts,
            finalists=self.halving.finalists if self.halving else 0,
        )
        if isinstance(decision, rungs.Promote):
            return Further(own[decision.key][0], decision.rung, self.study.recipe.seed)
        return self._repeated(valid(trials)) if decision == "done" else decision

    def companions(self, trials: Sequence[FrozenTrial], digest: str) -> list[Further]:
        """What is left to evaluate of a candidate that is being repeated: its seeds that were not tried yet."""
        own = [t for t in valid(trials) if candidate(t)["hash"] == digest and self._rung(t) == self.top]
        tried = {self._seed(trial) for trial in own}
        if self.study.seeds - len(tried) <= 0 or len(tried) < 2:
            return []
        untried = (seed for seed in count(self.study.recipe.seed) if seed not in tried)
        return [Further(own[0], self.top, seed) for seed in islice(untried, self.study.seeds - len(tried))]

    def values(self, trial: FrozenTrial) -> Reals | None:
        """The objectives after a trial that ended well, minimised."""
        if trial.state == TrialState.COMPLETE:
            told = trial.values
        elif trial.state == TrialState.PRUNED:
            told = list(trial.user_attrs["result"]["values"].values())
        else:
            return None
        return self.signs * np.array(told)

    def foretold(self, trials: Sequence[FrozenTrial]) -> dict[str, Reals | None]:
        """The objectives of each candidate by hash, minimised: means over seeds, or what its last rung lets expect.

        None while nothing is told of it; NaN where it failed.
        """
        told: dict[str, dict[int, list[Reals]]] = {}
        failed = set()
        for trial in valid(trials):
            rows = told.setdefault(candidate(trial)["hash"], {})
            values = self.values(trial)
            if values is not None:
                rows.setdefault(self._rung(trial), []).append(values)
            elif trial.state == TrialState.FAIL:
                failed.add(candidate(trial)["hash"])
        whole = [rows for rows in told.values() if self.top in rows]
        found: dict[str, Reals | None] = {}
        for key, rows in told.items():
            if self.top in rows:
                found[key] = np.mean(rows[self.top], axis=0)
            elif key in failed:
                found[key] = np.full(len(self.signs), np.nan)
            else:
                found[key] = self._end(rows, whole) if rows else None
        return found

    def _end(self, rows: dict[int, list[Reals]], whole: list[dict[int, list[Reals]]]) -> Reals:
        last = max(rows)
        found = rows[last][0].copy()
        for column, objective in enumerate(self.study.objectives):
            if not objective.needs_training:
                continue

            def curve(of: dict[int, list[Reals]], column: int = column) -> list[tuple[int, float]]:
                return [(self.levels[rung], float(of[rung][0][column])) for rung in sorted(of)]

            ended = [curve(other) for other in whole if last in other]
            if len(ended) >= ENOUGH or len(rows) > 1:
                found[column] = foretell(curve(rows), self.levels[-1], ended=ended).mean
        return found

    def _repeated(self, trials: Sequence[FrozenTrial]) -> Step:
        """Another seed of a finalist whose place on the front is not settled."""
        if self.study.seeds == 1:
            return None
        paid = next((n for n, objective in enumerate(self.study.objectives) if objective.needs_training), None)
        final = [trial for trial in trials if self._rung(trial) == self.top]
        if paid is None:
            return None
        if any(trial.state == TrialState.RUNNING for trial in final):
            return "wait"
        told: dict[str, list[tuple[FrozenTrial, Reals]]] = {}
        for trial in final:
            if (values := self.values(trial)) is not None:
                told.setdefault(candidate(trial)["hash"], []).append((trial, values))
        tried = {key: {self._seed(t) for t in final if candidate(t)["hash"] == key} for key in told}
        chosen = deserving(
            {key: [float(values[paid]) for _, values in some] for key, some in told.items()},
            {
                key: np.delete(np.mean([values for _, values in some], axis=0), paid).tolist()
                for key, some in told.items()
            },
            most=self.study.seeds,
        )
        for key in chosen:
            if len(tried[key]) < self.study.seeds:  # one that failed with a seed is not tried with ever more
                seed = next(n for n in range(self.study.recipe.seed, 2**31) if n not in tried[key])
                return Further(told[key][0][0], self.top, seed)
        return None

    def _candidate(self, key: str, trials: list[FrozenTrial]) -> rungs.Candidate:
        told = {self._rung(trial): self.values(trial) for trial in trials}
        running = [self._rung(trial) for trial in trials if trial.state == TrialState.RUNNING]
        return rungs.Candidate(
            key,
            {rung: values.tolist() for rung, values in told.items() if values is not None},
            running[0] if running else None,
            any(trial.state == TrialState.FAIL for trial in trials),
        )

    def _rung(self, trial: FrozenTrial) -> int:
        return int(candidate(trial).get("rung", self.top))

    def _seed(self, trial: FrozenTrial) -> int:
        return int(candidate(trial).get("seed", self.study.recipe.seed))
