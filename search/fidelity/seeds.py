"""Several seeds for the few that matter: means with their errors, and who deserves another seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.special import stdtrit

SURE = 0.975  # of a difference's sign: beyond that one candidate counts as better


class Noise(NamedTuple):
    """A standard deviation between seeds, and the degrees of freedom that it was estimated with."""

    deviation: float
    freedom: int


@dataclass(frozen=True)
class Mean:
    """A mean over seeds. ``error`` is its standard error; None while the noise is not known."""

    mean: float
    count: int
    error: float | None


def noise(values: Sequence[Sequence[float]]) -> Noise | None:
    """The noise of one candidate's seeds, pooled over all that have several.

    Args:
        values: for each candidate, a figure for each seed.

    Returns:
        None if nobody has two.
    """
    freedom = sum(len(each) - 1 for each in values if each)
    if not freedom:
        return None
    squares = sum((value - sum(each) / len(each)) ** 2 for each in values for value in each)
    return Noise(math.sqrt(squares / freedom), freedom)


def means(values: Mapping[str, Sequence[float]]) -> dict[str, Mean]:
    """The mean of each candidate; the error comes from the pooled noise, for one seed says nothing of its own."""
    spread = noise(list(values.values()))
    return {
        key: Mean(sum(each) / len(each), len(each), spread and spread.deviation / math.sqrt(len(each)))
        for key, each in values.items()
    }


def deserving(
    paid: Mapping[str, Sequence[float]], exact: Mapping[str, Sequence[float]], *, most: int, least: int = 2
) -> list[str]:
    """Who should get another seed, the first in need first: those that may be on the front.

    A candidate is off the front when one that costs no more in any exact objective is surely better, by Student's t.
    While the noise is unknown, only those on the front of the means count.

    Args:
        paid: for each finished candidate the objective of each seed, minimised.
        exact: its other objectives, minimised.
        most: seeds that a candidate gets at most.
        least: seeds that everyone deserving has before anyone gets more.
    """
    found = means(paid)
    spread = noise(list(paid.values()))
    sure = float(stdtrit(spread.freedom, SURE)) if spread else 0.0

    def beaten(key: str) -> bool:
        mine = found[key]
        for other, theirs in found.items():
            cheaper = all(a <= b for a, b in zip(exact[other], exact[key], strict=True))
            if other == key or not cheaper:
                continue
            error = math.hypot(theirs.error or 0.0, mine.error or 0.0)
            if theirs.mean < mine.mean - sure * error:
                return True
        return False

    near = [key for key in paid if found[key].count < most and not beaten(key)]
    unsettled = [key for key in near if found[key].count < least or _rivals(key, near, found, exact, sure)]
    return sorted(unsettled, key=lambda key: found[key].count)


def _rivals(
    key: str, near: Sequence[str], found: Mapping[str, Mean], exact: Mapping[str, Sequence[float]], sure: float
) -> bool:
    """Whether another one would take its place, or lose its own, within the noise."""
    mine = found[key]
    for other in near:
        theirs = found[other]
        apart = abs(theirs.mean - mine.mean) >= sure * math.hypot(theirs.error or 0.0, mine.error or 0.0)
        pairs = list(zip(exact[other], exact[key], strict=True))
        tied = all(a <= b for a, b in pairs) or all(a >= b for a, b in pairs)
        if other != key and tied and not apart:
            return True
    return False
