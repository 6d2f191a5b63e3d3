"""In what two architectures differ: nodes, fields, types. How they are written is no part of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, Literal

from archspec.graph import Graph, Node, fields
from archspec.show import digest, numbers, says, shown
from archspec.spec import Spec

What = Literal["changed", "added", "removed", "type"]


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        path: where, as ``layers.0-5.channel``; empty for the spec as a whole.
        what: a field that ``changed``, a node that was ``added`` or ``removed``, the ``type`` of an input or output.
        field: of the node, such as ``hidden`` or ``from``.
        old, new: the values; None where there was or is none.
    """

    path: str
    what: What
    field: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.what == "added":
            return f"{self.path}: added {self.new}"
        if self.what == "removed":
            return f"{self.path}: removed {self.old}"
        return f"{self.path or 'spec'}: {self.field} {shown(self.old)} → {shown(self.new)}"


def diff(old: Spec, new: Spec) -> list[Change]:
    """All differences; those that are the same in neighbouring rounds are told once."""
    changes = list(_fields("interface", _told(old.interface), _told(new.interface)))
    changes += _fields("init", old.init, new.init)
    changes += _types("input", _texts(old.graph.inputs), _texts(new.graph.inputs))
    changes += _graphs(old.graph, new.graph, "")
    changes += _types("output", _texts(old.graph.types), _texts(new.graph.types))
    return changes


def verdict(old: Spec, new: Spec) -> str:
    """How much two specs have in common, in one sentence."""
    if old.full == new.full:
        return "identical: same structure and same full hash"
    if old.structure == new.structure:
        return "same structure, differs in initialisation, rates, numbers that move or training-only nodes"
    return "different structures"


def _graphs(old: Graph, new: Graph, path: str) -> Iterator[Change]:
    if old.digest("full") == new.digest("full"):
        return
    pairs = _paired(old.nodes, new.nodes)
    called = {a.name: b.name for a, b in pairs if a is not None and b is not None}
    for name, other in zip(list(old.inputs)[: old.given], list(new.inputs)[: new.given], strict=False):
        called[name] = other
    for a, b in pairs:
        if a is None:
            assert b is not None
            yield Change(_below(path, b.name), "added", "", None, _summary(b))
        elif b is None:
            yield Change(_below(path, a.name), "removed", "", _summary(a), None)
        else:
            yield from _nodes(a, b, _below(path, a.name), called)


def _paired(old: list[Node], new: list[Node]) -> list[tuple[Node | None, Node | None]]:
    """Nodes that correspond: first those that are alike, then, between these, by name, then by kind, then by place."""
    keys = [[digest(node) for node in nodes] for nodes in (old, new)]
    pairs: list[tuple[Node | None, Node | None]] = []
    for what, start, stop, start_, stop_ in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        before, after = old[start:stop], list(new[start_:stop_])
        if what == "equal":
            pairs += zip(before, after, strict=True)
            continue
        found: dict[int, Node] = {}
        for same in (_same_name, _same_kind):
            for node in before:
                match = next((other for other in after if same(node, other)), None)
                if id(node) not in found and match is not None:
                    found[id(node)] = match
                    after.remove(match)
        if len(after) == sum(id(node) not in found for node in before) == 1:
            alone = next(node for node in before if id(node) not in found)
            found[id(alone)] = after.pop()
        pairs += [(node, found.get(id(node))) for node in before]
        pairs += [(None, node) for node in after]
    return pairs


def _same_name(a: Node, b: Node) -> bool:
    return a.name == b.name


def _same_kind(a: Node, b: Node) -> bool:
    return a.kind.name_ == b.kind.name_


def _nodes(old: Node, new: Node, path: str, called: Mapping[str, str]) -> Iterator[Change]:
    if old.kind.name_ != new.kind.name_:
        yield Change(path, "changed", "kind", _summary(old), _summary(new))
    else:
        yield from _fields(path, fields(old.kind) | numbers(old), fields(new.kind) | numbers(new))
        roles = {role: (_plan(old, role), _plan(new, role)) for role in (*old.matrices, *new.matrices)}
        for role, (before, after) in roles.items():
            if before != after:
                yield Change(f"{path}.{role}", "changed", "matrix", before, after)
        yield from _bodies(old, new, path, called)
    streams: list[tuple[str, Any, Any]] = [
        ("from", [_renamed(str(ref), called) for ref in old.inputs], [str(ref) for ref in new.inputs]),
        ("when", old.when, new.when),
        ("weights", _renamed(old.shares or "", called), new.shares or ""),
        ("table", old.tied, new.tied),
        *((slot, old.streams.get(slot), new.streams.get(slot)) for slot in {**old.streams, **new.streams}),
    ]
    for field, told, tells in streams:
        if told != tells:
            yield Change(path, "changed", field, _one(told), _one(tells))


def _bodies(old: Node, new: Node, path: str, called: Mapping[str, str]) -> Iterator[Change]:
    ranged: dict[str, list[tuple[int, list[Change]]]] = {}
    for slot in dict.fromkeys((*old.bodies, *new.bodies)):
        before, after = old.bodies.get(slot), new.bodies.get(slot)
        field, _, item = slot.partition(".")
        place = f"{path}.{item}" if field == "rounds" else f"{path}.{slot}"
        found: list[Change]
        if before is None or after is None:
            one = before or after
            assert one is not None
            told = _body_summary(one)
            found = [
                Change(place, "added", "", None, told) if before is None else Change(place, "removed", "", told, None)
            ]
        elif before.single is not None and after.single is not None:
            found = list(
                _nodes(before.single, after.single, place, dict(zip(before.inputs, after.inputs, strict=False)))
            )
        else:
            found = list(_graphs(before, after, place))
        if item.isdigit():
            ranged.setdefault(field, []).append((int(item), found))
        else:
            yield from found
    for field, rounds in ranged.items():
        stem = path if field == "rounds" else f"{path}.{field}"
        yield from _folded(stem, rounds)


def _folded(stem: str, rounds: list[tuple[int, list[Change]]]) -> Iterator[Change]:
    """Changes that are the same in neighbouring rounds, once, with the range of the rounds."""
    told: dict[str, tuple[Change, list[int]]] = {}  # by what is said, since a value may be a mapping
    for number, changes in rounds:
        for change in changes:
            rest = replace(change, path=change.path.removeprefix(f"{stem}.{number}"))
            told.setdefault(repr(rest), (rest, []))[1].append(number)
    for change, places in told.values():
        for _, run in groupby(enumerate(places), key=lambda item: item[1] - item[0]):
            members = [number for _, number in run]
            span = str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}"
            yield replace(change, path=f"{stem}.{span}{change.path}")


def _fields(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        if old.get(name) != new.get(name):
            yield Change(path, "changed", name, old.get(name), new.get(name))


def _types(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    """Streams that correspond by name, the others in their order; what an only one is called makes no difference."""
    left = [name for name in new if name not in old]
    for name, before in old.items():
        other = name if name in new else left.pop(0) if left else None
        if other is None:
            yield Change(f"{what} {name}", "removed", "", before, None)
            continue
        if other != name and len(old) + len(new) > 2:
            yield Change(f"{what} {name}", "changed", "name", name, other)
        if new[other] != before:
            yield Change(f"{what} {other}", "type", "type", before, new[other])
    for name in left:
        yield Change(f"{what} {name}", "added", "", None, new[name])


def _texts(streams: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(stream) for name, stream in streams.items()}


def _told(kind: Any) -> dict[str, Any]:
    return {"kind": kind.name_, **fields(kind)}


def _plan(node: Node, role: str) -> str | None:
    found = node.matrices.get(role)
    return None if found is None else "linear" if found[1] is None else _summary(found[1])


def _summary(node: Node) -> str:
    told = says(node)
    return f"{node.kind.name_} ({told})" if told else node.kind.name_


def _body_summary(body: Graph) -> str:
    return " → ".join(_summary(node) for node in body.nodes)


def _renamed(text: str, called: Mapping[str, str]) -> str:
    head, dot, rest = text.partition(".")
    return called.get(head, head) + dot + rest


def _one(value: Any) -> Any:
    if isinstance(value, list):
        return value[0] if len(value) == 1 else value
    return value or None


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
