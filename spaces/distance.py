"""How far apart members are: the number of decisions in which they differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spaces.candidate import Candidate
from spaces.choices import Alternative, Node, Product, Rounds
from spaces.encoding import encode
from spaces.ranges import Range
from spaces.space import Space
from spaces.tables import Vectors


class _Rounds(NamedTuple):
    """The slots of one round, and where the repeat that it belongs to is reached: a column that has a value."""

    start: int
    end: int
    given: tuple[int, float] | None


class Distance:
    """Distances between members of one space.

    Every decision in which two members differ counts 1. Under an option that both took, the decisions count together
    at most as much as the option: 1 / n each where there are at most n. Under options that differ nothing is counted,
    the option is. Rounds are compared one by one, and a round that only one of the two has counts as much as all
    decisions of its body. This is a metric: 0 only for equal vectors, symmetric, and with the triangle inequality.

    Attributes:
        greatest: no distance is larger.
    """

    def __init__(self, space: Space) -> None:
        self.size = len(space.slots)
        self._rounds: list[_Rounds] = []
        self._weights = np.zeros(self.size)
        self._extra: list[float] = []
        for part in space.dims.product.parts:
            self._visit(part.node, part.offset, 1.0, None)
        self._visit(space.legality.root, space.dims.product.size, 1.0, None)
        self.greatest = float(total(space.dims.product) + total(space.legality.root))

    def between(self, a: Candidate, b: Candidate) -> float:
        """The distance of two candidates."""
        return float(self.pairs(encode(a)[None], encode(b)[None])[0, 0])

    def pairs(self, a: Vectors, b: Vectors) -> Vectors:
        """Distances ``[m, n]`` between vectors ``[m, slots]`` and ``[n, slots]``."""
        weights = np.concatenate([self._weights, self._extra])
        result = np.zeros((len(a), len(b)))
        for weight, mine, theirs in zip(weights, self._columns(a), self._columns(b), strict=True):
            unlike = mine[:, None] != theirs[None]
            unlike &= ~np.isnan(mine)[:, None]
            unlike &= ~np.isnan(theirs)[None]
            result += weight * unlike
        return result

    def _columns(self, vectors: Vectors) -> list[Vectors]:
        """The columns of the slots, and for each round whether there is one; NaN where nothing is to be compared."""
        columns = list(np.asarray(vectors, dtype=np.float64).T)
        for start, end, given in self._rounds:
            there = (~np.isnan(vectors[:, start:end])).any(axis=1).astype(np.float64)
            columns.append(there if given is None else np.where(columns[given[0]] == given[1], there, np.nan))
        return columns

    def _visit(self, node: Node, at: int, weight: float, given: tuple[int, float] | None) -> None:
        if isinstance(node, Range):
            self._weights[at] = weight
        elif isinstance(node, Alternative):
            self._weights[at] = weight
            for number, option in enumerate(node.options):
                if option.size:
                    self._visit(option, at + node.offsets[number], weight / total(option), (at, number))
        elif isinstance(node, Product):
            for part in node.parts:
                self._visit(part.node, at + part.offset, weight, given)
        elif isinstance(node, Rounds):
            for turn in range(node.most):
                start = at + turn * node.body.size
                self._rounds.append(_Rounds(start, start + node.body.size, given))
                self._extra.append(weight * total(node.body))
                self._visit(node.body, start, weight, (self.size + len(self._rounds) - 1, 1.0))


def total(node: Node) -> int:
    """The most decisions at one level that a node can have."""
    if isinstance(node, (Range, Alternative)):
        return 1
    if isinstance(node, Product):
        return sum(total(part.node) for part in node.parts)
    return node.most * total(node.body) if isinstance(node, Rounds) else 0
