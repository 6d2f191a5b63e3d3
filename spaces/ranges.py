"""``{range: [low, high]}``: a number between two ends, both included.

Whole numbers unless ``step`` or an end is fractional; fractional ends without a step leave a continuum. ``log: true``
draws evenly in the logarithm. ``of: NAME`` multiplies what was drawn by a dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from random import Random
from typing import Any

from archspec.errors import Mark, Refused, either
from archspec.expressions import Number
from archspec.source import Map, Seq

GRID = 65_536  # numbers that are kept in a list


class Range:
    """A range at one place of a space.

    Attributes:
        low, high, step: as written; ``step`` is 1 for whole numbers and None for a continuum.
        of: the name that the drawn number is multiplied by, or None.
        symbolic: ``of`` is known by the elaborator only, so that the value is an expression.
        count: how many numbers there are, None for a continuum.
    """

    def __init__(
        self, low: Number, high: Number, *, step: Number | None = None, log: bool = False, of: str | None = None,
        symbolic: bool = False, default: Number | None = None, path: str = "", mark: Mark | None = None,
    ) -> None:  # fmt: skip
        self.low, self.high, self.log, self.of, self.symbolic = low, high, log, of, symbolic
        self.whole = not any(isinstance(number, float) for number in (low, high, step))
        self.step = 1 if step is None and self.whole else step
        self.count = None if self.step is None else int((_exact(high) - _exact(low)) / _exact(self.step)) + 1
        self.default = self.at(0) if default is None and self.count is not None else low if default is None else default
        self._grid = [self.at(number) for number in range(self.count)] if self.count and self.count <= GRID else None
        self.path, self.mark, self.size = path, mark, 1

    @property
    def reads(self) -> tuple[str, ...]:
        return ()  # what may be drawn depends on nothing

    @property
    def factors(self) -> tuple[str, ...]:
        """The dims that the value in the tree depends on."""
        return (self.of,) if self.of is not None and not self.symbolic else ()

    @property
    def raw(self) -> int | None:
        return self.count

    def at(self, number: int) -> int | float:
        """The drawn number of that position, from 0."""
        if self.whole:
            return int(self.low) + number * int(self.step or 1)
        assert self.step is not None
        return float(_exact(self.low) + number * _exact(self.step))

    def numbers(self) -> Iterator[int | float]:
        """All drawn numbers, ascending."""
        assert self.count is not None
        return map(self.at, range(self.count))

    def nearest(self, number: float) -> int | float | None:
        """The drawn number that is meant by one with rounding errors; None if it is outside or between two."""
        if not math.isfinite(number) or not self.low - 1e-9 <= number <= self.high + 1e-9:
            return None
        if self.step is None:
            return min(max(float(number), float(self.low)), float(self.high))
        position = round((number - self.low) / self.step)
        found = self.at(min(max(position, 0), (self.count or 1) - 1))
        return found if math.isclose(found, number, rel_tol=1e-9, abs_tol=1e-9 * self.step) else None

    def draw(self, random: Random) -> int | float:
        if self.log:
            if self.whole:
                return whole_of_log(random.random(), int(self.low), int(self.high))
            exponent = math.log(self.low) + random.random() * math.log(self.high / self.low)
            return min(max(math.exp(exponent), self.low), self.high)
        if self._grid is not None:
            return self._grid[int(random.random() * len(self._grid))]
        if self.count is not None:
            return self.at(random.randrange(self.count))
        return min(self.low + random.random() * (self.high - self.low), self.high)

    def value(self, drawn: int | float, dims: Mapping[str, Number]) -> Any:
        """What stands in the tree."""
        if self.of is None:
            return drawn
        if self.symbolic:
            return f"{drawn} * {self.of}"
        product = drawn * dims[self.of]
        return int(product) if isinstance(product, float) and product.is_integer() else product


def whole_of_log(portion: float, low: int, high: int) -> int:
    """The whole number at a portion (0 to 1) of the way from ``low`` to ``high`` in the logarithm."""
    number = round((low - 0.5) * math.pow((high + 0.5) / (low - 0.5), portion))
    return min(max(number, low), high)


def parse_range(raw: Map, path: str, *, symbolic: bool) -> Range:
    """A range as written.

    Errors:
        Refused: something is wrong with it.
    """
    ends = raw["range"]
    if not isinstance(ends, Seq) or len(ends) != 2:
        raise Refused("range", "a range takes its two ends", "range: [low, high]")
    if not all(_is_number(end) for end in ends):
        wrong = next(end for end in ends if not _is_number(end))
        raise Refused("range", f"an end of a range is a number, not {wrong!r}", "of: NAME multiplies it by a dim")
    low, high = ends
    if low > high:
        raise Refused("range", f"the low end {low} is above the high end {high}", f"range: [{high}, {low}]")
    step, log, default = raw.get("step"), raw.get("log", False), raw.get("default")
    if not isinstance(log, bool):
        raise Refused("log", f"log is true or false, not {log!r}")
    if log and low <= 0:
        raise Refused("log", f"a logarithm needs a low end above 0, not {low}")
    if step is not None:
        if not _is_number(step) or step <= 0:
            raise Refused("step", f"a step is a number above 0, not {step!r}")
        if log:
            raise Refused("step", "a logarithmic range has no step", "remove step: or log:")
        rest = (_exact(high) - _exact(low)) % _exact(step)
        if rest:
            last = _exact(high) - rest
            near = [_shown(end) for end in (last, last + _exact(step)) if end > _exact(low)]
            raise Refused("step", f"steps of {step} from {low} never reach {high}", f"end at {either(near)}")
    result = Range(
        low, high, step=step, log=log, of=raw.get("of"), symbolic=symbolic, path=path, mark=raw.where("range")
    )
    if default is not None:
        found = result.nearest(default) if _is_number(default) else None
        if found is None:
            raise Refused("default", f"the default {default!r} is not in the range")
        result.default = found
    return result


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _exact(number: Number) -> Fraction:
    """The decimal number as written: steps of 0.1 add up."""
    return Fraction(str(number))


def _shown(number: Fraction) -> int | float:
    return int(number) if number.denominator == 1 else float(number)
