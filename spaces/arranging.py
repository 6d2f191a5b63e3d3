"""Which round of a parent becomes which round of its child."""

from __future__ import annotations

import numpy as np

from spaces.tables import Indices, Vectors


def arranged(generator: np.random.Generator, had: Indices, times: Indices, most: int, rate: Vectors) -> Indices:
    """For each round of a child the parent's round that it is made from, ``[count, most]``; -1 for one drawn anew.

    Fewer rounds: random ones are left out. More: they are put in at random places, half of them as copies of the round
    before, half anew. At the rate given a round is moved to another place, and two are swapped.

    Args:
        had: rounds of the parents ``[count]``; ``times``, those of the children.
        rate: ``[count]``; where it is 0, rounds are left out and added at the end only.
    """
    turns = np.arange(most)
    source = np.where(turns < had[:, None], turns, -1)
    changed = np.flatnonzero((times != had) & (had > 0) & (rate > 0))
    if len(changed):
        source[changed] = _resized(generator, had[changed], times[changed], most)
    for exchange in (_moved, _swapped):
        chosen = np.flatnonzero((generator.random(len(times)) < rate) & (times > 1))
        if len(chosen):
            ends = np.floor(generator.random((2, len(chosen))) * times[chosen]).astype(np.intp)
            source[chosen] = exchange(source[chosen], *ends)
    return source


def _resized(generator: np.random.Generator, had: Indices, times: Indices, most: int) -> Indices:
    turns = np.arange(most)
    longer, shorter = np.maximum(had, times), np.minimum(had, times)
    marks = generator.random((len(had), most))
    marks[turns >= longer[:, None]] = 2
    rank = np.argsort(np.argsort(marks, axis=1), axis=1)
    kept = rank < shorter[:, None]  # of the longer list, those rounds that both have
    place = np.cumsum(kept, axis=1) - 1
    fewer = np.argsort(~kept, axis=1, kind="stable")  # kept rounds first, in their order
    copied = generator.random(kept.shape) < 0.5
    more = np.where(kept | (copied & (place >= 0)), place, -1)
    result = np.where((times > had)[:, None], more, fewer)
    return np.where(turns < times[:, None], result, -1)


def _moved(source: Indices, start: Indices, end: Indices) -> Indices:
    keys = np.broadcast_to(np.arange(source.shape[1], dtype=np.float64), source.shape).copy()
    rows = np.arange(len(source))
    keys[rows, start] = end + np.where(end > start, 0.5, -0.5)
    return np.take_along_axis(source, np.argsort(keys, axis=1, kind="stable"), axis=1)


def _swapped(source: Indices, start: Indices, end: Indices) -> Indices:
    result, rows = source.copy(), np.arange(len(source))
    result[rows, start], result[rows, end] = source[rows, end], source[rows, start]
    return result
