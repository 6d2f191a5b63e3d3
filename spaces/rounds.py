"""How many rounds a repeat can have in which every round chooses for itself."""

from __future__ import annotations

from archspec.errors import Refused, did_you_mean
from archspec.expressions import ExpressionError, names
from spaces.choices import Constant, Node, leaves
from spaces.constraints import bindings, number
from spaces.dims import LIMIT, Dims, texts
from spaces.members import Numbers
from spaces.ranges import Range

MAX_ROUNDS = 4096


def most_rounds(times: Node, dims: Dims) -> tuple[tuple[str, ...], int]:
    """The dims that decide the number of rounds, and the largest number of rounds.

    Errors:
        Refused: the number is not known before elaboration, is no number of rounds, or too large.
    """
    written = [times.value] if isinstance(times, Constant) and isinstance(times.value, str) else texts(times)
    _, read, unbound = bindings([name for text in written for name in names(text)], {}, dims.names)
    if unbound:
        name = min(unbound)
        hint = did_you_mean(name, dims.names) or "write a number, a choice, or an expression over dims"
        raise Refused("times", f"vary: each must know its rounds, and no dim is called {name!r}", hint)
    count = dims.count(read)
    if count is None or count > LIMIT:
        raise Refused("times", f"the number of rounds depends on more than {LIMIT:,} combinations of dims")
    most = 0
    for _, values in dims.combinations(read):
        for item in leaves(times):
            most = max(most, _rounds(item, values))
    if most > MAX_ROUNDS:
        raise Refused("times", f"{most} rounds are more than {MAX_ROUNDS:,}")
    return tuple(sorted(read)), most


def _rounds(item: object, dims: Numbers) -> int:
    """The number of rounds that a value of ``times`` means; the largest, for a range."""
    shown = item
    if isinstance(item, Range):
        shown, item = f"a range from {item.low}", item.value(item.high if item.low >= 0 else item.low, dims)
    try:
        found = number("times", {"times": item}, dims)
    except ExpressionError:
        found = -1
    if found < 0 or found % 1 or isinstance(found, bool):
        raise Refused("times", f"{shown} is no number of rounds", "a whole number")
    return int(found)
