"""An order of candidates by several noisy objectives, from the one to keep first to the one to drop first.

Fronts one after the other (Deb et al. 2002, "NSGA-II"); inside a front an epsilon-net, each next point the farthest
from those before (Schmucker et al. 2021, "Multi-objective asynchronous successive halving", arXiv 2106.12639; Gonzalez
1985). What misses a front by no more than the noise follows it at once, the likelier first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]


def order(
    points: Sequence[Sequence[float]], noise: Sequence[float] | None = None, *, first: int | None = None
) -> list[int]:
    """Places of points in the order of their worth; of equal ones the earlier first.

    Args:
        points: ``[n, objectives]``, all minimised.
        noise: the standard deviation of each objective between repetitions, 0 where it is exact.
        first: how many of them are wanted; all by default.
    """
    first = len(points) if first is None else first
    values = np.asarray(points, np.float64)
    if not len(values):
        return []
    if values.shape[1] == 1:
        return [int(place) for place in np.argsort(values[:, 0], kind="stable")[:first]]
    # a difference of two values has twice the variance of one
    margin = math.sqrt(2) * np.asarray(noise if noise is not None else [0.0] * values.shape[1])
    left = np.arange(len(values))
    found: list[int] = []
    while len(left) and len(found) < first:
        here = values[left]
        below = here[:, None] <= here[None]  # [other, point, objective]
        beaten = below.all(-1) & (here[:, None] < here[None]).any(-1)
        front = ~beaten.any(0)
        needs = _needs(here[front], here, margin)
        near = np.flatnonzero(~front & (needs < 1))
        found += [int(left[place]) for place in _net(here, np.flatnonzero(front))]
        found += [int(left[place]) for place in near[np.argsort(needs[near], kind="stable")]]
        gone = front.copy()
        gone[near] = True
        left = left[~gone]
    return found[:first]


def _needs(front: Reals, points: Reals, margin: Reals) -> Reals:
    """By how many margins the luckiest noisy objective of each point must fall for no point of the front to beat it."""
    noisy = margin > 0
    if not noisy.any():
        return np.full(len(points), np.inf)
    beats = (front[:, None] <= points[None]).all(-1)
    falls = (points[None][..., noisy] - front[:, None][..., noisy]) / margin[noisy]
    found: Reals = np.where(beats, falls.min(-1), 0.0).max(0)
    return found


def _net(points: Reals, members: NDArray[np.intp]) -> list[int]:
    """The members from the best in the first objective on, each next one the farthest from all before."""
    inside = points[members]
    span = np.ptp(inside, axis=0)
    scaled = (inside - inside.min(0)) / np.where(span > 0, span, 1.0)
    chosen = [int(np.argmin(scaled[:, 0]))]
    distance = np.full(len(members), np.inf)
    while len(chosen) < len(members):
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
    return [int(members[place]) for place in chosen]
