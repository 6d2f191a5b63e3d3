"""Many members drawn at once, as vectors; the same draws as `spaces.sampling`, over columns of NumPy.

A place in the result is a slot and a row. Since the slots of a round's body stand at the same distance in every round,
the rounds of all rows are filled together: a *position* is a row, moved by its round's slots.
"""

from __future__ import annotations

import math
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spaces.choices import Alternative, Node, Product, Rounds
from spaces.legality import Legality
from spaces.members import Numbers
from spaces.ranges import Range
from spaces.sampling import Sampler, Unlucky

Vectors = NDArray[np.float64]
Indices = NDArray[np.intp]

CHUNK = 4096  # rows drawn at once, so that what is filled stays in cache


class Table(NamedTuple):
    """The legal rows of tied parts: the slots that they fill, a column of codes for each, the number of rounds."""

    columns: tuple[tuple[int, Vectors], ...]
    times: Indices


class VectorSampler:
    """Draws vectors of one space."""

    def __init__(self, legality: Legality, sampler: Sampler) -> None:
        self.legality, self.sampler = legality, sampler
        self.dims, self.root = legality.dims, legality.root
        self._tables: dict[tuple[object, ...], Table] = {}
        self._grids: dict[int, Vectors] = {}
        self._members = legality.members_of_dims
        self._listed = self._members is not None and self._tabulated(self.root)

    def draw(self, generator: np.random.Generator, count: int) -> Vectors:
        """Vectors ``[count, slots]``, their columns contiguous; NaN for choices that are not reached.

        Errors:
            Unlucky: no member was met.
        """
        result = np.empty((self.sampler.size, count))
        for start in range(0, count, CHUNK):
            rows = min(CHUNK, count - start)
            out = np.full((self.sampler.size, rows), math.nan)
            if self._listed:
                _Chunk(self, generator, out).draw()
            else:
                random = Random(int(generator.integers(2**63)))
                for row in range(rows):
                    out[:, row] = [math.nan if code is None else code for code in self.sampler.draw(random)]
            result[:, start : start + rows] = out
        return result.T

    def _tabulated(self, node: Node) -> bool:
        if isinstance(node, Product):
            inner = [part.node for part in node.parts]
            return (not node.ties or self.legality.tabulated(node)) and all(map(self._tabulated, inner))
        if isinstance(node, Alternative):
            return all(map(self._tabulated, node.options))
        return self._tabulated(node.body) if isinstance(node, Rounds) else True

    def table(self, node: Product, dims: Numbers) -> Table:
        key = (id(node), *(dims.get(name) for name in node.binding))
        known = self._tables.get(key)
        if known is None:
            rows = self.legality.rows(node, dims)
            cells = [dict(row.cells) for row in rows]
            columns = tuple(
                (slot, np.array([math.nan if row.get(slot) is None else row[slot] for row in cells], dtype=np.float64))
                for slot in sorted(set().union(*cells))
            )
            known = self._tables[key] = Table(columns, np.array([row.times for row in rows], dtype=np.intp))
        return known

    def numbers(self, node: Range, generator: np.random.Generator, count: int) -> Vectors:
        """Drawn numbers of a range."""
        drawn: Vectors
        if node.log:
            low, high = (node.low - 0.5, node.high + 0.5) if node.whole else (node.low, node.high)
            drawn = low * (high / low) ** generator.random(count)
            drawn = np.rint(drawn) if node.whole else drawn
        elif node.count is None:
            drawn = generator.uniform(node.low, node.high, count)
        elif node.whole:
            drawn = np.asarray(node.low + generator.integers(node.count, size=count) * float(node.step or 1))
        else:
            if id(node) not in self._grids:
                self._grids[id(node)] = np.array(list(node.numbers()))
            drawn = self._grids[id(node)][integers(generator, node.count, count)]
        if node.count is not None and not node.log:
            return drawn
        return np.asarray(np.clip(drawn, float(node.low), float(node.high)), dtype=np.float64)


class _Chunk:
    """Fills ``out``, which is ``[slots, rows]``."""

    def __init__(self, sampler: VectorSampler, generator: np.random.Generator, out: Vectors) -> None:
        self.sampler, self.generator, self.rows = sampler, generator, out.shape[1]
        self.legality, self.out, self.flat = sampler.legality, out, out.reshape(-1)
        self.groups: list[Numbers] = []

    def draw(self) -> None:
        dims, start, members = self.sampler.dims, self.sampler.sampler.start, self.legality.members_of_dims
        if not members:
            raise Unlucky
        rows = np.arange(self.rows)
        self.groups = [numbers for _, numbers in members]
        group = integers(self.generator, len(members), self.rows)
        deciding = {part.key for part in dims.read_by(self.sampler.root.reads)}
        if deciding:
            table = np.array([[math.nan if code is None else code for code in codes] for codes, _ in members])
            self.out[:start] = table.T[:, group]
        for part in dims.order:
            if part.key not in deciding:
                self.fill(part.node, part.offset, rows, group, None)
        self.fill(self.sampler.root, start, rows, group, None)

    def fill(self, node: Node, at: int, places: Indices, group: Indices, dims: Numbers | None) -> None:
        """Fills the slots of a node at some positions.

        Args:
            group: which combination of dims each position has.
            dims: the combination that all of them have; None while unlike ones are together.
        """
        if not node.size or not len(places):
            return
        if isinstance(node, Range):
            self.flat[places + at * self.rows] = self.sampler.numbers(node, self.generator, len(places))
            return
        own = node.reads if isinstance(node, Alternative) else node.binding if isinstance(node, Product) else ()
        if dims is None and own:
            for number, numbers in enumerate(self.groups):
                mine = np.flatnonzero(group == number)
                self.fill(node, at, places[mine], group[mine], numbers)
        elif isinstance(node, Alternative):
            self.alternative(node, at, places, group, dims)
        else:
            assert isinstance(node, Product)
            self.product(node, at, places, group, dims)

    def alternative(self, node: Alternative, at: int, places: Indices, group: Indices, dims: Numbers | None) -> None:
        legal = np.array(self.legality.options(node, dims or {}), dtype=np.intp)
        chosen = integers(self.generator, len(legal), len(places))
        if len(legal) < len(node.options):
            chosen = legal[chosen]
        self.flat[places + at * self.rows] = chosen
        for number in legal:
            if node.options[number].size:
                mine = np.flatnonzero(chosen == number)
                self.fill(node.options[number], at + node.offsets[number], places[mine], group[mine], dims)

    def product(self, node: Product, at: int, places: Indices, group: Indices, dims: Numbers | None) -> None:
        for part in node.free:
            self.fill(part.node, at + part.offset, places, group, dims)
        if not node.ties:
            return
        table = self.sampler.table(node, dims or {})
        picked = integers(self.generator, len(table.times), len(places))
        for slot, column in table.columns:
            self.flat[places + (at + slot) * self.rows] = column[picked]
        if node.rounds is not None:
            inner = node.rounds.node
            assert isinstance(inner, Rounds)
            times = table.times[picked]
            turns = [np.flatnonzero(times > turn) for turn in range(inner.most)]
            stride = inner.body.size * self.rows
            moved = np.concatenate([places[mine] + turn * stride for turn, mine in enumerate(turns)])
            self.fill(inner.body, at + node.rounds.offset, moved, group[np.concatenate(turns)], dims)


def integers(generator: np.random.Generator, below: int, count: int) -> Indices:
    """``count`` whole numbers from 0 to ``below - 1``."""
    if below == 1:
        return np.zeros(count, dtype=np.intp)
    return generator.integers(below, size=count, dtype=np.int32 if below < 2**31 else np.int64)
