"""The largest batch and the longest context that fit into a device's memory, or what is missing.

What a number of samples or tokens needs is near a straight line: two prices tell where it meets the memory's size, and
pricing at that point and beside it tells whether it does; if not, what is known on both sides is halved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

MOST = 2**20  # samples or tokens


class Fit(NamedTuple):
    """The most that fits, and the bytes that even the least lacks."""

    most: int
    missing: int


def largest(need: Callable[[int], int], size: int, *, least: int = 1, limit: int = MOST) -> Fit:
    """The largest number whose need fits into so many bytes.

    Args:
        need: bytes; more for a larger number, or as many.
        least, limit: the numbers that are asked about, both included.
    """
    known: dict[int, int] = {}

    def fits(number: int) -> bool:
        if number not in known:
            known[number] = need(number)
        return known[number] <= size

    if not fits(least):
        return Fit(0, known[least] - size)
    low, high = least, limit + 1  # fits, does not
    if low < limit:
        fits(min(limit, 2 * least + 1))
    halve = False
    while high - low > 1:
        (a, first), (b, last) = sorted(known.items())[-2:] if high > limit else ((low, known[low]), (high, known[high]))
        middle = (low + high) // 2
        if not halve:
            slope = (last - first) / (b - a)
            middle = int(a + (size - first) / slope) if slope else limit
        middle = max(low + 1, min(high - 1, middle))
        before = low, high
        if fits(middle):
            low = middle
            if middle + 1 < high and not halve and not fits(middle + 1):
                high = middle + 1
        else:
            high = middle
            if middle - 1 > low and not halve and fits(middle - 1):
                low = middle - 1
        halve = not halve and before[1] <= limit
    return Fit(low, 0)
