"""Hypervolume: how much of the space up to a reference point a set of points dominates. All objectives are minimised.

Zitzler and Thiele 1999, "Multiobjective evolutionary algorithms: a comparative case study and the strength Pareto
approach". Two objectives are summed exactly as a staircase; for more, the boxes that are not dominated come from
Optuna (Lacour et al. 2017, "A box decomposition algorithm to compute the hypervolume indicator").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume, get_non_dominated_box_bounds

Reals = NDArray[np.float64]


def hypervolume(points: Reals, reference: Reals) -> float:
    """The volume that points ``[n, objectives]`` dominate below a reference point, in the product of their units."""
    inside = points[(points < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if points.shape[1] == 1:
        return float(reference[0] - inside.min())
    if points.shape[1] == 2:
        inside = inside[np.lexsort((inside[:, 1], inside[:, 0]))]
        lowest = np.minimum.accumulate(np.concatenate([reference[1:], inside[:, 1]]))
        return float(((reference[0] - inside[:, 0]) * (lowest[:-1] - lowest[1:])).sum())
    return float(compute_hypervolume(inside, reference))


class Improvements:
    """What each of some candidates would add to the hypervolume, in each of several worlds.

    Args:
        known: ``[worlds, n, objectives]``, the points that are there already.
        candidates: ``[worlds, m, objectives]``.
        reference: ``[objectives]``.
    """

    def __init__(self, known: Reals, candidates: Reals, reference: Reals) -> None:
        self.candidates, self.reference = np.minimum(candidates, reference), reference
        self.known = np.minimum(known, reference)

    def of_each(self) -> Reals:
        """Improvements ``[worlds, m]``."""
        objectives = len(self.reference)
        if objectives == 1:
            lowest = self.known[:, :, 0].min(axis=1, initial=self.reference[0])
            return np.maximum(lowest[:, None] - self.candidates[:, :, 0], 0.0)
        if objectives == 2:
            return self._staircase()
        return np.stack([_boxes(*pair, self.reference) for pair in zip(self.known, self.candidates, strict=True)])

    def add(self, chosen: int) -> None:
        """Takes a candidate among the known points."""
        self.known = np.concatenate([self.known, self.candidates[:, chosen : chosen + 1]], axis=1)

    def _staircase(self) -> Reals:
        # Between two neighbouring steps the height is constant: sum over steps of width times what lies above.
        self.known = _steps(self.known, self.reference)
        at, height = self.known[:, :, 0], self.known[:, :, 1]
        worlds = len(at)
        left = np.concatenate([np.full((worlds, 1), -np.inf), at], axis=1)
        right = np.concatenate([at, np.full((worlds, 1), self.reference[0])], axis=1)
        height = np.concatenate([np.full((worlds, 1), self.reference[1]), height], axis=1)
        found = np.zeros(self.candidates.shape[:2])
        x, y = self.candidates[:, :, 0], self.candidates[:, :, 1]
        for step in range(left.shape[1]):
            width = np.maximum(right[:, step, None] - np.maximum(left[:, step, None], x), 0.0)
            found += width * np.maximum(height[:, step, None] - y, 0.0)
        return found


def _steps(known: Reals, reference: Reals) -> Reals:
    """The fronts of all worlds from left to right, ``[worlds, longest, 2]``, short ones filled with the reference."""
    order = np.lexsort((known[:, :, 1], known[:, :, 0]), axis=1)
    known = np.take_along_axis(known, order[:, :, None], 1)
    before = np.concatenate([np.full((len(known), 1), reference[1]), known[:, :, 1]], axis=1)
    lower = known[:, :, 1] < np.minimum.accumulate(before, axis=1)[:, :-1]
    lower &= known[:, :, 0] < reference[0]
    kept = np.where(lower[:, :, None], known, reference)
    packed = np.argsort(~lower, axis=1, kind="stable")[:, : int(lower.sum(axis=1).max(initial=0))]
    return np.take_along_axis(kept, packed[:, :, None], 1)


def _boxes(known: Reals, candidates: Reals, reference: Reals) -> Reals:
    front = known[(known < reference).all(axis=1)]
    if not len(front):
        return np.prod(reference - candidates, axis=1)
    front = front[non_dominated(front)]
    lower, upper = get_non_dominated_box_bounds(front[np.lexsort(front.T[::-1])], reference)
    sides = upper[None] - np.maximum(lower[None], candidates[:, None])
    found: Reals = np.prod(np.maximum(sides, 0.0), axis=2).sum(axis=1)
    return found


def non_dominated(points: Reals) -> NDArray[np.bool_]:
    """Which points ``[n, objectives]`` no other beats in every objective; of equal points the first."""
    order = np.lexsort(points.T[::-1])
    keep = np.zeros(len(points), dtype=np.bool_)
    if points.shape[1] == 2:
        second = points[order, 1]
        before = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        keep[order[second < before]] = True
        return keep
    rest = order
    while len(rest):
        best = points[rest[0]]
        keep[rest[0]] = True
        rest = rest[(points[rest] < best).any(axis=1)]
    return keep
