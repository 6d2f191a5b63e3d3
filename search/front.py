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

    found: list[tuple[float, ...]] = []
    best: list[FrozenTrial] = []
    # What beats a point stands before it in this order, and so does the earliest of equals.
    for trial in sorted((t for t in trials if t.number in points), key=lambda t: (points[t.number], t.number)):
        point = points[trial.number]
        if not any(all(a <= b for a, b in zip(other, point, strict=True)) for other in found):
            found.append(point)
            best.append(trial)
    return best


def label(rank: int, trial: FrozenTrial) -> str:
    """The name of a winner's folder."""
    return f"{rank}-{candidate(trial).get('hash', '')[:8]}"
