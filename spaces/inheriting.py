"""Children of members: vectors that take what they can from one or two parents, over columns of NumPy.

The tree of choices is gone through as in `spaces.vectors`, but every position also knows where in its parents the same
part stands. A part that no parent has is drawn anew; one that is not legal beside what was chosen before it is replaced
by a near one that is.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spaces import steps
from spaces.arranging import arranged
from spaces.choices import Alternative, Code, Node, Product, Rounds, slots_of
from spaces.members import rounds
from spaces.ranges import Range
from spaces.sampling import Unlucky
from spaces.tables import Indices, Table, Vectors, code, scale
from spaces.vectors import Chunk, VectorSampler

ATTEMPTS = 40  # at choices that are tied and too many to tabulate
FAITHFUL = 10  # of these, as rarely changed as asked for; later ones more and more

Mask = NDArray[np.bool_]


class Children(Chunk):
    """Fills ``out`` ``[slots, rows]`` from parents.

    Args:
        parents: ``[parents, slots, rows]``, one or two.
        rate: for each row how often a choice is changed, 0 to 1.

    Attributes:
        failed: rows for which no legal child was met; what they hold is no member.
    """

    def __init__(
        self, sampler: VectorSampler, generator: np.random.Generator, out: Vectors, parents: Vectors, rate: Vectors
    ) -> None:
        super().__init__(sampler, generator, out)
        self.two = len(parents) == 2
        # One array for both, in which the same slot of the second parent stands `rows` further.
        self.width = self.rows * len(parents)
        self.old = np.concatenate(list(parents), axis=1).reshape(-1)
        self.rate = rate
        self.failed = np.zeros(self.rows, dtype=np.bool_)

    def breed(self) -> None:
        rows = np.arange(self.rows)
        none = np.full(self.rows, -1)
        second = rows + self.rows if self.two else none
        dims, start, members = self.sampler.dims, self.sampler.sampler.start, self.sampler.members
        if members is None:
            group = self.tried_dims(rows, second)
        else:
            self.groups = self.sampler.groups
            group = self.row(members, 0, *self.led(rows, second), self.rate)
            self.write(members, group, 0, rows)
            for part in dims.order:
                if part.key not in self.sampler.deciding:
                    self.inherit(part.node, part.offset, rows, *self.led(rows, second), group)
        self.inherit(self.sampler.root, start, rows, rows, second, group)

    def led(self, first: Indices, second: Indices) -> tuple[Indices, Indices]:
        """Parents in which either may lead, and either may be all that counts for what lies below."""
        if not self.two:
            return first, second
        swap = (self.generator.random(len(first)) < 0.5) & (second >= 0)
        only = self.generator.random(len(first)) < 0.5
        return np.where(swap, second, first), np.where(only, -1, np.where(swap, first, second))

    def inherit(self, node: Node, at: int, places: Indices, first: Indices, second: Indices, group: Indices) -> None:
        """Fills the slots of a node at some positions.

        Args:
            first, second: where the same part begins in the parents that have it; -1 for none. The first leads.
        """
        if not node.size or not len(places):
            return
        orphans = first < 0
        if orphans.any():
            first, second = np.where(orphans, second, first), np.where(orphans, -1, second)
            orphans = first < 0
            self.fill(node, at, places[orphans], group[orphans])
            kept = np.flatnonzero(~orphans)
            places, first, second, group = places[kept], first[kept], second[kept], group[kept]
            if not len(kept):
                return
        if isinstance(node, Range):
            self.range(node, at, places, first)
        elif isinstance(node, Alternative):
            self.option(node, at, places, first, second, group)
        else:
            assert isinstance(node, Product)
            self.parts(node, at, places, first, second, group)

    def mutated(self, places: Indices) -> Mask:
        return np.asarray(self.generator.random(len(places)) < self.rate[places % self.rows])

    def range(self, node: Range, at: int, places: Indices, first: Indices) -> None:
        codes = self.old[first + at * self.width]
        changed = np.flatnonzero(self.mutated(places))
        if len(changed):
            codes[changed] = steps.of_range(self.generator, node, codes[changed])
        self.flat[places + at * self.rows] = codes

    def option(
        self, node: Alternative, at: int, places: Indices, first: Indices, second: Indices, group: Indices
    ) -> None:
        chosen = np.empty(len(places), dtype=np.intp)
        mine = self.old[first + at * self.width].astype(np.intp)
        other = np.where(second >= 0, self.old[second + at * self.width], mine).astype(np.intp)
        order = scale(node)
        for piece, dims in self.pieces(node.reads, group):
            legal = np.array(self.legality.options(node, dims), dtype=np.intp)
            allowed = np.zeros(len(node.options), dtype=np.bool_)
            allowed[legal] = True
            own = np.where(allowed[mine[piece]], mine[piece], other[piece])
            change = self.mutated(places[piece]) | ~allowed[own]
            if change.any():
                own[change] = steps.of_options(self.generator, legal, own[change], order)
            chosen[piece] = own
        self.flat[places + at * self.rows] = chosen
        first, second = np.where(chosen == mine, first, -1), np.where(chosen == other, second, -1)
        for number, option in enumerate(node.options):
            if option.size:
                taken = np.flatnonzero(chosen == number)
                self.inherit(
                    option, at + node.offsets[number], places[taken], first[taken], second[taken], group[taken]
                )

    def parts(self, node: Product, at: int, places: Indices, first: Indices, second: Indices, group: Indices) -> None:
        if node.ties:
            if self.legality.tabulated(node):
                times = np.empty(len(places), dtype=np.intp)
                for piece, dims in self.pieces(node.binding, group):
                    table, rate = self.sampler.table(node, dims), self.rate[places[piece] % self.rows]
                    picked = self.row(table, at, *self.led(first[piece], second[piece]), rate)
                    self.write(table, picked, at, places[piece])
                    times[piece] = table.times[picked]
            else:
                times = self.tried(node, at, places, first, second, group)
            if node.rounds is not None:
                self.bodies(node, at, places, first, second, group, times)
        for part in node.free:
            self.inherit(part.node, at + part.offset, places, *self.led(first, second), group)

    def row(self, table: Table, at: int, first: Indices, second: Indices, rate: Vectors) -> Indices:
        """Rows of a table that are those of the parents, or mixed of them, or near."""
        slots = (np.array(table.places, dtype=np.intp) + at) * self.width
        cells = self.old[first[:, None] + slots]
        if self.two:
            own, both = cells, np.flatnonzero(second >= 0)
            cells = own.copy()
            theirs = self.old[second[both][:, None] + slots]
            cells[both] = np.where(self.generator.random(theirs.shape) < 0.5, theirs, own[both])
            found = table.lookup(cells)
            for parent, whose in ((own, np.arange(len(first))), (theirs, both)):
                missing = found[whose] < 0
                found[whose[missing]] = table.lookup(parent[missing])
        else:
            found = table.lookup(cells)
        reached = np.count_nonzero(~np.isnan(cells), axis=1)
        change = np.flatnonzero((found < 0) | (self.generator.random(len(found)) >= (1 - rate) ** reached))
        if len(change):
            odds = np.clip(rate[change] / np.maximum(1 - rate[change], 1e-3), 1e-3, 1)
            found[change] = table.near(self.generator, cells[change], found[change], odds)
        return found

    def bodies(
        self, node: Product, at: int, places: Indices, first: Indices, second: Indices, group: Indices, times: Indices
    ) -> None:
        assert node.rounds is not None
        inner = node.rounds.node
        assert isinstance(inner, Rounds)
        at += node.rounds.offset
        had = self.had(inner, at, first)
        turns = arranged(self.generator, had, times, inner.most, self.rate[places % self.rows])
        moved, groups = [], []
        leading, following = [], []
        cut = np.sort(self.generator.random((2, len(places))), axis=0) * (times + 1) if self.two else None
        also = self.had(inner, at, second)
        for turn in range(inner.most):
            mine = np.flatnonzero(times > turn)
            moved.append(places[mine] + turn * inner.body.size * self.rows)
            groups.append(group[mine])
            source = turns[mine, turn]
            lead = np.where(source >= 0, first[mine] + source * inner.body.size * self.width, -1)
            follow = np.where(also[mine] > turn, second[mine] + turn * inner.body.size * self.width, -1)
            if cut is not None:  # a stretch of rounds comes from the other parent, mixed or whole
                swap = (cut[0, mine] <= turn) & (turn < cut[1, mine]) & (follow >= 0)
                only = (self.generator.random(len(mine)) < 0.5) & ((lead >= 0) | swap)
                lead, follow = np.where(swap, follow, lead), np.where(only, -1, np.where(swap, lead, follow))
            leading.append(lead)
            following.append(follow)
        if moved:
            self.inherit(inner.body, at, *map(np.concatenate, (moved, leading, following, groups)))

    def had(self, node: Rounds, at: int, source: Indices) -> Indices:
        """How many rounds a parent has."""
        count = np.zeros(len(source), dtype=np.intp)
        if not (source >= 0).any():
            return count
        for slot in range(node.size):
            reached = ~np.isnan(self.old[source + (at + slot) * self.width]) & (source >= 0)
            count[reached] = slot // node.body.size + 1
        return count

    def one_by_one(self, node: Product, at: int, places: Indices, group: Indices) -> None:
        for number in range(len(places)):
            try:
                super().one_by_one(node, at, places[number : number + 1], group[number : number + 1])
            except Unlucky:
                self.failed[places[number] % self.rows] = True

    # --- what is not tabulated --------------------------------------------------------------------------------------

    def tried_dims(self, rows: Indices, second: Indices) -> Indices:
        """Fills the dims, and tells the group of each row; rows with no legal child keep those of a parent."""
        dims, sampler, rate = self.sampler.dims, self.sampler.sampler, self.rate
        slots = slots_of(dims.product)
        group = np.zeros(self.rows, dtype=np.intp)
        known: dict[tuple[Code, ...], int] = {}
        pending = rows
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            self.rate = np.zeros(self.rows) if last else rate
            self.out[: sampler.start, pending] = math.nan
            for part in dims.order:
                lead, follow = self.led(pending, second[pending])
                if last:
                    lead, follow = pending, np.full(len(pending), -1)
                self.inherit(part.node, part.offset, pending, lead, follow, group[pending])
            broken = []
            for row in pending.tolist():
                codes = tuple(map(code, slots, self.out[: sampler.start, row].tolist()))
                if codes not in known:
                    numbers = sampler.numbers(codes)
                    known[codes] = len(self.groups) if self.legality.possible(self.sampler.root, numbers) else -1
                    self.groups += [numbers] * (known[codes] >= 0)
                group[row] = known[codes]
                if known[codes] < 0:
                    broken.append(row)
            pending = np.array(broken, dtype=np.intp)
            if not broken:
                break
        self.rate = rate
        self._keys.clear()
        self.failed[pending] = True
        return group

    def tried(
        self, node: Product, at: int, places: Indices, first: Indices, second: Indices, group: Indices
    ) -> Indices:
        """Fills tied parts until their constraints hold; the number of rounds."""
        rate, times = self.rate, np.zeros(len(places), dtype=np.intp)
        slots = self.sampler.slots(node)
        pending = np.arange(len(places))
        for attempt in range(ATTEMPTS):
            self.rate = np.minimum(rate * 1.3 ** max(0, attempt - FAITHFUL), 1)
            here = places[pending]
            for part in node.joint:
                for slot in range(at + part.offset, at + part.offset + part.node.size):
                    self.flat[here + slot * self.rows] = math.nan
                lead, follow = self.led(first[pending], second[pending])
                if attempt >= ATTEMPTS // 2:  # what the parents have does not fit the dims
                    lead = np.where(self.generator.random(len(lead)) < 0.5, -1, lead)
                    follow = np.full_like(follow, -1)
                self.inherit(part.node, at + part.offset, here, lead, follow, group[pending])
            broken = []
            for number in pending.tolist():
                entries = self.flat[places[number] + np.arange(at, at + node.size) * self.rows].tolist()
                codes = list(map(code, slots, entries))
                numbers = self.groups[group[number]]
                if self.legality.broken(node, codes, 0, numbers) is not None:
                    broken.append(number)
                elif node.rounds is not None:
                    times[number] = rounds(node, codes, 0, numbers)
            pending = np.array(broken, dtype=np.intp)
            if not broken:
                break
        self.rate = rate
        self.failed[places[pending] % self.rows] = True
        return times
