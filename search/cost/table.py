"""Candidates of a space priced by looking up: hundreds of thousands in a second, exactly as `price` does.

For each unit of the space (`search.cost.layout`) a table maps the state that it is given and the choices that decide it
to a row of whole numbers and the state after it (`search.cost.rows`); a batch of vectors is look-ups, sums and maxima.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archspec.errors import SpecError
from search.cost import devices
from search.cost.chain import chain_of, price_trees
from search.cost.layout import Codes, Layout, Unfactored, Unit
from search.cost.pieces import NoChainError
from search.cost.price import Cost
from search.cost.rows import (
    DEAD,
    KEPT,
    PARAMETERS,
    REFUSED,
    SAME,
    START,
    SUMS,
    UNKNOWN,
    Fill,
    Lookup,
    Rows,
    Vectors,
    Whole,
    first_of,
)
from search.cost.setting import DTYPES, Phase
from search.cost.update import STATES, update_peak
from spaces.encoding import decode
from spaces.space import Space

Indices = NDArray[np.intp]
CHUNK = 4096  # candidates priced at once, so that their rows stay in cache


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
        phase: Phase = "prefill",
        context: int | None = None,
    ) -> None:
        self.space = space
        self.setting: dict[str, Any] = {
            "batch": batch, "length": length, "dtype": dtype, "device": device, "phase": phase, "context": context
        }  # fmt: skip
        self.rows: Rows | None = None
        self.slow: str | None = None
        try:
            self.rows = Rows(Layout(space), chain_of(**self.setting))
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
                starts = range(0, max(1, len(vectors)), CHUNK)
                chunks = [Batch(self.rows, vectors[at : at + CHUNK]).prices() for at in starts]
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


class Batch:
    """Candidates on their way through the units.

    Errors:
        SpecError: an entry that no choice has.
        NoChainError: the space's members are no chains.
    """

    def __init__(self, rows: Rows, vectors: Vectors) -> None:
        self.rows, self.vectors, self.digits = rows, vectors, rows.digits(vectors)
        count = len(vectors)
        self.state = np.full(count, START, dtype=np.int64)
        self.sums = np.zeros((count, rows.sums), dtype=np.int64)
        self.inference, self.training, self.backward, self.since, self.table, self.widest = (
            np.zeros(count, dtype=np.int64) for _ in range(6)
        )
        self.size = DTYPES[rows.chain.dtype].itemsize
        self.held: list[NDArray[np.int32]] = []
        self.numbers: dict[tuple[Lookup, int], Whole] = {}
        self.follow(rows.start, rows.first)
        for unit in rows.layout.units:
            self.unit(unit)
        self.follow(rows.end, rows.last)

    def unit(self, unit: Unit, members: Indices | None = None, round: int = 0) -> None:
        """A node, or the rounds that some candidates have, all by default; it may be a part of a round itself."""
        fill, lookup = partial(self.rows.piece, unit), self.rows.lookups[unit]
        if unit.times is None:
            self.follow(lookup, fill, round, round * unit.stride, members)
            return
        times = self._times(unit.times, self.rows.counts[unit])
        if members is not None:
            times = times[members]
        for turn in range(unit.most):
            active = np.flatnonzero(times > turn)
            if not len(active):
                break
            some = members if len(active) == len(times) else active if members is None else members[active]
            if not unit.parts:
                self.follow(lookup, fill, turn, turn * unit.stride, some)
                continue
            self._move(True, some)
            for part in unit.parts:
                self.unit(part, some, turn)
            self._move(False, some)

    def _move(self, enters: bool, active: Indices | None) -> None:
        """Enters or leaves a round that is made of rounds."""
        some: Any = slice(None) if active is None else active
        state = self.state[some]
        for one in np.unique(state[self.rows.moved(enters)[state] == UNKNOWN]).tolist():
            self.rows.move(enters, one)
        self.state[some] = self.rows.moved(enters)[state]

    def _times(self, times: Callable[[Codes], int], count: Lookup) -> NDArray[np.int32]:
        places = count.places(count.numbers(self.digits))
        for row in first_of(places, count.index[places] == UNKNOWN):
            count.index[places[row]] = times(self.rows.codes(self.vectors[row]))
        return count.index[places]

    def follow(self, lookup: Lookup, fill: Fill, turn: int = 0, moved: int = 0, active: Indices | None = None) -> None:
        """Takes some candidates, all by default, through a unit."""
        rows, some = self.rows, slice(None) if active is None else active
        state = self.state[some]
        numbers = self.numbers.get((lookup, moved))
        if numbers is None:
            numbers = self.numbers[lookup, moved] = lookup.numbers(self.digits, moved)
        places = lookup.places(numbers[some], state, len(rows.states))
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
            for row in first_of(places, unknown):
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
        before = kept - (self.sums[some, PARAMETERS] + taken[:, PARAMETERS]) * self.size
        self.inference[some] = np.maximum(self.inference[some], inference)
        self.training[some] = np.maximum(self.training[some], kept + forward)
        self.widest[some] = np.maximum(self.widest[some], widest)
        backward = before + backward
        most = np.maximum(self.backward[some], backward)
        since = self.since[some]
        if (tied >= 0).any():
            with_table = self.table[some] + np.maximum(since, before + tied)
            most = np.where(tied >= 0, np.maximum(most, with_table), most)
        self.backward[some] = most
        since = np.maximum(since, backward)
        if table.any():
            since = np.where(table > 0, backward + widest, since)
            self.table[some] = np.where(table > 0, table, self.table[some])
        self.since[some] = since
        self.sums[some] += taken[:, :count]

    def prices(self) -> Prices:
        """As `search.cost.total.Total.cost`."""
        size = self.size
        sums = dict(zip(SUMS, self.sums.T, strict=False))
        weights = sums["parameters"] * size + sums["stored"]
        held = weights + self._tables() + sums["inputs"]
        update = update_peak(sums["parameters"], self.widest, size)
        training = np.maximum(np.maximum(self.training, sums["parameters"] * size + self.backward), update)
        return Prices(
            parameters=sums["parameters"],
            active=sums["active"],
            forward=sums["forward"],
            training_step=sums["step"],
            weights=weights,
            peak_inference=held + self.inference,
            peak_training=held + sums["targets"] + sums["parameters"] * STATES + training,
            cache_per_token=sums["cache"] * size,
            latency_ms=1e3 * self._seconds(sums["resident"], sums["host"]),
            refused=self.sums[:, len(SUMS)] > 0,
        )

    def _seconds(self, resident: Whole, host: Whole) -> NDArray[np.float64]:
        """As `search.cost.passes.seconds`."""
        device = self.rows.chain.setting.device
        busy = self.sums[:, len(SUMS) + 1 :]
        sets = np.array(device.working_sets)
        if len(sets) == 1:
            spent = busy[:, 0]
        else:
            high = np.clip(np.searchsorted(sets, resident, side="left"), 1, len(sets) - 1)
            near, far = (np.take_along_axis(busy, at[:, None], 1)[:, 0] for at in (high - 1, high))
            small, large = sets[high - 1], sets[high]
            way = np.log(np.maximum(resident, 1) / small) / np.log(large / small)
            share = np.round(np.clip(way, 0.0, 1.0), 6)
            spent = near + np.rint(share * (far - near)).astype(np.int64)
        constant = device.pass_seconds(self.rows.chain.setting.phase, 0.0, 0.0)
        spent, asked = spent / 1e15, host / 1e15
        found: NDArray[np.float64] = constant + (spent + asked if device.kind == "cpu" else np.maximum(spent, asked))
        return found

    def _tables(self) -> Whole:
        """Bytes of tables that are computed, each counted once for a candidate."""
        if not self.held:
            return np.zeros(len(self.state), dtype=np.int64)
        numbers = np.sort(np.stack(self.held, axis=1), axis=1)
        sizes = self.rows.bytes[numbers]
        sizes[:, 1:][numbers[:, 1:] == numbers[:, :-1]] = 0
        total: Whole = sizes.sum(axis=1)
        return total
