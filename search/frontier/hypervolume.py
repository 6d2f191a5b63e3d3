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
        self.boxes = [_boxes(one, reference) for one in self.known] if len(reference) > 2 else []

    def of_each(self) -> Reals:
        """Improvements ``[worlds, m]``."""
        if len(self.reference) == 1:
            lowest = self.known[:, :, 0].min(axis=1, initial=self.reference[0])
            found: Reals = np.maximum(lowest[:, None] - self.candidates[:, :, 0], 0.0)
            return found
        if len(self.reference) == 2:
            return self._staircase()
        return np.stack([_inside(*boxes, own) for boxes, own in zip(self.boxes, self.candidates, strict=True)])

    def add(self, chosen: int) -> None:
        """Takes a candidate among the known points."""
        self.known = np.concatenate([self.known, self.candidates[:, chosen : chosen + 1]], axis=1)
        self.boxes = [_split(*boxes, own[chosen]) for boxes, own in zip(self.boxes, self.candidates, strict=False)]

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
    found: Reals = np.take_along_axis(kept, packed[:, :, None], 1)
    return found


def _boxes(known: Reals, reference: Reals) -> tuple[Reals, Reals]:
    """Lower and upper corners of disjoint boxes ``[boxes, objectives]`` that fill what no known point dominates."""
    front = known[(known < reference).all(axis=1)]
    if not len(front):
        return np.full((1, len(reference)), -np.inf), reference[None]
    front = front[non_dominated(front)]
    return get_non_dominated_box_bounds(front[np.lexsort(front.T[::-1])], reference)


def _inside(lower: Reals, upper: Reals, candidates: Reals) -> Reals:
    """The volume of the boxes that each candidate dominates."""
    sides = upper - np.maximum(lower, candidates[:, None])
    found: Reals = np.prod(np.maximum(sides, 0.0), axis=2).sum(axis=1)
    return found


def _split(lower: Reals, upper: Reals, point: Reals) -> tuple[Reals, Reals]:
    """The boxes without what a point dominates, which is cut off one objective after another."""
    hit = (point < upper).all(axis=1)
    low, high = lower[hit].copy(), upper[hit]
    lowers, uppers = [lower[~hit]], [upper[~hit]]
    for axis, at in enumerate(point):
        below = low[:, axis] < at
        piece = high[below].copy()
        piece[:, axis] = at
        lowers.append(low[below].copy())
        uppers.append(piece)
        low[:, axis] = np.maximum(low[:, axis], at)
    return np.concatenate(lowers), np.concatenate(uppers)


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
