"""What a surrogate sees of a candidate: costs, totals over the rounds, choices made once, and choices of each round.

All are read off the space: nothing is known of what a choice means. Numbers keep their order, other options are counted
one by one; a choice that is not reached has no effect. Columns have mean 0 and variance 1 over random members.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spaces.choices import Slot
from spaces.ranges import Range

Reals = NDArray[np.float64]
SAME = 1e-9  # of two columns: one minus the square of their correlation


@dataclass(frozen=True)
class Features:
    """Columns of candidates.

    Attributes:
        size: log of the number of parameters, ``[n, 1]``; ``[n, 0]`` where it is not known.
        costs: ``[n, costs]``.
        totals: sums over the rounds, ``[n, totals]``.
        once: choices made once, ``[n, columns]``.
        rounds: for each choice that every round makes, ``[n, codes, rounds]``, 0 where it is not reached.
    """

    size: Reals
    costs: Reals
    totals: Reals
    once: Reals
    rounds: tuple[Reals, ...] = ()

    def __len__(self) -> int:
        return len(self.once)

    def rows(self, chosen: NDArray[np.intp] | slice) -> Features:
        return Features(
            self.size[chosen],
            self.costs[chosen],
            self.totals[chosen],
            self.once[chosen],
            tuple(part[chosen] for part in self.rounds),
        )


class Scale:
    """Columns to mean 0 and variance 1, constant ones and those that repeat another left out."""

    def __init__(self, columns: Reals, beside: Sequence[Reals] = ()) -> None:
        self.mean, self.deviation = columns.mean(axis=0), columns.std(axis=0)
        kept = []
        taken = [column for block in beside for column in block.T]
        for number, column in enumerate(((columns - self.mean) / np.maximum(self.deviation, 1e-12)).T):
            varies = self.deviation[number] > 1e-9 * max(1.0, abs(self.mean[number]))
            if varies and not any(1 - (column @ other / len(column)) ** 2 < SAME for other in taken):
                kept.append(number)
                taken.append(column)
        self.kept = np.array(kept, dtype=np.intp)

    def __call__(self, columns: Reals) -> Reals:
        found: Reals = ((columns - self.mean) / np.maximum(self.deviation, 1e-12))[:, self.kept]
        return found


class Encoder:
    """Features of the members of a space.

    Args:
        slots: those of the space.
        vectors: random members, ``[n, slots]``, that tell which choices vary and how much.
        costs: figures of the same members by name.
    """

    def __init__(self, slots: Sequence[Slot], vectors: Reals, costs: Mapping[str, Reals]) -> None:
        folds: dict[str, list[int]] = {}
        for number, slot in enumerate(slots):
            folds.setdefault(slot.fold or slot.path, []).append(number)
        self.names = sorted(costs)
        self.once = [(own[0], Codes(slots[own[0]])) for own in folds.values() if len(own) == 1]
        self.missing = [np.nanmean(column, axis=0) for column in self._entries(vectors)]
        once = self._once(vectors)
        self.rounds: list[tuple[list[int], Codes]] = []
        for own in folds.values():
            if len(own) > 1 and not _decided(vectors[:, own], vectors[:, [at for at, _ in self.once]]):
                self.rounds.append((own, Codes(slots[own[0]])))
        self.centres = [_centre(codes(vectors[:, own])) for own, codes in self.rounds]
        rounds = self._rounds(vectors)
        self.scale_size, self.scale_costs = Scale(self._size(costs)), Scale(self._costs(costs))
        self.scale_once = Scale(once)
        self.scale_totals = Scale(self._totals(vectors, rounds), [self.scale_once(once)])

    def __call__(self, vectors: Reals, costs: Mapping[str, Reals]) -> Features:
        rounds = self._rounds(vectors)
        return Features(
            self.scale_size(self._size(costs)),
            self.scale_costs(self._costs(costs)),
            self.scale_totals(self._totals(vectors, rounds)),
            self.scale_once(self._once(vectors)),
            tuple(rounds),
        )

    def _costs(self, costs: Mapping[str, Reals]) -> Reals:
        return logs(np.column_stack([costs[name] for name in self.names]))

    def _size(self, costs: Mapping[str, Reals]) -> Reals:
        return (
            logs(costs["parameters"][:, None])
            if "parameters" in costs
            else np.zeros((len(next(iter(costs.values()))), 0))
        )

    def _entries(self, vectors: Reals) -> list[Reals]:
        return [codes(vectors[:, [at]])[:, :, 0] for at, codes in self.once]

    def _once(self, vectors: Reals) -> Reals:
        columns = [
            np.where(np.isnan(column), mean, column)
            for column, mean in zip(self._entries(vectors), self.missing, strict=True)
        ]
        return np.concatenate([np.zeros((len(vectors), 0)), *columns], axis=1)

    def _rounds(self, vectors: Reals) -> list[Reals]:
        found = []
        for (own, codes), (mean, deviation) in zip(self.rounds, self.centres, strict=True):
            found.append(np.nan_to_num((codes(vectors[:, own]) - mean) / deviation))
        return found

    def _totals(self, vectors: Reals, rounds: list[Reals]) -> Reals:
        columns = [np.zeros((len(vectors), 0))]
        for (own, _), part in zip(self.rounds, rounds, strict=True):
            columns += [(~np.isnan(vectors[:, own])).sum(axis=1, keepdims=True).astype(np.float64), part.sum(axis=2)]
        return np.concatenate(columns, axis=1)


def logs(columns: Reals) -> Reals:
    """Logarithms of the columns that are positive and vary by more than a factor; the others as they are."""
    positive = (columns > 0).all(axis=0)
    return np.where(positive, np.log(np.where(positive, columns, 1.0)), columns)


class Codes:
    """Entries of a slot as numbers ``[n, codes, rounds]``, NaN where it is not reached.

    Options that are numbers give their number; others one column each, 1 where it was taken.
    """

    def __init__(self, slot: Slot) -> None:
        node = slot.node
        self.log = isinstance(node, Range) and node.log
        self.table: Reals | None = None
        if not isinstance(node, Range):
            labels = node.labels
            if all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in labels):
                self.table = _bent(np.array(labels, dtype=np.float64))
            else:
                self.table = np.eye(len(labels))[:, : 1 if len(labels) == 2 else None]

    def __call__(self, entries: Reals) -> Reals:
        if self.table is None:
            found = np.log(entries) if self.log else entries
            return found[:, None, :]
        reached = ~np.isnan(entries)
        taken = self.table[np.where(reached, entries, 0).astype(np.intp)]
        return np.where(reached[:, :, None], taken, math.nan).swapaxes(1, 2)


def _bent(numbers: Reals) -> Reals:
    """Numbers and, where there are more than two, what their squares are beside a straight line."""
    if len(set(numbers.tolist())) < 3:
        return numbers[:, None]
    straight = np.column_stack([np.ones(len(numbers)), numbers])
    squares = numbers**2 - straight @ np.linalg.lstsq(straight, numbers**2, rcond=None)[0]
    return np.column_stack([numbers, squares])


def _centre(values: Reals) -> tuple[Reals, Reals]:
    """Mean and deviation of each code over all rounds that are reached, ``[codes, 1]``."""
    mean = np.nanmean(values, axis=(0, 2))[:, None]
    deviation = np.nanstd(values, axis=(0, 2))[:, None]
    return mean, np.maximum(deviation, 1e-12)


def _decided(rounds: Reals, once: Reals) -> bool:
    """Whether the rounds' choice follows from one that is made once."""
    for column in np.nan_to_num(once, nan=-1.0).T:
        values = np.unique(column)
        spans = [rounds[column == value] for value in values]
        if len(values) < len(column) // 4 and all(
            np.nanmax(one) == np.nanmin(one) for one in spans if not np.isnan(one).all()
        ):
            return True
    return False
