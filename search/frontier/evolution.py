"""Evolution of candidates towards the front of several objectives, all minimised.

NSGA-II (Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm"), its sorting over whole arrays.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Indices = NDArray[np.intp]

Score = Callable[[Reals], Reals]  # vectors [n, slots] to objectives [n, objectives], infinite where a bound is broken


def ranks(points: Reals, enough: int | None = None) -> Indices:
    """The front that each point is on, from 0; of equal points the first beats the others.

    Args:
        enough: points beyond the front at which there are so many share the next.
    """
    if points.shape[1] == 1:
        return np.argsort(np.argsort(points[:, 0], kind="stable"), kind="stable")
    return _ranks_of_pairs(points) if points.shape[1] == 2 else _ranks(points, enough or len(points))


def _ranks_of_pairs(points: Reals) -> Indices:
    # From left to right each point joins the first front whose lowest point so far is above it (Jensen 2003).
    found = np.empty(len(points), dtype=np.intp)
    lowest: list[float] = []
    for number in np.lexsort((points[:, 1], points[:, 0])):
        height = float(points[number, 1])
        rank = bisect_right(lowest, height)
        found[number] = rank
        lowest[rank : rank + 1] = [height]
    return found


def _ranks(points: Reals, enough: int) -> Indices:
    below = np.ones((len(points), len(points)), dtype=np.bool_)
    for column in points.T:
        below &= column[:, None] <= column[None]
    better = below & ~(below.T & np.tri(len(points), dtype=np.bool_))
    beaten = better.sum(axis=0)
    found = np.full(len(points), -1, dtype=np.intp)
    rank, done = 0, 0
    while done < min(len(points), enough):
        front = (beaten == 0) & (found < 0)
        found[front] = rank
        beaten = beaten - better[front].sum(axis=0)
        done, rank = done + int(front.sum()), rank + 1
    found[found < 0] = rank
    return found


def crowding(points: Reals, front: Indices) -> Reals:
    """How far the neighbours of each point on its own front are apart, as a share of the front's extent, summed."""
    found = np.zeros(len(points))
    for column in points.T:
        order = np.lexsort((column, front))
        values, fronts = column[order], front[order]
        first = np.concatenate([[True], fronts[1:] != fronts[:-1]])
        last = np.concatenate([first[1:], [True]])
        starts = np.flatnonzero(first)
        extent = np.maximum(values[np.flatnonzero(last)] - values[starts], 1e-300)[np.cumsum(first) - 1]
        gap = np.full(len(points), np.inf)
        inner = np.flatnonzero(~first & ~last)
        gap[inner] = (values[inner + 1] - values[inner - 1]) / extent[inner]
        found[order] += gap
    return found


def distinct(vectors: Reals) -> Indices:
    """The first row of each distinct vector, in order; choices that are not reached are equal."""
    canonical = np.ascontiguousarray(np.where(np.isnan(vectors), math.nan, vectors) + 0.0)  # one NaN, one zero
    first: dict[bytes, int] = {}
    for number, row in enumerate(canonical):
        first.setdefault(row.tobytes(), number)
    return np.fromiter(first.values(), dtype=np.intp)


def survivors(points: Reals, count: int) -> Indices:
    """The best points by front, then by crowding."""
    if not len(points):
        return np.arange(0)
    front = ranks(points, count)
    return np.lexsort((-crowding(points, front), front))[:count]


def evolve(
    seeds: Reals,
    score: Score,
    mutate: Callable[[np.random.Generator, Reals], Reals],
    cross: Callable[[np.random.Generator, Reals, Reals], Reals],
    generator: np.random.Generator,
    *,
    population: int,
    offspring: int,
    generations: int,
) -> tuple[Reals, Reals]:
    """Vectors and objectives of the last generation, the best first. Deterministic in its generator.

    Args:
        seeds: the first generation; any number.
        mutate, cross: variations that give legal vectors.
        population, offspring: how many survive a generation and how many are born in it.
    """
    vectors = seeds[distinct(seeds)]
    points = score(vectors)
    vectors, points = _select(vectors, points, population)
    for _ in range(generations):
        if not len(vectors):
            break
        first, second = (_tournament(generator, len(vectors), offspring) for _ in range(2))
        children = vectors[first]
        mixed = generator.random(offspring) < 0.5
        if mixed.any():
            children[mixed] = cross(generator, vectors[first[mixed]], vectors[second[mixed]])
        changed = ~mixed | (generator.random(offspring) < 0.5)
        children[changed] = mutate(generator, children[changed])
        together = np.concatenate([vectors, children])
        new = distinct(together)
        new = new[new >= len(vectors)]
        if len(new):
            points = np.concatenate([points, score(together[new])])
            vectors, points = _select(np.concatenate([vectors, together[new]]), points, population)
    return vectors, points


def _select(vectors: Reals, points: Reals, population: int) -> tuple[Reals, Reals]:
    legal = np.isfinite(points).all(axis=1)
    vectors, points = vectors[legal], points[legal]
    best = survivors(points, population)
    return vectors[best], points[best]


def _tournament(generator: np.random.Generator, size: int, count: int) -> Indices:
    """Of two at random the better; they are sorted."""
    found: Indices = generator.integers(size, size=(2, count)).min(axis=0)
    return found
