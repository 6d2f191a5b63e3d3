"""Candidates of a space priced by looking up: hundreds of thousands in a second, exactly as `price` does.

For each unit of the space (`search.cost.layout`) a table maps the state that it is given and the choices that decide it
to a row of whole numbers (`search.cost.pieces`) and the state after it. Tables are filled when a combination is first
met; a batch of vectors is then look-ups, sums and maxima.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archspec.errors import Problem, SpecError
from archspec.spec import from_tree
from search.cost import devices
from search.cost.chain import Chain, Context, Link, chain_of, price_trees
from search.cost.layout import Codes, Layout, Unfactored, Unit
from search.cost.pieces import NoChainError, Piece
from search.cost.price import DTYPES, STATES, Cost
from spaces.encoding import decode
from spaces.ranges import Range
from spaces.space import Space

Vectors = NDArray[np.float64]
Whole = NDArray[np.int64]
Indices = NDArray[np.intp]

CHUNK = 4096  # candidates priced at once, so that their rows stay in cache
UNKNOWN, NOTHING, REFUSED = -1, 0, 1  # rows
SAME, START, DEAD = -1, 0, 1  # states: that before, the first, that of refused candidates
SUMS = ("parameters", "active", "stored", "resident", "forward", "step", "cache", "inputs", "targets", "kept")
PEAKS = ("inference_peak", "forward_peak", "backward_peak", "tied_peak", "table", "widest")
KEPT, TIED = SUMS.index("kept"), PEAKS.index("tied_peak")
Fill = Callable[[Codes, int, int], int]  # from codes, a state and a round's number to a row


@dataclass(frozen=True)
class Prices:
    """Figures of many candidates, named as those of `search.cost.Cost`; of refused ones they mean nothing."""

    parameters: Whole
    active: Whole
    forward: Whole
    training_step: Whole
    weights: Whole
    peak_inference: Whole
    peak_training: Whole
    cache_per_token: Whole
    latency_ms: NDArray[np.float64]
    refused: NDArray[np.bool_]


FIGURES = tuple(name for name in Prices.__dataclass_fields__ if name != "refused")


class Table:
    """Prices of one space under one setting.

    Attributes:
        slow: why candidates are priced one by one, as trees; None if they are looked up.

    Errors:
        SpecError: an unknown dtype or device.
    """

    def __init__(
        self,
        space: Space,
        *,
        batch: int = 1,
        length: int | None = None,
        dtype: str = "float32",
        device: str = devices.LOCAL,
    ) -> None:
        self.space = space
        self.setting: dict[str, Any] = {"batch": batch, "length": length, "dtype": dtype, "device": device}
        self.rows: Rows | None = None
        self.slow: str | None = None
        try:
            self.rows = Rows(Layout(space), chain_of(batch, length, dtype, device))
        except Unfactored as reason:
            self.slow = str(reason)

    def price(self, vectors: Vectors) -> Prices:
        """Prices candidates.

        Args:
            vectors: ``[candidates, slots]``, as `spaces.encoding` gives them.

        Errors:
            SpecError: an entry that no choice has.
        """
        if self.rows is not None:
            try:
                chunks = [self.rows.price(vectors[at : at + CHUNK]) for at in range(0, len(vectors), CHUNK)]
                return Prices(
                    **{name: np.concatenate([getattr(one, name) for one in chunks]) for name in (*FIGURES, "refused")}
                )
            except NoChainError:
                self.rows, self.slow = None, "a node reads more than the one before it"
        return self._one_by_one(vectors)

    def _one_by_one(self, vectors: Vectors) -> Prices:
        costs = price_trees([decode(self.space, vector).tree for vector in vectors], **self.setting)
        known = [cost if isinstance(cost, Cost) else None for cost in costs]
        columns = [
            np.array([getattr(cost, name) if cost else 0 for cost in known], dtype=float if "_ms" in name else np.int64)
            for name in FIGURES
        ]
        refused = np.array([cost is None for cost in known], dtype=np.bool_)
        return Prices(**dict(zip(FIGURES, columns, strict=True)), refused=refused)


class Lookup:
    """The table of one unit: by state and choices, the number of a row."""

    def __init__(self, sizes: Sequence[int], own: Sequence[int], outside: Sequence[int] = ()) -> None:
        slots = [*own, *outside]
        self.strides = [math.prod(sizes[slot] for slot in slots[number + 1 :]) for number in range(len(slots))]
        self.own, self.outside = own, outside
        self.width = math.prod(sizes[slot] for slot in slots)
        self.index = np.full(0, UNKNOWN, dtype=np.int32)

    def places(self, digits: Whole, state: Whole | int, moved: int, states: int) -> Whole:
        """Where the rows of some candidates stand; own slots are moved by so many."""
        total = np.full(digits.shape[1], 0, dtype=np.int64) + state
        total *= self.width
        slots = [*(slot + moved for slot in self.own), *self.outside]
        for slot, stride in zip(slots, self.strides, strict=True):
            total += digits[slot] * stride
        if states * self.width > len(self.index):
            grown = np.full(max(states * self.width, 2 * len(self.index)), UNKNOWN, dtype=np.int32)
            grown[: len(self.index)] = self.index
            self.index = grown
        return total


class Rows:
    """The tables of a space's units, and the rows that they point to."""

    def __init__(self, layout: Layout, chain: Chain) -> None:
        self.layout, self.chain, self.space = layout, chain, layout.space
        sizes = layout.sizes
        self.start, self.end = Lookup(sizes, layout.start), Lookup(sizes, layout.start)
        self.lookups = [Lookup(sizes, unit.own, unit.outside) for unit in layout.units]
        self.counts = [Lookup(sizes, unit.counting) for unit in layout.units]
        self.levels = len(chain.setting.device.memory)
        self.sums = len(SUMS) + 1 + self.levels  # and refusals, and latencies by level
        self.numbers = np.zeros((2, self.sums + len(PEAKS)), dtype=np.int64)
        self.numbers[:, self.sums + TIED] = -1
        self.numbers[REFUSED, len(SUMS)] = 1
        self.after = np.array([SAME, DEAD], dtype=np.int64)
        self.pieces: list[Piece] = []
        self.states: dict[int, int] = {START: START, DEAD: DEAD}  # the chain's numbers by ours
        self.ours: dict[int, int] = {}
        self.found: dict[int, int] = {}
        self.tables: dict[str, int] = {}
        self.held = np.zeros((2, 0), dtype=np.int32)  # numbers of computed tables, 0 for none
        self.bytes = np.zeros(1, dtype=np.int64)
        nodes = [slot.node for slot in self.space.slots]
        self.low = np.array([node.low if isinstance(node, Range) else 0 for node in nodes], dtype=float)[:, None]
        self.step = np.array([node.step or 1 if isinstance(node, Range) else 1 for node in nodes], dtype=float)[:, None]
        self.limit = np.array(sizes, dtype=np.int64)

    def price(self, vectors: Vectors) -> Prices:
        """Prices some candidates.

        Errors:
            SpecError: an entry that no choice has.
            NoChainError: the space's members are no chains.
        """
        batch = Batch(self, vectors)
        batch.follow(self.start, self._first)
        for unit, lookup, count in zip(self.layout.units, self.lookups, self.counts, strict=True):
            batch.unit(unit, lookup, count)
        batch.follow(self.end, self._end)
        return batch.prices()

    def digits(self, vectors: Vectors) -> Whole:
        """``[slots, candidates]``: 0 for a choice that is not reached, else one more than its position."""
        found = np.rint((vectors.T - self.low) / self.step)
        digits = np.where(np.isnan(found), 0, found + 1).astype(np.int64)
        wrong = (digits.min(axis=1, initial=0) < 0) | (digits.max(axis=1, initial=0) >= self.limit)
        if wrong.any():
            slot = self.space.slots[int(np.flatnonzero(wrong)[0])]
            raise SpecError(Problem("an entry of a vector cannot be chosen here", None, slot.path))
        return digits

    def codes(self, vector: Vectors) -> Codes:
        """The codes of a vector."""
        return tuple(
            None if math.isnan(entry) else slot.node.nearest(entry) if isinstance(slot.node, Range) else int(entry)
            for entry, slot in zip(vector.tolist(), self.space.slots, strict=True)
        )

    def context(self, codes: Codes) -> Context:
        """What the pieces of a member may name.

        Errors:
            SpecError: the language refuses the member.
            NoChainError: it is no chain.
        """
        found = self.chain.context(self.space.tree_of(codes))
        if found is None:
            raise NoChainError
        return found

    def row(self, found: tuple[Piece, int]) -> int:
        """The number of a piece's row."""
        piece, after = found
        number = self.found.get(id(piece))
        if number is not None:
            return number
        self.pieces.append(piece)
        number = self.found[id(piece)] = len(self.pieces) + REFUSED
        if number >= len(self.numbers):
            more = ((0, len(self.numbers)), (0, 0))
            self.numbers, self.held = np.pad(self.numbers, more), np.pad(self.held, more)
            self.after = np.pad(self.after, more[0])
        latencies = piece.latencies or (0,) * self.levels
        row = [*(getattr(piece, name) for name in SUMS), 0, *latencies, *(getattr(piece, name) for name in PEAKS)]
        self.numbers[number] = row
        self.after[number] = self._state(after)
        held = [self._table(name, size) for name, size in sorted(piece.buffers)]
        if len(held) > self.held.shape[1]:
            self.held = np.pad(self.held, ((0, 0), (0, len(held) - self.held.shape[1])))
        self.held[number, : len(held)] = held
        return number

    def _state(self, number: int) -> int:
        """Our number of one of the chain's states."""
        ours = self.ours.get(number)
        if ours is None:
            ours = self.ours[number] = len(self.states)
            self.states[ours] = number
        return ours

    def _table(self, name: str, size: int) -> int:
        number = self.tables.get(name)
        if number is None:
            number = self.tables[name] = len(self.bytes)
            self.bytes = np.append(self.bytes, size)
        return number

    def _first(self, codes: Codes, state: int, turn: int) -> int:
        context = self.context(codes)
        return self.row((context.first, context.start))

    def _end(self, codes: Codes, state: int, turn: int) -> int:
        found = self.chain.end(self.context(codes), self.states[state])
        return self.row((found, self.states[state])) if isinstance(found, Piece) else REFUSED

    def piece(self, unit: Unit, codes: Codes, state: int, turn: int) -> int:
        """The number of the row of a unit.

        Errors:
            SpecError: the language refuses the member, perhaps for another reason.
            NoChainError: it is no chain.
        """
        raw = unit.take(codes, turn)
        if raw == "absent":
            return NOTHING
        found = self.chain.piece(Link(raw, repr(raw), unit.round), self.context(codes), self.states[state])
        if isinstance(found, tuple):
            return self.row(found)
        if isinstance(found, NoChainError):
            raise found
        if unit.suspect:
            from_tree(self.space.tree_of(codes))  # or else it is right, and reads what does not stand before it
            raise NoChainError
        return REFUSED


class Batch:
    """Candidates on their way through the units."""

    def __init__(self, rows: Rows, vectors: Vectors) -> None:
        self.rows, self.vectors, self.digits = rows, vectors, rows.digits(vectors)
        count = len(vectors)
        self.state = np.full(count, START, dtype=np.int64)
        self.sums = np.zeros((count, rows.sums), dtype=np.int64)
        self.inference, self.training, self.since, self.table = (np.zeros(count, dtype=np.int64) for _ in range(4))
        self.held: list[NDArray[np.int32]] = []

    def unit(self, unit: Unit, lookup: Lookup, count: Lookup) -> None:
        """A node, or the rounds that each candidate has."""
        fill = partial(self.rows.piece, unit)
        if unit.times is None:
            self.follow(lookup, fill)
            return
        times = self._times(unit.times, count)
        for turn in range(unit.most):
            active = np.flatnonzero(times > turn)
            if not len(active):
                break
            self.follow(lookup, fill, turn, turn * unit.stride, None if len(active) == len(times) else active)

    def _times(self, times: Callable[[Codes], int], count: Lookup) -> NDArray[np.int32]:
        places = count.places(self.digits, 0, 0, 1)
        for row in _first_of(places, count.index[places] == UNKNOWN):
            count.index[places[row]] = times(self.rows.codes(self.vectors[row]))
        return count.index[places]

    def follow(self, lookup: Lookup, fill: Fill, turn: int = 0, moved: int = 0, active: Indices | None = None) -> None:
        """Takes some candidates, all by default, through a unit."""
        rows, some = self.rows, slice(None) if active is None else active
        state = self.state[some]
        places = lookup.places(self.digits[:, some], state, moved, len(rows.states))
        found = lookup.index[places]
        if (found == UNKNOWN).any():
            found = self._fill(lookup, places, state, np.arange(len(self.state))[some], fill, turn)
        self._add(rows.numbers[found], some)
        after = rows.after[found]
        self.state[some] = np.where(after == SAME, state, after)
        for column in rows.held[found].T:
            whole = np.zeros(len(self.state), dtype=np.int32)
            whole[some] = column
            self.held.append(whole)

    def _fill(
        self, lookup: Lookup, places: Whole, state: Whole, members: Indices, fill: Fill, turn: int
    ) -> NDArray[np.int32]:
        """Rows of places that were not met before. A member that is refused as a whole says nothing about others."""
        refused = np.zeros(len(places), dtype=np.bool_)
        while True:
            unknown = (lookup.index[places] == UNKNOWN) & ~refused
            if not unknown.any():
                return np.where(refused, REFUSED, lookup.index[places])
            for row in _first_of(places, unknown):
                if state[row] == DEAD:
                    lookup.index[places[row]] = REFUSED
                    continue
                try:
                    codes = self.rows.codes(self.vectors[members[row]])
                    lookup.index[places[row]] = fill(codes, int(state[row]), turn)
                except SpecError:
                    refused[row] = True

    def _add(self, taken: Whole, some: Any) -> None:
        """As `search.cost.total.Total.add`."""
        count = self.rows.sums
        inference, forward, backward, tied, table, widest = taken[:, count:].T
        kept = self.sums[some, KEPT]
        self.inference[some] = np.maximum(self.inference[some], inference)
        backward = kept + backward
        most = np.maximum(self.training[some], np.maximum(backward, kept + forward))
        since = self.since[some]
        if (tied >= 0).any():
            with_table = self.table[some] + np.maximum(since, kept + tied)
            most = np.where(tied >= 0, np.maximum(most, with_table), most)
        self.training[some] = most
        since = np.maximum(since, backward)
        if table.any():
            since = np.where(table > 0, backward + widest, since)
            self.table[some] = np.where(table > 0, table, self.table[some])
        self.since[some] = since
        self.sums[some] += taken[:, :count]

    def prices(self) -> Prices:
        """As `search.cost.total.Total.cost`."""
        rows, dtype = self.rows, self.rows.chain.dtype
        size = DTYPES[dtype].itemsize
        sums = dict(zip(SUMS, self.sums.T, strict=False))
        weights = sums["parameters"] * size + sums["stored"]
        held = weights + self._tables() + sums["inputs"]
        levels = np.array([level.size for level in rows.chain.setting.device.memory[:-1]], dtype=float)
        level = np.searchsorted(levels, sums["resident"], side="left")
        latency = self.sums[np.arange(len(level)), len(SUMS) + 1 + level]
        return Prices(
            parameters=sums["parameters"],
            active=sums["active"],
            forward=sums["forward"],
            training_step=sums["step"],
            weights=weights,
            peak_inference=held + self.inference,
            peak_training=held + sums["targets"] + sums["parameters"] * (size + STATES) + self.training,
            cache_per_token=sums["cache"] * size,
            latency_ms=latency / 1e12,
            refused=self.sums[:, len(SUMS)] > 0,
        )

    def _tables(self) -> Whole:
        """Bytes of tables that are computed, each counted once for a candidate."""
        if not self.held:
            return np.zeros(len(self.state), dtype=np.int64)
        numbers = np.sort(np.stack(self.held, axis=1), axis=1)
        sizes = self.rows.bytes[numbers]
        sizes[:, 1:][numbers[:, 1:] == numbers[:, :-1]] = 0
        total: Whole = sizes.sum(axis=1)
        return total


def _first_of(places: Whole, wanted: NDArray[np.bool_]) -> list[int]:
    """One candidate for each of the wanted places."""
    members = np.flatnonzero(wanted)
    return [int(row) for row in members[np.unique(places[members], return_index=True)[1]]]
