"""What happened while a block ran: its operators one by one, and the bytes that were live after each change.

Recordings of one block at lengths that are a loop's stride apart tell what it does at any length on that grid.
`Series` holds four of them: whatever stands in the same place before, between and after the loops must follow a
polynomial of the second degree, and what each run has beyond the one before must be a round of each loop, whose
operators stay the same and whose memory grows evenly. Then a longer run is those, with more rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple

from search.cost.block import BlockCost, Flow, Operator, merge

Rows = list[Operator]


class Irregular(Exception):
    """What a block does does not follow from its length in this way."""


@dataclass(frozen=True)
class Recording:
    """A block's run.

    Attributes:
        flow: without its peaks.
        inference_live, forward_live, backward_live: bytes after each change, forward and backward in training.
        gradients_live: as ``backward_live``, with the gradients of weights.
        saved: bytes that autograd keeps.
    """

    inference: Rows
    inference_live: list[int]
    flow: Flow
    training: Rows = field(default_factory=list)
    forward_live: list[int] = field(default_factory=list)
    backward_live: list[int] = field(default_factory=list)
    gradients_live: list[int] = field(default_factory=list)
    saved: int = 0

    def cost(self) -> BlockCost:
        """All of it summed up."""
        return _cost(self.inference, self.training, self.flow, self.saved, [getattr(self, name) for name in _LIVE])


_LIVE = ("inference_live", "forward_live", "backward_live", "gradients_live")


def _cost(
    inference: Iterable[Operator], training: Iterable[Operator], flow: Flow, saved: int, live: Iterable[Iterable[int]]
) -> BlockCost:
    peak, forward, backward, gradients = (max([0, *sizes]) for sizes in live)
    return BlockCost(
        inference=merge(inference),
        training=merge(training),
        peak_inference=peak,
        peak_training=max(forward, backward),
        saved=saved,
        flow=replace(flow, peak_forward=forward, peak_backward=backward, peak_gradients=gradients),
    )


class Series:
    """Four recordings of one block, each a round of its loop longer than the one before.

    Errors:
        Irregular: they are not of that form.
    """

    def __init__(self, recordings: Sequence[Recording]) -> None:
        assert len(recordings) == 4
        self.flows = [recording.flow for recording in recordings]
        self.saved = [recording.saved for recording in recordings]
        self.inference = _Rounds([[_parts(row) for row in one.inference] for one in recordings], even=False)
        self.training = _Rounds([[_parts(row) for row in one.training] for one in recordings], even=False)
        self.live = [
            _Rounds([[(None, (size,)) for size in getattr(one, name)] for one in recordings], even=True)
            for name in _LIVE
        ]

    def at(self, rounds: int) -> BlockCost:
        """The cost of a run that is so many rounds longer than the first."""
        rows = ((_row(*item) for item in phase.at(rounds)) for phase in (self.inference, self.training))
        live = ((size for (_, (size,)), _ in one.at(rounds)) for one in self.live)
        return _cost(*rows, _reached(self.flows, rounds), _reached(self.saved, rounds), live)

    def begins(self, rows: Rows, rounds: int) -> bool:
        """Whether inference that is so many rounds longer begins with these operators."""
        return all(_parts(row) == item for row, item in zip(rows, self.inference.unrolled(rounds), strict=False))


Item = tuple[Any, tuple[int, ...]]  # what never changes, and numbers that change with the length


class _Loop(NamedTuple):
    """Where a loop ends in the first run, how much longer the next run was until its last round, and by its own.

    Attributes:
        growth: by how much numbers grow from round to round, for each place of a round and each run.
    """

    end: int
    shift: int
    period: int
    growth: list[list[tuple[int, ...]]]


class _Rounds:
    """What happens before, in, between and after loops, from four runs of them.

    Args:
        even: numbers may grow from round to round, by as much each time.
    """

    def __init__(self, runs: list[list[Item]], *, even: bool) -> None:
        self.runs, self.even, self.first = runs, even, len(runs[0])
        period = len(runs[1]) - self.first
        if period < 0 or any(len(run) != self.first + period * number for number, run in enumerate(runs)):
            raise Irregular
        loops = self._loops(0, 0, period)
        if loops is None:
            raise Irregular
        self.loops = loops

    def _loops(self, start: int, shift: int, left: int) -> list[_Loop] | None:
        """The loops after a place, whose rounds are so many items together."""
        end = start
        while end < self.first and _regular([run[end + number * shift] for number, run in enumerate(self.runs)]):
            end += 1
        if end == self.first and not left:
            return []
        for period in range(1, min(left, (end - start) // 2) + 1):
            growth = self._growth(end, shift, period)
            rest = self._loops(end, shift + period, left - period) if growth is not None else None
            if growth is not None and rest is not None:
                return [_Loop(end, shift, period, growth), *rest]
        return None

    def _growth(self, end: int, shift: int, period: int) -> list[list[tuple[int, ...]]] | None:
        """By how much numbers grow from round to round; None if this is no loop."""
        found = []
        for place in range(period):
            grown = []
            for number, run in reversed(list(enumerate(self.runs))):
                start = end + number * shift - 2 * period + place
                items = run[start : start + (number + 2) * period : period]
                steps = {tuple(b - a for a, b in zip(x, y, strict=False)) for (_, x), (_, y) in pairwise(items)}
                if len({(what, len(numbers)) for what, numbers in items}) != 1 or len(steps) != 1:
                    return None
                grown.append(steps.pop())
            grown.reverse()
            if any(map(_third, zip(*grown, strict=True))) or not self.even and any(map(any, grown)):
                return None
            found.append(grown)
        return found

    def at(self, rounds: int) -> Iterator[tuple[Item, int]]:
        """Items of a run that is so many rounds longer, and how often: of equal rounds the last one, so many times."""
        for items, last in self._sections(rounds):
            yield from ((item, 1) for item in items)
            yield from ((item, rounds) for item in last if rounds)

    def unrolled(self, rounds: int) -> Iterator[Item]:
        """The items in their order, round after round; numbers must not grow."""
        for items, last in self._sections(rounds):
            yield from items
            for _ in range(rounds):
                yield from last

    def _sections(self, rounds: int) -> Iterator[tuple[Iterator[Item], list[Item]]]:
        """What comes before the end of each loop, and the last round that is added there."""
        start = shift = 0
        for loop in self.loops:
            yield self._between(start, loop.end, loop.shift, rounds), self._last(loop, rounds)
            start, shift = loop.end, loop.shift + loop.period
        yield self._between(start, self.first, shift, rounds), []

    def _between(self, start: int, end: int, shift: int, rounds: int) -> Iterator[Item]:
        for at in range(start, end):
            items = [run[at + number * shift] for number, run in enumerate(self.runs)]
            yield items[0][0], tuple(_ahead(numbers, rounds) for numbers in zip(*(n for _, n in items), strict=True))

    def _last(self, loop: _Loop, rounds: int) -> list[Item]:
        last = []
        before = self._between(loop.end - loop.period, loop.end, loop.shift, rounds)
        for (what, numbers), grown in zip(before, loop.growth, strict=True):
            steps = [_ahead(sizes, rounds) for sizes in zip(*grown, strict=True)]
            last.append((what, tuple(size + rounds * step for size, step in zip(numbers, steps, strict=True))))
        return last


def _regular(items: Sequence[Item]) -> bool:
    """Whether like items have numbers that follow a polynomial of the second degree."""
    (what, first), *rest = items
    if any(other != what or len(numbers) != len(first) for other, numbers in rest):
        return False
    return not any(map(_third, zip(first, *(numbers for _, numbers in rest), strict=True)))


_NUMBERS = ("flops", "read", "written", "weights")
_FIXED = tuple(one.name for one in fields(Operator) if one.name not in (*_NUMBERS, "shape", "count"))
_numbers, _fixed = attrgetter(*_NUMBERS), attrgetter(*_FIXED)


def _parts(row: Operator) -> Item:
    return _fixed(row), (*_numbers(row), *row.shape)


def _row(item: Item, times: int) -> Operator:
    fixed, numbers = item
    named = dict(zip(_FIXED, fixed, strict=True)) | dict(zip(_NUMBERS, numbers, strict=False))
    return Operator(**named, shape=numbers[len(_NUMBERS) :], count=times)


def _ahead(numbers: Sequence[int], rounds: int) -> int:
    """The polynomial of the second degree through the first three numbers, so many steps after the first."""
    a, b, c = numbers[:3]
    return a + rounds * (b - a) + rounds * (rounds - 1) // 2 * (c - 2 * b + a)


def _third(numbers: Sequence[int]) -> bool:
    a, b, c, d = numbers
    return d - 3 * c + 3 * b != a


def _reached(values: Sequence[Any], rounds: int) -> Any:
    """Like numbers of like values, so many steps after the first."""
    first = values[0]
    if type(first) is int and all(type(value) is int for value in values):
        if _third(values):
            raise Irregular
        return _ahead(values, rounds)
    if any(type(value) is not type(first) for value in values):
        raise Irregular
    if is_dataclass(first):
        names = [one.name for one in fields(first)]
        parts = {name: _reached([getattr(value, name) for value in values], rounds) for name in names}
        return replace(first, **parts)  # type: ignore[type-var]
    if isinstance(first, tuple):
        if len({len(value) for value in values}) != 1:
            raise Irregular
        return tuple(_reached(parts, rounds) for parts in zip(*values, strict=True))
    if any(value != first for value in values):
        raise Irregular
    return first
