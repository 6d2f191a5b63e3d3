"""Mutation and crossover of encoded candidates.

What comes out are members: they keep all constraints between choices that are checked without elaborating, as draws do.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spaces.inheriting import Children
from spaces.space import Space
from spaces.tables import Vectors
from spaces.vectors import CHUNK

AGAIN = 8  # times that a child which came out like its parent is made again


class Variation:
    """Varies vectors of one space, as `spaces.encoding.encode` gives them."""

    def __init__(self, space: Space) -> None:
        self.space, self.sampler = space, space.vectors

    def mutate(self, generator: np.random.Generator, vectors: Vectors, rate: float | None = None) -> Vectors:
        """Members that differ from the given ones in some choices, ``[count, slots]``.

        A number, and an option among three or more numbers, moves to a near value more often than to a far one; below
        an option that changed all is drawn anew. Rounds of a repeat in which every round chooses for itself are also
        moved and swapped; where their number changes, random ones are left out, copied or drawn anew. Choices that are
        tied by a constraint change together, to the nearest that keep it more often than to others. A child that came
        out like its parent is made again a few times.

        Args:
            vectors: members ``[count, slots]``.
            rate: how often a choice changes, 0 to 1; by default once in as many as the member has.
        """
        vectors = np.asarray(vectors, dtype=np.float64)
        reached = np.count_nonzero(~np.isnan(vectors), axis=1)
        rates = 1 / np.maximum(reached, 1) if rate is None else np.full(len(vectors), float(rate))
        result = self._children(generator, vectors[None], rates)
        same = np.flatnonzero(~_differ(result, vectors) & (rates > 0))
        if len(same):  # all that are made again are made at once, and the first that differs is taken
            parents = np.repeat(same, AGAIN)
            again = self._children(generator, vectors[None, parents], rates[parents])
            first = _differ(again, vectors[parents]).reshape(-1, AGAIN).argmax(axis=1)
            result[same] = again[np.arange(len(same)) * AGAIN + first]
        return result

    def cross(self, generator: np.random.Generator, a: Vectors, b: Vectors) -> Vectors:
        """Members made of parts of two others, row by row, ``[count, slots]``.

        Where both parents took the same option either gives what lies below it, as a whole or mixed; where they did
        not, one gives the option with all that lies below. Of rounds a stretch comes from the other parent. Choices
        that do not fit together move to the nearest that do.

        Args:
            a, b: members ``[count, slots]``.
        """
        pair = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)])
        return self._children(generator, pair, np.zeros(pair.shape[1]))

    def _children(self, generator: np.random.Generator, parents: Vectors, rate: Vectors) -> Vectors:
        count, size = parents.shape[1:]
        assert size == len(self.space.slots)
        result = np.empty((size, count))
        for start in range(0, count, CHUNK):
            chosen = slice(start, min(start + CHUNK, count))
            out = np.full((size, chosen.stop - start), math.nan)
            given = parents[:, chosen].transpose(0, 2, 1)
            children = Children(self.sampler, generator, out, given, rate[chosen])
            children.breed()
            result[:, chosen] = np.where(children.failed, given[0], out)
        return result.T


def _differ(children: Vectors, parents: Vectors) -> NDArray[np.bool_]:
    """Which children are not like their parents; a choice that only the child has comes with one that changed."""
    same: NDArray[np.bool_] = ((children == parents) | np.isnan(parents)).all(axis=1)
    return ~same
