"""The Pareto front of a study's trials."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from search.storage import candidate


def front(trials: Sequence[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """The trials that no other beats in every objective, best in the first objective first; of equals, the earliest."""
    signs = [-1 if direction == "maximize" else 1 for direction in directions]
    points = {
        trial.number: tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))
        for trial in trials
        if trial.state == TrialState.COMPLETE
    }

    def beaten(number: int) -> bool:
        point = points[number]
        return any(
            all(a <= b for a, b in zip(other, point, strict=True)) and (other != point or earlier < number)
            for earlier, other in points.items()
            if earlier != number
        )

    best = [trial for trial in trials if trial.number in points and not beaten(trial.number)]
    return sorted(best, key=lambda trial: points[trial.number])


def label(rank: int, trial: FrozenTrial) -> str:
    """The name of a winner's folder."""
    return f"{rank}-{candidate(trial)['hash'][:8]}"
