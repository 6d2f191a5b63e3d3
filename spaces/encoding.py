"""Candidates as numeric vectors of one length, one entry for each slot of the space.

An entry is the position of an option or the drawn number of a range, and NaN where the choice is not reached.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from archspec.errors import Problem, SpecError
from spaces.candidate import Candidate
from spaces.choices import Code
from spaces.ranges import Range
from spaces.sampling import Unlucky
from spaces.space import Space

Vectors = NDArray[np.float64]


def encode(candidate: Candidate) -> Vectors:
    """The vector of a candidate, ``[slots]``."""
    return np.array([math.nan if code is None else code for code in candidate.codes], dtype=np.float64)


def encode_all(candidates: Sequence[Candidate]) -> Vectors:
    """The vectors of candidates, ``[candidates, slots]``."""
    assert candidates
    return np.array(
        [[math.nan if code is None else code for code in one.codes] for one in candidates], dtype=np.float64
    )


def decode(space: Space, vector: Vectors) -> Candidate:
    """The candidate of a vector.

    Errors:
        SpecError: an entry is no option, not in its range, missing, given for a choice that is not reached, or breaks
            a constraint.
    """
    entries: list[float] = np.asarray(vector, dtype=np.float64).tolist()
    if len(entries) != len(space.slots):
        raise SpecError(Problem(f"a vector of {len(entries)} entries for {len(space.slots)} choices"))
    reached = set()

    def pick(number: int) -> Code:
        node, entry = space.slots[number].node, entries[number]
        reached.add(number)
        code: Code = None
        if isinstance(node, Range):
            code = node.nearest(entry)
        elif entry.is_integer() and 0 <= entry < len(node.options):
            code = int(entry)
        if code is None:
            raise SpecError(Problem(f"entry {entry} cannot be chosen here", None, space.slots[number].path, node.mark))
        return code

    candidate = space.walk(pick)
    for number, entry in enumerate(entries):
        if number not in reached and not math.isnan(entry):
            raise SpecError(Problem("this choice is not reached by the others", None, space.slots[number].path))
    return candidate


def sample_encoded(space: Space, generator: np.random.Generator, count: int) -> Vectors:
    """Vectors of random candidates that keep the constraints between their choices, ``[count, slots]``.

    Columns are contiguous in memory.

    Errors:
        SpecError: the space has no member.
    """
    try:
        return space.vectors.draw(generator, count)
    except Unlucky:
        raise space.no_member() from None
