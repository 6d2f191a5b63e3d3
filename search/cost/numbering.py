"""The assignments of a node of a space as numbers without large gaps: of options that exclude each other, sums.

A *digit* is one more than the position of what is chosen at a slot, 0 where the choice is not reached. A number is a
sum over slots: of the digit times a factor, or of what a table says for the digit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spaces.choices import Alternative, Constant, Node, Product, Rounds
from spaces.ranges import Range

Whole = NDArray[np.int64]
Term = tuple[int, int | Whole]  # a slot, and what its digit is multiplied by, or a number for each digit


class Numbering:
    """Numbers from 0 to ``size`` - 1."""

    def __init__(self) -> None:
        self.terms: list[Term] = []
        self.size = 1

    def slots(self, slots: Sequence[int], sizes: Sequence[int]) -> Numbering:
        """With all combinations of the digits of some slots."""
        for slot in slots:
            self.terms.append((slot, self.size))
            self.size *= sizes[slot]
        return self

    def node(self, node: Node, at: int, sizes: Sequence[int]) -> Numbering:
        """With all assignments of a node whose slots begin at ``at``."""
        if isinstance(node, Range):
            return self.slots([at], sizes)
        if isinstance(node, Product):
            for part in node.parts:
                self.node(part.node, at + part.offset, sizes)
        elif isinstance(node, Rounds):
            for turn in range(node.most):
                self.node(node.body, at + turn * node.body.size, sizes)
        elif isinstance(node, Alternative):
            if node.size == 1:
                return self.slots([at], sizes)
            bases, count = [0], 1
            for option, offset in zip(node.options, node.offsets, strict=True):
                inner = Numbering()
                inner.size = self.size
                inner.node(option, at + offset, sizes)
                self.terms += inner.terms  # of the other options, all digits are 0
                bases.append(count)
                count += inner.size // self.size
            self.terms.append((at, np.array(bases, dtype=np.int64) * self.size))
            self.size *= count
        else:
            assert isinstance(node, Constant)
        return self

    def add(self, total: Whole, digits: Whole, moved: int = 0, times: int = 1) -> None:
        """Adds the numbers of some candidates, so many times; their digits are ``[slots, candidates]``.

        Args:
            moved: so many slots further.
        """
        for slot, factor in self.terms:
            digit = digits[slot + moved]
            total += (times * factor)[digit] if isinstance(factor, np.ndarray) else digit * (times * factor)
