"""Legal rows of tied choices as columns: looked up, and drawn near to a given row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spaces.choices import Alternative, Code, Constant, Slot
from spaces.ranges import Range

Vectors = NDArray[np.float64]
Indices = NDArray[np.intp]

TRIED = 128  # rows among which a near one is looked for


class Table:
    """The legal rows of tied choices.

    Attributes:
        places: the slots that rows fill.
        cells: codes ``[rows, places]``, NaN for choices that are not reached.
        times: the number of rounds that each row gives.
    """

    def __init__(self, places: Sequence[int], cells: Vectors, times: Indices, slots: Sequence[Slot]) -> None:
        self.places, self.cells, self.times = tuple(places), cells, times
        self.columns = [np.ascontiguousarray(column) for column in cells.T]
        self._scales = [scale(slots[place].node) for place in places]

    @cached_property
    def _trie(self) -> list[tuple[Vectors, Indices]]:
        """For each column its values and, sorted, the prefixes that rows have up to it."""
        prefix = np.zeros(len(self.cells), dtype=np.intp)
        levels = []
        for column in self.columns:
            values, ranks = np.unique(column, return_inverse=True)
            known, prefix = np.unique(prefix * len(values) + ranks, return_inverse=True)
            levels.append((values, known))
        self._last = np.zeros(max(1, len(levels[-1][1]) if levels else 1), dtype=np.intp)
        self._last[prefix] = np.arange(len(self.cells))
        return levels

    def lookup(self, cells: Vectors) -> Indices:
        """Which row equals each of ``cells`` ``[count, places]``; -1 for none."""
        found = np.zeros(len(cells), dtype=np.intp)
        known = np.full(len(cells), len(self.cells) > 0)
        for (values, prefixes), column in zip(self._trie, cells.T, strict=True):
            rank = np.minimum(np.searchsorted(values, column), len(values) - 1)
            known &= (values[rank] == column) | (np.isnan(values[rank]) & np.isnan(column))
            prefix = found * len(values) + rank
            found = np.minimum(np.searchsorted(prefixes, prefix), len(prefixes) - 1)
            known &= prefixes[found] == prefix
        return np.where(known, self._last[found], -1)

    @cached_property
    def _ranked(self) -> list[tuple[Vectors | None, Vectors, Vectors]]:
        """For each column whose values have an order: values of codes, all of them sorted, and the ranks of rows."""
        ranked: list[tuple[Vectors | None, Vectors, Vectors]] = []
        for column, labels in zip(self.columns, self._scales, strict=True):
            if labels is None:
                ranked.append((None, column, column))
            else:
                values = _valued(labels, column)
                ordered = np.unique(values[~np.isnan(values)])
                ranked.append((labels, ordered, np.searchsorted(ordered, values).astype(np.float64)))
        return ranked

    def near(self, generator: np.random.Generator, cells: Vectors, own: Indices, odds: Vectors) -> Indices:
        """Rows drawn near to ``cells`` ``[count, places]``, never the row ``own`` unless there is no other.

        A row's weight is multiplied by ``odds`` for each choice in which it differs, and divided by the number of
        steps between the two where values have an order. Choices that only one of the two reaches come along for
        nothing. Of large tables only some rows are tried.
        """
        count, rows = len(cells), len(self.cells)
        if rows == 1:
            return np.zeros(count, dtype=np.intp)
        tried: Indices
        if rows <= TRIED:
            tried = np.broadcast_to(np.arange(rows), (count, rows))
        else:
            tried = generator.integers(rows, size=(count, TRIED))
        weights = np.ones(tried.shape)
        for column, mine, (labels, ordered, ranks) in zip(self.columns, cells.T, self._ranked, strict=True):
            theirs = column[tried]
            unlike = (theirs != mine[:, None]) & ~np.isnan(theirs) & ~np.isnan(mine)[:, None]
            factor = np.broadcast_to(odds[:, None], tried.shape)
            if labels is not None:
                rank = np.searchsorted(ordered, _valued(labels, mine))
                factor = factor / np.maximum(np.abs(ranks[tried] - rank[:, None]), 1)
            weights *= np.where(unlike, factor, 1)
        weights[tried == own[:, None]] = 0
        sums = np.cumsum(weights, axis=1)
        picked = (sums <= (generator.random(count) * sums[:, -1])[:, None]).sum(axis=1)
        chosen = tried[np.arange(count), np.minimum(picked, tried.shape[1] - 1)]
        return np.where(sums[:, -1] > 0, chosen, own)


def cells_of(rows: Sequence[Sequence[tuple[int, Code]]]) -> tuple[tuple[int, ...], Vectors]:
    """The places that rows fill, and their codes ``[rows, places]``."""
    places = tuple(sorted({place for row in rows for place, code in row if code is not None}))
    position = {place: number for number, place in enumerate(places)}
    cells = np.full((len(rows), len(places)), math.nan)
    for number, row in enumerate(rows):
        for place, code in row:
            if code is not None:
                cells[number, position[place]] = code
    return places, cells


def code(slot: Slot, entry: float) -> Code:
    """The code that an entry of a vector stands for."""
    if math.isnan(entry):
        return None
    return slot.node.nearest(entry) if isinstance(slot.node, Range) else int(entry)


def scale(node: Range | Alternative) -> Vectors | None:
    """The numbers that codes stand for, empty if codes are themselves the numbers; None if options have no order."""
    if isinstance(node, Range):
        return np.empty(0)
    values = [option.value if isinstance(option, Constant) else None for option in node.options]
    if len(values) < 3 or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return None  # two options are neighbours anyway
    return np.array(values, dtype=np.float64)


def _valued(labels: Vectors, codes: Vectors) -> Vectors:
    if not len(labels):
        return codes
    return np.where(np.isnan(codes), math.nan, labels[np.nan_to_num(codes).astype(np.intp)])
