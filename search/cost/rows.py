"""The tables of a space's units: by state and choices a row of whole numbers, filled in when first met.

A row is a piece (`search.cost.pieces`): figures that add up (`SUMS`, refusals, times by working set), then
peaks (`PEAKS`). Row 0 is a node that is absent, row 1 one that the language refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from archspec.errors import Problem, SpecError
from archspec.spec import from_tree
from search.cost.chain import Chain, Context, Link
from search.cost.layout import Codes, Layout, Unit
from search.cost.numbering import Numbering
from search.cost.pieces import NoChainError, Piece
from search.cost.state import entered, left
from spaces.ranges import Range

Vectors = NDArray[np.float64]
Whole = NDArray[np.int64]

UNKNOWN, NOTHING, REFUSED = -1, 0, 1  # rows
SAME, START, DEAD = -1, 0, 1  # states: that before, the first, that of refused candidates
SUMS = ("parameters", "active", "stored", "resident", "forward", "step", "cache", "inputs", "targets", "kept", "host")
PEAKS = ("inference_peak", "forward_peak", "backward_peak", "tied_peak", "table", "widest")
PARAMETERS, KEPT, TIED = SUMS.index("parameters"), SUMS.index("kept"), PEAKS.index("tied_peak")
Fill = Callable[[Codes, int, int], int]  # from codes, a state and a round's number to a row


class Lookup:
    """The table of one unit: by state and choices, the number of a row."""

    def __init__(self, own: Numbering, outside: Numbering | None = None) -> None:
        self.own, self.outside = own, outside or Numbering()
        self.width = self.own.size * self.outside.size
        self.index = np.full(0, UNKNOWN, dtype=np.int32)

    def numbers(self, digits: Whole, moved: int = 0) -> Whole:
        """The numbers of the choices of some candidates; own slots are moved by so many."""
        total = np.zeros(digits.shape[1], dtype=np.int64)
        self.own.add(total, digits, moved)
        self.outside.add(total, digits, times=self.own.size)
        return total

    def places(self, numbers: Whole, state: Whole | int = 0, states: int = 1) -> Whole:
        """Where the rows of some candidates stand, by the numbers of their choices and one of so many states."""
        if states * self.width > len(self.index):
            grown = np.full(max(states * self.width, 2 * len(self.index)), UNKNOWN, dtype=np.int32)
            grown[: len(self.index)] = self.index
            self.index = grown
        return numbers + state * self.width


class Rows:
    """The tables of a space's units, and the rows that they point to."""

    def __init__(self, layout: Layout, chain: Chain) -> None:
        self.layout, self.chain, self.space = layout, chain, layout.space
        sizes = layout.sizes
        given = Numbering().slots(layout.start, sizes)
        self.start, self.end = Lookup(given), Lookup(given)
        self.lookups = {unit: Lookup(unit.own, unit.outside) for unit in layout.all()}
        self.counts = {unit: Lookup(unit.counting) for unit in layout.all()}
        self.sets = len(chain.setting.device.working_sets)
        self.sums = len(SUMS) + 1 + self.sets  # and refusals, and times by working set
        self.numbers = np.zeros((2, self.sums + len(PEAKS)), dtype=np.int64)
        self.numbers[:, self.sums + TIED] = -1
        self.numbers[REFUSED, len(SUMS)] = 1
        self.after = np.array([SAME, DEAD], dtype=np.int64)
        self.pieces: list[Piece] = []
        self.states: dict[int, int] = {START: START, DEAD: DEAD}  # the chain's numbers by ours
        self.ours: dict[int, int] = {}
        self.found: dict[int, int] = {}
        self.tables: dict[str, int] = {}
        self.moves = {True: np.array([UNKNOWN, DEAD]), False: np.array([UNKNOWN, DEAD])}
        self.held = np.zeros((2, 0), dtype=np.int32)  # numbers of computed tables, 0 for none
        self.bytes = np.zeros(1, dtype=np.int64)
        nodes = [slot.node for slot in self.space.slots]
        self.low = np.array([node.low if isinstance(node, Range) else 0 for node in nodes], dtype=float)[:, None]
        self.step = np.array([node.step or 1 if isinstance(node, Range) else 1 for node in nodes], dtype=float)[:, None]
        self.limit = np.array(sizes, dtype=np.int64)

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
        busy = piece.busy or (0,) * self.sets
        row = [*(getattr(piece, name) for name in SUMS), 0, *busy, *(getattr(piece, name) for name in PEAKS)]
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

    def moved(self, enters: bool) -> Whole:
        """By state, that in which a round that is taken apart begins, or the one after it; `UNKNOWN` until `move`."""
        known = self.moves[enters]
        if len(known) < len(self.states):
            more = len(self.states) - len(known)
            known = self.moves[enters] = np.pad(known, (0, more), constant_values=UNKNOWN)
        return known

    def move(self, enters: bool, state: int) -> None:
        """Finds out what `moved` says of a state."""
        change = entered if enters else left
        found = self._state(self.chain.number(change(self.chain.states[self.states[state]])))
        self.moved(enters)[state] = found

    def _table(self, name: str, size: int) -> int:
        number = self.tables.get(name)
        if number is None:
            number = self.tables[name] = len(self.bytes)
            self.bytes = np.append(self.bytes, size)
        return number

    def first(self, codes: Codes, state: int, turn: int) -> int:
        """The number of the row of what a model is given."""
        context = self.context(codes)
        return self.row((context.first, context.start))

    def last(self, codes: Codes, state: int, turn: int) -> int:
        """The number of the row of the loss."""
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


def first_of(places: Whole, wanted: NDArray[np.bool_]) -> list[int]:
    """One candidate for each of the wanted places."""
    members = np.flatnonzero(wanted)
    return [int(row) for row in members[np.unique(places[members], return_index=True)[1]]]
