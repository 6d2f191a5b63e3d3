"""Many members drawn at once, as vectors; the same draws as `spaces.sampling`, over columns of NumPy.

A place in the result is a slot and a row. Since the slots of a round's body stand at the same distance in every round,
the rounds of all rows are filled together: a *position* is a row, moved by its round's slots.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from random import Random

import numpy as np

from spaces.choices import Alternative, Code, Node, Product, Rounds, Slot, slots_of
from spaces.legality import Legality
from spaces.members import Numbers
from spaces.ranges import Range
from spaces.sampling import Fill, Sampler, Unlucky
from spaces.tables import Indices, Table, Vectors, cells_of

CHUNK = 4096  # rows drawn at once, so that what is filled stays in cache


class VectorSampler:
    """Draws vectors of one space."""

    def __init__(self, legality: Legality, sampler: Sampler) -> None:
        self.legality, self.sampler = legality, sampler
        self.dims, self.root = legality.dims, legality.root
        self._tables: dict[tuple[object, ...], Table] = {}
        self._inner: dict[int, tuple[Slot, ...]] = {}
        self._fills: dict[int, Fill] = {}
        self._grids: dict[int, Vectors] = {}
        self._members = legality.members_of_dims
        self.deciding = {part.key for part in self.dims.read_by(self.root.reads)}
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
                Chunk(self, generator, out).draw()
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
            places, cells = cells_of([row.cells for row in rows])
            times = np.array([row.times for row in rows], dtype=np.intp)
            known = self._tables[key] = Table(places, cells, times, self.slots(node))
        return known

    def slots(self, node: Product) -> tuple[Slot, ...]:
        """The slots of a product, by their distance from its first."""
        if id(node) not in self._inner:
            self._inner[id(node)] = slots_of(node)
        return self._inner[id(node)]

    @cached_property
    def members(self) -> Table | None:
        """The legal combinations of the dims that decide what is legal, None where they are too many."""
        if self._members is None:
            return None
        places, cells = cells_of([list(enumerate(codes)) for codes, _ in self._members])
        return Table(places, cells, np.zeros(len(cells), dtype=np.intp), slots_of(self.dims.product))

    @property
    def groups(self) -> list[Numbers]:
        """The numbers of each row of `members`."""
        return [numbers for _, numbers in self._members or ()]

    def fill(self, node: Product) -> Fill:
        """What draws a product one by one."""
        if id(node) not in self._fills:
            self._fills[id(node)] = self.sampler.compiled(node)
        return self._fills[id(node)]

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


class Chunk:
    """Fills ``out``, which is ``[slots, rows]``.

    Attributes:
        groups: combinations of dims; every position has the number of one of them, its *group*.
    """

    def __init__(self, sampler: VectorSampler, generator: np.random.Generator, out: Vectors) -> None:
        self.sampler, self.generator, self.rows = sampler, generator, out.shape[1]
        self.legality, self.out, self.flat = sampler.legality, out, out.reshape(-1)
        self.groups: list[Numbers] = []
        self._keys: dict[tuple[str, ...], tuple[Indices, list[Numbers]]] = {}

    def draw(self) -> None:
        dims, start, members = self.sampler.dims, self.sampler.sampler.start, self.sampler.members
        assert members is not None
        self.groups = self.sampler.groups
        if not self.groups:
            raise Unlucky
        rows = np.arange(self.rows)
        group = integers(self.generator, len(self.groups), self.rows)
        for place, column in zip(members.places, members.columns, strict=True):
            self.out[place] = column[group]
        for part in dims.order:
            if part.key not in self.sampler.deciding:
                self.fill(part.node, part.offset, rows, group)
        self.fill(self.sampler.root, start, rows, group)

    def pieces(self, names: tuple[str, ...], group: Indices) -> Iterator[tuple[Indices, Numbers]]:
        """Positions with equal values of some dims, and the dims of one of them."""
        if not len(group):
            return
        if not names:
            yield np.arange(len(group)), {}
            return
        if names not in self._keys:
            known: dict[tuple[object, ...], int] = {}
            first: list[Numbers] = []
            ids = np.empty(len(self.groups), dtype=np.intp)
            for number, numbers in enumerate(self.groups):
                ids[number] = known.setdefault(tuple(numbers.get(name) for name in names), len(first))
                if ids[number] == len(first):
                    first.append(numbers)
            self._keys[names] = ids, first
        ids, first = self._keys[names]
        if len(first) == 1:
            yield np.arange(len(group)), first[0]
            return
        # NumPy sorts short integers by counting.
        mine = ids[group].astype(np.int16 if len(first) < 2**15 else np.intp)
        order = np.argsort(mine, kind="stable")
        ends = np.flatnonzero(np.diff(mine[order])) + 1
        for piece in np.split(order, ends):
            yield piece, first[mine[piece[0]]]

    def fill(self, node: Node, at: int, places: Indices, group: Indices) -> None:
        """Fills the slots of a node at some positions."""
        if not node.size or not len(places):
            return
        if isinstance(node, Range):
            self.flat[places + at * self.rows] = self.sampler.numbers(node, self.generator, len(places))
        elif isinstance(node, Alternative):
            self.alternative(node, at, places, group)
        else:
            assert isinstance(node, Product)
            self.product(node, at, places, group)

    def alternative(self, node: Alternative, at: int, places: Indices, group: Indices) -> None:
        chosen = np.empty(len(places), dtype=np.intp)
        for piece, dims in self.pieces(node.reads, group):
            legal = np.array(self.legality.options(node, dims), dtype=np.intp)
            chosen[piece] = legal[integers(self.generator, len(legal), len(piece))]
        self.flat[places + at * self.rows] = chosen
        for number, option in enumerate(node.options):
            if option.size:
                mine = np.flatnonzero(chosen == number)
                self.fill(option, at + node.offsets[number], places[mine], group[mine])

    def product(self, node: Product, at: int, places: Indices, group: Indices) -> None:
        if node.ties and not self.legality.tabulated(node):
            self.one_by_one(node, at, places, group)
            return
        for part in node.free:
            self.fill(part.node, at + part.offset, places, group)
        if not node.ties:
            return
        times = np.empty(len(places), dtype=np.intp)
        for piece, dims in self.pieces(node.binding, group):
            table = self.sampler.table(node, dims)
            picked = integers(self.generator, len(table.times), len(piece))
            self.write(table, picked, at, places[piece])
            times[piece] = table.times[picked]
        if node.rounds is not None:
            inner = node.rounds.node
            assert isinstance(inner, Rounds)
            turns = [np.flatnonzero(times > turn) for turn in range(inner.most)]
            stride = inner.body.size * self.rows
            moved = np.concatenate([places[mine] + turn * stride for turn, mine in enumerate(turns)])
            self.fill(inner.body, at + node.rounds.offset, moved, group[np.concatenate(turns)])

    def write(self, table: Table, picked: Indices, at: int, places: Indices) -> None:
        """Fills the slots of tied parts from rows of their table."""
        for slot, column in zip(table.places, table.columns, strict=True):
            self.flat[places + (at + slot) * self.rows] = column[picked]

    def one_by_one(self, node: Product, at: int, places: Indices, group: Indices) -> None:
        fill, random = self.sampler.fill(node), Random(int(self.generator.integers(2**63)))
        for place, number in zip(places.tolist(), group.tolist(), strict=True):
            codes: list[Code] = [None] * node.size
            fill(random, codes, 0, self.groups[number])
            self.flat[place + np.arange(at, at + node.size) * self.rows] = [
                math.nan if code is None else code for code in codes
            ]


def integers(generator: np.random.Generator, below: int, count: int) -> Indices:
    """``count`` whole numbers from 0 to ``below - 1``."""
    if below == 1:
        return np.zeros(count, dtype=np.intp)
    return generator.integers(below, size=count, dtype=np.int32 if below < 2**31 else np.int64)
