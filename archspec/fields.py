"""The fields of a node: expressions evaluated, values that vary by round picked, all checked by the kind's schema."""

from __future__ import annotations

import types as python_types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from archspec import expressions
from archspec.errors import Refused, did_you_mean
from archspec.kind import Kind
from archspec.moving import EXAMPLE, Moving, course, is_course, moving
from archspec.place import Broken
from archspec.problems import Problems
from archspec.scope import Scope
from archspec.source import Map, Seq

NODE_KEYS = ("kind", "name", "from", "when", "weights")
"""Keys that every node may have, beside the fields of its kind."""


class Fields(Problems):
    """Reads fields in a scope of numbers."""

    def values(self, raw: Map, kind: type[Kind], scope: Scope) -> dict[str, Any]:
        """The node's own fields, expressions evaluated; slots stay as they are."""
        mine = scope.child()
        values: dict[str, Any] = {}
        for key in kind.model_fields:
            if key not in raw:
                continue
            if key in kind.slots:
                values[key] = raw[key]
                continue
            values[key] = self.value(raw, key, shape_of(kind, key), mine, kind)
            if isinstance(values[key], (int, float)) and not isinstance(values[key], Moving):
                mine.values_[key] = values[key]
        for key in raw:
            if key not in kind.model_fields and key not in NODE_KEYS:
                self.unknown_field(raw, key, kind.model_fields, kind.name_)
        return values

    def value(
        self, container: Map | Seq, key: Any, shape: Shape, scope: Scope, kind: type[Kind] | None = None,
        field: str | None = None,
    ) -> Any:  # fmt: skip
        """The value at ``container[key]``; ``kind`` and ``field`` tell whose it is, where it is a field's own."""
        raw, field = container[key], field or key
        if by_round(raw):
            return self.value(*self.turn(raw, container, key, scope), shape, scope, kind, field)
        if isinstance(raw, str) and shape.numeric and raw not in shape.words and raw in scope:
            raw = scope[raw] if isinstance(scope[raw], Map) else raw  # a parameter that moves
        if is_course(raw):
            return self.moving(container, key, raw, shape, scope, kind, field)
        if isinstance(raw, Map) and raw.get("bind") == "call":
            self.problem(container, key, "bind: call is not implemented yet", "bind: step moves a number in training")
            raise Broken
        if isinstance(raw, Map) and ("from" in raw or "values" in raw) and kind is not None and field in kind.moves:
            self.problem(container, key, "a number that moves in training says bind: step", EXAMPLE)
            raise Broken
        if isinstance(raw, Map) and ("choose" in raw or "range" in raw):
            self.problem(container, key, "a choice belongs into a space", "start the file with archspace: 1")
            raise Broken
        if isinstance(raw, (int, float)) and not isinstance(raw, bool) and shape.boolean and not shape.numeric:
            self.problem(container, key, f"{raw} is not true or false")
            raise Broken
        if isinstance(raw, bool) and shape.numeric and not shape.boolean:
            self.problem(container, key, f"{str(raw).lower()} is not a {'whole ' if shape.whole else ''}number")
            raise Broken
        if isinstance(raw, str) and shape.numeric and raw not in shape.words:
            return self.evaluate(container, key, raw, scope, whole=shape.whole)
        if isinstance(raw, Map):
            return {name: raw[name] if name == "kind" else self.value(raw, name, shape.inner, scope) for name in raw}
        if isinstance(raw, Seq):
            return [self.value(raw, number, shape.inner, scope) for number in range(len(raw))]
        if isinstance(raw, float) and shape.whole and raw.is_integer():
            return int(raw)
        return raw

    def moving(
        self, container: Map | Seq, key: Any, raw: Map, shape: Shape, scope: Scope, kind: type[Kind] | None, field: str
    ) -> Moving:
        """A number that moves while the model trains, where it may."""
        if kind is None or field not in kind.moves:
            whose = f"{field} of {kind.name_}" if kind is not None and field in kind.model_fields else "this"
            may = ", ".join(sorted(kind.moves)) if kind is not None else ""
            hint = f"of {kind.name_}, {may} may" if kind is not None and may else "state one number"
            self.problem(container, key, f"{whose} cannot move in training", hint)
            raise Broken
        try:
            return moving(course(raw, lambda inside, at: self.value(inside, at, _NUMBER, scope), whole=shape.whole))
        except Refused as refused:
            self.refused(raw, refused)
            raise Broken from None

    def turn(self, raw: Map, container: Map | Seq, key: Any, scope: Scope) -> tuple[Seq, int]:
        """Where this round's value of an ``each:`` stands."""
        if "index" not in scope:
            self.problem(container, key, "each: needs rounds", "it belongs into the body of a repeat or loop")
            raise Broken
        listed: Seq = raw["each"]
        if len(listed) != scope["times"]:
            self.problem(raw, "each", f"{len(listed)} values for {scope['times']} rounds")
            raise Broken
        return listed, scope["index"]

    def evaluate(self, container: Map | Seq, key: Any, text: str, scope: Scope, whole: bool = False) -> Any:
        if text in scope and scope[text] == "absent":  # a parameter that is left open: the field is not said
            return None
        try:
            value = expressions.evaluate(text, scope)
        except expressions.ExpressionError as error:
            hint = did_you_mean(error.unknown, scope) if error.unknown else None
            self.problem(container, key, str(error), hint)
            raise Broken from None
        if whole and isinstance(value, float):
            if not value.is_integer():
                self.problem(container, key, f"{text!r} is {value:g}, not a whole number", f"try floor({text})")
                raise Broken
            value = int(value)
        return value

    def number_or_word(self, container: Map | Seq, key: Any, scope: Scope) -> Any:
        """An argument of a block: of an ``each:``, that of the round in which the block is called."""
        value = container[key]
        if by_round(value):
            return self.number_or_word(*self.turn(value, container, key, scope), scope)
        if isinstance(value, str):
            known = expressions.names(value)
            if value and known <= set(scope) and (known or value[0] in "-(0123456789"):
                return self.evaluate(container, key, value, scope)
        return value

    def validated(self, raw: Map, kind: type[Kind], values: dict[str, Any]) -> Kind:
        moves = {key: value for key, value in values.items() if isinstance(value, Moving)}
        try:
            if not moves:
                return kind.model_validate(values)
            values |= {key: value.course.final for key, value in moves.items()}
            for key, value in moves.items():
                for end in value.course.ends:
                    kind.model_validate(values | {key: end})
            made = kind.model_validate(values)
            made.__dict__.update(moves)
            return made
        except ValidationError as error:
            for detail in error.errors():
                self.invalid(raw, kind, detail)
            raise Broken from None


def by_round(raw: Any) -> bool:
    """Whether this is ``{each: [ … ]}``."""
    return isinstance(raw, Map) and set(raw) == {"each"} and isinstance(raw["each"], Seq)


class Shape:
    """What may stand in a field: numbers (then text is an expression), words, and what is inside a collection."""

    def __init__(self, annotation: Any) -> None:
        kinds = set(_flat(annotation))
        self.numeric = bool(kinds & {int, float})
        self.boolean = bool in kinds
        self.whole = int in kinds and float not in kinds
        self.words = {word for item in kinds if get_origin(item) is Literal for word in get_args(item)}
        self.numeric = self.numeric and str not in kinds
        self._annotation = annotation

    @property
    def inner(self) -> Shape:
        return self  # a collection of numbers takes expressions as its items


def _flat(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        yield from _flat(get_args(annotation)[0])
    elif origin in (typing.Union, python_types.UnionType, list, dict, tuple):
        for item in get_args(annotation):
            yield from _flat(item)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from _flat(field.annotation)
    else:
        yield annotation


@cache
def shape_of(kind: type[Kind], key: str) -> Shape:
    return Shape(kind.model_fields[key].annotation)


_NUMBER = Shape(int | float)
