"""`FrontierSampler`: the search as an Optuna sampler, for any study.

    study = optuna.create_study(directions=["minimize", "minimize"], sampler=FrontierSampler(seed=0))

All objectives are learned from the trials. Parameters that every finished trial has are proposed together, others are
drawn at random, as are all until a first trial has shown which there are. No point is proposed twice while there are
points that were not; running trials count as seen, and what they may bring is reckoned with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.frontier.flat import Parameters
from search.frontier.frontier import Frontier, batch_size

Reals = NDArray[np.float64]

PROPOSED = "frontier:proposed"  # what a trial was given before it asks for it


class FrontierSampler(BaseSampler):
    """Proposes where the front may grow.

    Args:
        seed: of all that is random; None for another each time.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = RandomSampler(seed)
        self._seed = _entropy() if seed is None else seed
        self._shared = IntersectionSearchSpace()
        self._waiting: tuple[dict[str, BaseDistribution], list[Reals]] = ({}, [])

    def reseed_rng(self) -> None:
        self._random.reseed_rng()
        self._seed = _entropy()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: one for name, one in self._shared.calculate(study).items() if not one.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        problem = Parameters(search_space, len(study.directions))
        trials = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        told = [(one, vector) for one in trials if (vector := _vector(problem, search_space, one)) is not None]
        proposal = self._next(problem, search_space, told, study.directions)
        if proposal is None:
            return {}
        study._storage.set_trial_system_attr(trial._trial_id, PROPOSED, proposal.tolist())
        return problem.params(proposal)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _next(
        self,
        problem: Parameters,
        space: Mapping[str, BaseDistribution],
        told: Sequence[tuple[FrozenTrial, list[float]]],
        directions: Sequence[StudyDirection],
    ) -> Reals | None:
        seen = {tuple(vector) for _, vector in told}
        if self._waiting[0] == space:
            while self._waiting[1]:
                proposal = self._waiting[1].pop(0)
                if tuple(proposal.tolist()) not in seen:
                    return proposal
        signs = [-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions]
        frontier = Frontier(problem, self._seed)
        ended = [(one, vector) for one, vector in told if one.state.is_finished()]
        running = [vector for one, vector in told if not one.state.is_finished()]
        if ended:
            values = [
                [sign * value for sign, value in zip(signs, one.values, strict=True)]
                if one.state == TrialState.COMPLETE
                else [np.nan] * len(signs)
                for one, _ in ended
            ]
            frontier.tell(np.array([vector for _, vector in ended]), np.array(values))
        found = frontier.ask(batch_size(len(ended)), np.array(running) if running else None)
        self._waiting = dict(space), list(found)
        return self._waiting[1].pop(0) if self._waiting[1] else None


def _vector(problem: Parameters, space: Mapping[str, BaseDistribution], trial: FrozenTrial) -> list[float] | None:
    """A trial's point; None if it has none in that space."""
    if all(name in trial.params and trial.distributions[name] == one for name, one in space.items()):
        return problem.vector(trial.params)
    given = trial.system_attrs.get(PROPOSED)
    return given if given is not None and len(given) == len(space) and not trial.state.is_finished() else None


def _entropy() -> int:
    return int(np.random.SeedSequence().generate_state(1)[0])
