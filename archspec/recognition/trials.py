"""Trying configurations of a family against the form that is looked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from archspec.errors import Refused, SpecError
from archspec.family import Family, family
from archspec.recognition.forms import Difference, Form, Item, differences, form
from archspec.recognition.origins import Leaf, Origins
from archspec.template import TemplateError

EFFORT = 40_000  # nodes that are looked at
WEIGHTS = {"item": 10.0, "kind": 8.0, "field": 1.0, "read": 1.0, "shape": 0.05, "free": 1e-3}


@dataclass
class Try:
    """A configuration, the form that it stands for, and in what that differs from the one that is looked for."""

    config: dict[str, Any]
    form: Form
    left: list[Difference]
    cost: float


class Trials:
    """Configurations of a family, each tried once.

    Attributes:
        hints: for the names of fields, values that the templates show.
        spent: what the trials have cost, of `EFFORT`.
    """

    def __init__(self, family: Family, target: Form) -> None:
        self.family, self.target = family, target
        self.origins = origins_of(family.name)
        self.hints = self.origins.hints(values_of(target))
        self.tried: dict[str, Try | None] = {}
        self.spent = 0

    def trial(self, config: Mapping[str, Any]) -> Try | None:
        """What a configuration stands for; None if that cannot be said."""
        key = repr(sorted(config.items()))
        if key not in self.tried:
            found = self.tried[key] = self._trial(config) if self.spent < EFFORT else None
            self.spent += 20 if found is None else 30 + sum(1 for _ in items_of(found.form))
        return self.tried[key]

    def _trial(self, config: Mapping[str, Any]) -> Try | None:
        try:
            found = form(self.family.sketch(config))
        except (SpecError, Refused, TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError):
            return None
        left = differences(found, self.target)
        cost = sum(
            WEIGHTS[one.what] * (1 + min(one.count, 200) * (0.1 if one.what == "item" else 0.01)) for one in left
        )
        return Try(dict(config), found, left, cost)

    def leaves(self, config: Mapping[str, Any]) -> list[Leaf]:
        """The fields that decide something, and the entries of those that are mappings."""
        found: list[Leaf] = []
        extra: Iterator[Leaf]

        def walk(leaf: Leaf, value: Any) -> None:
            if isinstance(value, Mapping):
                for key, inner in value.items():
                    walk((*leaf, key), inner)
            else:
                found.append(leaf)

        for key, default in self.family.config.items():
            if key in self.family.used:
                walk((key,), config.get(key, default))
                if isinstance(default, dict):
                    known = (*default, *config.get(key, ()))
                    extra = ((key, word) for word in sorted(self.origins.entries - set(known)) if self.hints.get(word))
                    found += extra
        return found

    def value(self, leaf: Leaf, config: Mapping[str, Any]) -> Any:
        value: Any = {**self.family.config, **config}
        for key in leaf:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def put(self, leaf: Leaf, value: Any, config: Mapping[str, Any]) -> dict[str, Any]:
        if len(leaf) > 1:
            whole = self.value(leaf[:-1], config)
            return self.put(leaf[:-1], {**(whole if isinstance(whole, Mapping) else {}), leaf[-1]: value}, config)
        result = {**config, leaf[0]: value}
        if value == self.family.config[leaf[0]] and type(value) is type(self.family.config[leaf[0]]):
            del result[leaf[0]]
        return result

    def kind(self, leaf: Leaf) -> str | None:
        """What values a field takes."""
        default = self.value(leaf, {})
        named = {bool: "flag", int: "integer", float: "number", str: "word", list: "list"}.get(type(default))
        return named or (self.family.types.get(leaf[0]) if len(leaf) == 1 else None)

    def fits(self, leaf: Leaf, value: Any) -> bool:
        kind = self.kind(leaf)
        if isinstance(value, bool):
            return kind in ("flag", None)
        if isinstance(value, int):
            return kind in ("integer", "number", None)
        return kind in ({float: "number", str: "word", list: "list"}.get(type(value)), None)

    @cached_property
    def words(self) -> list[str]:
        """Words that the family knows and that may stand for something of the spec."""
        said = {str(value) for values in values_of(self.target).values() for value in values} | kinds_of(self.target)
        return [word for word, meant in self.origins.words.items() if meant in (None, {})
                or (meant.get("kind") if isinstance(meant, dict) else meant) in said]  # fmt: skip


@cache
def origins_of(name: str) -> Origins:
    return Origins(family(name))


def items_of(form: Form) -> Iterator[Item]:
    for item in form.items:
        yield item
        for body in item.bodies.values():
            yield from items_of(body)


def kinds_of(form: Form) -> frozenset[str]:
    return frozenset(item.kind for item in items_of(form))


def values_of(form: Form) -> dict[tuple[str, str], list[Any]]:
    """The values of all fields, by kind and field, and by field alone."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def add(kind: str, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, dict):
                add(str(value.get("kind", kind)), value)
            else:
                for key in ((kind, name), ("", name)):
                    found.setdefault(key, {})[repr(value)] = value

    for item in items_of(form):
        add(item.kind, item.fields)
        add(item.kind, item.free)
        for name, value in item.free.items():
            if name.startswith("init."):
                add(str(item.free["init.kind"]), {name.removeprefix("init."): value})
            if name.startswith("then."):
                add(name.removeprefix("then."), {"rate": value})
    return {key: list(values.values()) for key, values in found.items()}


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
