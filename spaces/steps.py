"""Another value in place of one, a near one more often than a far one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spaces.ranges import Range
from spaces.tables import Indices, Vectors

FINEST = 1e-3  # of a continuum, in parts of what lies on that side


def of_range(generator: np.random.Generator, node: Range, numbers: Vectors) -> Vectors:
    """Other numbers of a range; one ``d`` steps away about as often as ``1 / d``."""
    low, high = float(node.low), float(node.high)
    if node.count == 1 or low == high:
        return numbers
    if node.count is not None and not node.log:
        step = float(node.step or 1)
        places = _positions(generator, np.rint((numbers - low) / step), node.count)
        if node.whole:
            return np.asarray(low + places * step, dtype=np.float64)
        distinct, inverse = np.unique(places, return_inverse=True)
        return np.array([node.at(int(place)) for place in distinct])[inverse]
    # A continuum or a logarithm: the distance is drawn evenly in its own logarithm.
    start, end, place = (np.log(low), np.log(high), np.log(numbers)) if node.log else (low, high, numbers)
    up = _upwards(generator, place - start, end - place)
    span = np.where(up, end - place, place - start) * FINEST ** generator.random(len(numbers))
    moved = place + np.where(up, span, -span)
    moved = np.exp(moved) if node.log else moved
    if node.whole:
        moved = np.rint(moved)
        moved = np.where(moved == numbers, numbers + np.where(up, 1, -1), moved)
    return np.clip(moved, low, high)


def of_options(generator: np.random.Generator, legal: Indices, chosen: Indices, order: Vectors | None) -> Indices:
    """Other options among the legal ones; of options with an order, a near one more often.

    Args:
        chosen: options that are left; they need not be legal.
        order: the number that each option stands for, None where options have no order.
    """
    if order is None:
        place = np.searchsorted(legal, chosen)
        known = legal[np.minimum(place, len(legal) - 1)] == chosen
        others = np.maximum(len(legal) - known, 1)
        drawn = np.floor(generator.random(len(chosen)) * others).astype(np.intp)
        other: Indices = legal[np.minimum(drawn + (known & (drawn >= place)), len(legal) - 1)]
        return other
    ordered: Indices = legal[np.argsort(order[legal], kind="stable")]
    place = np.minimum(np.searchsorted(order[ordered], order[chosen]), len(ordered) - 1)
    known = ordered[place] == chosen
    moved = _positions(generator, place.astype(np.float64), len(ordered)) if len(ordered) > 1 else place
    found: Indices = ordered[np.where(known, moved, place)]
    return found


def _positions(generator: np.random.Generator, place: Vectors, count: int) -> Indices:
    """Other positions from 0 to ``count - 1``."""
    up = _upwards(generator, place, count - 1 - place)
    span = np.where(up, count - 1 - place, place)
    far = np.minimum(np.floor((span + 1) ** generator.random(len(place))), span)
    return np.asarray(place + np.where(up, far, -far), dtype=np.intp)


def _upwards(generator: np.random.Generator, below: Vectors, above: Vectors) -> NDArray[np.bool_]:
    """Either side alike where both have something."""
    return np.where((below > 0) & (above > 0), generator.random(len(below)) < 0.5, above > 0)
