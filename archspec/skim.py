"""What can be said of a body whose input type is unknown, because the node before it failed.

Unknown kinds and fields, and values of the wrong type or range, are problems wherever they stand; so a file is mended
in one go. Expressions are not evaluated here: what they read may depend on the failed node.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from archspec import expressions
from archspec.fields import NODE_KEYS, by_round, shape_of
from archspec.kind import Kind, Slot, lookup
from archspec.ordering import Ordering
from archspec.place import Broken
from archspec.scope import Scope
from archspec.source import Map, Seq


class Skimming(Ordering):
    """Looks over nodes without typing them."""

    def skim(self, container: Map | Seq, key: Any, scope: Scope, slot: Slot | None) -> None:
        """Reports what is wrong by itself in the node or body at ``container[key]``."""
        try:
            raw, scope = self.unfold(_first_round(container[key]), container, key, scope)
        except Broken:
            return
        if isinstance(raw, Seq):
            for number in range(len(raw)):
                self.skim(raw, number, scope, None)
        elif isinstance(raw, Map) and isinstance(raw.get("graph"), Seq):
            self.skim(raw, "graph", scope, None)
        elif isinstance(raw, Map) and isinstance(raw.get("kind"), str):
            self.skim_node(raw, scope, slot)
        elif isinstance(raw, Map) and slot is not None and (slot.named or slot.many):
            for name in raw if slot.named else raw.keys() & {"body"}:  # of experts, only the body is a node
                self.skim(raw, name, scope, None)
        elif (
            isinstance(raw, str)
            and lookup(raw) is None
            and not (slot and slot.stream)
            and raw not in ("absent", "last")
        ):
            self.skim_node(self.as_map(raw, container, key), scope, slot)

    def skim_node(self, raw: Map, scope: Scope, slot: Slot | None) -> None:
        """Reports an unknown kind, unknown fields and literal values that do not fit, here and in the slots."""
        kind = lookup(raw["kind"])
        if kind is None:
            self.unknown_kind(raw, slot, [])
            return
        known = [*kind.model_fields, *NODE_KEYS]
        for key in raw:
            if key not in known and key != "where":
                self.unknown_field(raw, key, kind.model_fields, kind.name_)
        literal = {key: raw[key] for key in kind.plain if key in raw and _literal(raw[key])}
        for key in kind.plain:
            shape = shape_of(kind, key)
            if isinstance(raw.get(key), str) and shape.numeric and raw[key] not in shape.words:
                cause = expressions.fault(raw[key])
                if cause:
                    self.problem(raw, key, cause)
        slots = {key: raw[key] for key in kind.slots if key in raw}
        try:
            kind.model_validate({**slots, **literal})
        except ValidationError as error:
            for detail in error.errors():
                if detail["type"] != "missing" and detail["loc"] and detail["loc"][0] in literal:
                    self.invalid(raw, kind, detail)
        self.skim_slots(raw, kind, scope)

    def skim_slots(self, raw: Map, kind: type[Kind], scope: Scope) -> None:
        """Looks over the bodies of a node."""
        for field, slot in kind.slots.items():
            if raw.get(field) is not None:
                self.skim(raw, field, scope, slot)


def _first_round(raw: Any) -> Any:
    """A call of a block as it is in the first of rounds, of which nothing is known here."""
    varying = [key for key in raw if by_round(raw[key]) and raw[key]["each"]] if isinstance(raw, Map) else []
    if not varying:
        return raw
    first = raw.move(*raw)
    first.update({key: raw[key]["each"][0] for key in varying})
    return first


def _literal(value: Any) -> bool:
    """Whether a value is what it is, and no expression."""
    if isinstance(value, (list, dict)):
        return all(map(_literal, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, str)
