"""The members that differ from one in a single decision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from archspec.errors import SpecError
from spaces.candidate import Candidate
from spaces.choices import Alternative, Code
from spaces.identity import identity
from spaces.ranges import Range

PORTIONS = 10  # into which a continuum is cut
TRIED = 1000  # assignments of what a decision lays open, before it counts as illegal


def neighbours(candidate: Candidate, *, reach: int | None = None) -> Iterator[Candidate]:
    """All members that differ in one decision, none twice; they are not elaborated.

    What the decision lays open (the choices under another option, the bodies of rounds that are added) takes its
    default, or what is nearest to the defaults and legal. A decision that breaks a constraint, whatever is chosen
    under it, has no neighbour. A continuum offers eleven numbers at equal distances, in the logarithm if it has one.

    Args:
        reach: how many steps a number goes in a range, both ways; all by default.
    """
    seen = {identity(candidate.tree)}
    for number, code in enumerate(candidate.codes):
        if code is None:
            continue
        node = candidate.space.slots[number].node
        others = _numbers(node, code, reach) if isinstance(node, Range) else range(len(node.options))
        for other in others:
            if other == code or (found := _changed(candidate, number, other)) is None:
                continue
            key = identity(found.tree)
            if key not in seen:
                seen.add(key)
                yield found


def _numbers(node: Range, code: int | float, reach: int | None) -> list[int | float]:
    if node.count is None:
        spaced = np.geomspace if node.log else np.linspace
        near = [node.nearest(float(number)) for number in spaced(node.low, node.high, PORTIONS + 1)]
        return [number for number in near if number is not None]
    position = round((code - node.low) / (node.step or 1))
    low = 0 if reach is None else max(0, position - reach)
    return [
        node.at(number) for number in range(low, node.count if reach is None else min(node.count, position + reach + 1))
    ]


def _changed(candidate: Candidate, changed: int, code: Code) -> Candidate | None:
    """The candidate with another code in one slot; None if no constraint allows it."""
    slots, codes = candidate.space.slots, candidate.codes
    turned: list[int] = []  # for each choice that was laid open, in their order: its position counted from the default

    for _ in range(TRIED):
        met: list[int] = []  # how many values each has

        def pick(number: int, met: list[int] = met) -> Code:
            if number == changed:
                return code
            if codes[number] is not None:
                return codes[number]
            node = slots[number].node
            values = len(node.options) if isinstance(node, Alternative) else node.count or 1
            met.append(values)
            if len(met) > len(turned):
                turned.append(0)
            return _turned(node, turned[len(met) - 1])

        try:
            return candidate.space.walk(pick)
        except SpecError:
            del turned[len(met) :]
            while turned and turned[-1] + 1 >= met[len(turned) - 1]:
                turned.pop()
            if not turned:
                return None
            turned[-1] += 1
    return None


def _turned(node: Range | Alternative, turn: int) -> Code:
    """The default, and then the others after it."""
    if isinstance(node, Alternative):
        return (node.default + turn) % len(node.options)
    if node.count is None:
        return node.default
    start = round((node.default - node.low) / (node.step or 1))
    return node.at((start + turn) % node.count)
