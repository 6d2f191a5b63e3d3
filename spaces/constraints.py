"""``where: width % heads == 0``: what must hold between the choices of one mapping and the dims.

A constraint whose names are all bound by fields beside it and by dims is checked here, before a spec exists; one that
reads more (``width_in``, the size of an axis) is checked on the elaborated candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from archspec.errors import Mark, Problem, did_you_mean
from archspec.expressions import ExpressionError, Number, evaluate, names


@dataclass(frozen=True, eq=False)
class Constraint:
    """One ``where``.

    Attributes:
        fields: the fields beside it that it reads, also through their expressions.
        dims: the dims that it reads, also through fields.
        local: nothing else is read.
    """

    text: str
    path: str
    mark: Mark | None
    fields: tuple[str, ...]
    dims: tuple[str, ...]
    local: bool

    def broken(self, fields: Mapping[str, Any], dims: Mapping[str, Number]) -> Problem | None:
        """What is wrong with these values; None where the constraint holds."""
        try:
            if evaluate(self.text, {name: number(name, fields, dims) for name in names(self.text)}):
                return None
        except ExpressionError as error:
            hint = did_you_mean(error.unknown, {*fields, *dims, "width_in"}) if error.unknown else None
            return Problem(f"`{self.text}` cannot be told: {error}", hint, self.path, self.mark)
        return self.refusal(fields, dims)

    def refusal(self, fields: Mapping[str, Any], dims: Mapping[str, Number]) -> Problem:
        shown = ", ".join(f"{name} {number(name, fields, dims)}" for name in sorted(names(self.text)))
        return Problem(f"`{self.text}` does not hold", f"here {shown}" if shown else None, self.path, self.mark)


def number(
    name: str, fields: Mapping[str, Any], dims: Mapping[str, Number], busy: frozenset[str] = frozenset()
) -> Number:
    """The number that a name means among fields, whose values may be expressions, and dims.

    Errors:
        ExpressionError: nobody binds the name, or what it is bound to is no number.
    """
    if name in fields and name not in busy:
        value = fields[name]
        if isinstance(value, (int, float)):
            return value
        if isinstance(value, str):
            return evaluate(value, {inner: number(inner, fields, dims, busy | {name}) for inner in names(value)})
        raise ExpressionError(f"{name} is no number here", unknown=name)
    if name in dims:
        return dims[name]
    raise ExpressionError(f"nothing here is called {name!r}", unknown=name)


def bindings(
    wanted: Collection[str], texts: Mapping[str, Collection[str]], dims: Collection[str]
) -> tuple[set[str], set[str], set[str]]:
    """Which fields, dims and unbound names are read by the wanted names.

    Args:
        texts: for each field, all expressions that may stand there.
        dims: names of the dims.
    """
    fields, used, unbound = set(), set(), set()
    stack = [(name, frozenset[str]()) for name in wanted]
    while stack:
        name, busy = stack.pop()
        if name in texts and name not in busy:
            fields.add(name)
            stack += [(inner, busy | {name}) for text in texts[name] for inner in names(text)]
        elif name in dims:
            used.add(name)
        else:
            unbound.add(name)
    return fields, used, unbound
