"""The Pareto front of a study's trials."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from optuna.trial import FrozenTrial, TrialState

from search.storage import candidate


def front(trials: Sequence[FrozenTrial], directions: Sequence[str]) -> list[FrozenTrial]:
    """The trials that no other beats in every objective, best in the first objective first; of equals, the earliest.

    A candidate that was trained with several seeds stands for all of them: its first trial, with the means as values.
    """
    signs = [-1 if direction == "maximize" else 1 for direction in directions]
    candidates = over_seeds(trials)
    points = {
        trial.number: tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))
        for trial in candidates
    }

    found: list[tuple[float, ...]] = []
    best: list[FrozenTrial] = []
    # What beats a point stands before it in this order, and so does the earliest of equals.
    for trial in sorted(candidates, key=lambda trial: (points[trial.number], trial.number)):
        point = points[trial.number]
        if not any(all(a <= b for a, b in zip(other, point, strict=True)) for other in found):
            found.append(point)
            best.append(trial)
    return best


def over_seeds(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """One trial for each candidate that is finished, its values the means over its seeds."""
    same: dict[object, list[FrozenTrial]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            same.setdefault(candidate(trial).get("hash", trial.number), []).append(trial)
    return [some[0] if len(some) == 1 else _mean(some) for some in same.values()]


def _mean(seeds: list[FrozenTrial]) -> FrozenTrial:
    found = copy(seeds[0])
    found.values = [sum(values) / len(seeds) for values in zip(*(trial.values for trial in seeds), strict=True)]
    return found


def label(rank: int, trial: FrozenTrial) -> str:
    """The name of a winner's folder."""
    return f"{rank}-{candidate(trial).get('hash', '')[:8]}"
