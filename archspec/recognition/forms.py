"""What a spec computes, however it is written: its form.

Lists in lists and repeats are one list of items, edges are told by their distance, names are left out but kept beside.
Two specs of equal forms compute the same with the same weights; walked side by side, they tell which is which.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import cached_property
from hashlib import blake2b
from typing import Any

from archspec.graph import Graph, Node, Ref, settled
from archspec.spec import Spec

Token = tuple[Any, ...]
"""A stream: ``("in", number, …)`` of an input, ``("item", number, …)`` of an item, with its port and span."""


@dataclass(eq=False)
class Item:
    """A node that is more than a list.

    Attributes:
        name: its logical name (`compiler.logical`) below that of the form.
        fields: what is computed.
        free: rates and initialisation.
        reads: the streams that it and its bodies read.
        shapes: of its outputs and matrices; they follow from the fields and what it reads.
        bodies: by slot.
    """

    name: str
    kind: str
    fields: dict[str, Any]
    free: dict[str, Any]
    reads: dict[str, Token]
    shapes: dict[str, Any]
    bodies: dict[str, Form]

    @cached_property
    def label(self) -> str:
        """Its kind and those of its bodies."""
        inner = [item.kind for body in self.bodies.values() for item in body.items]
        return f"{self.kind}({', '.join(inner)})" if inner else self.kind

    def near(self, number: int) -> dict[str, Any]:
        """The streams that it reads, by their distance from its place."""
        return {slot: [token[0], token[1] - number if token[0] == "item" else token[1], *token[2:]]
                for slot, token in self.reads.items()}  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """A hash of all but its name and the streams that it reads."""
        inner = {slot: body.digest for slot, body in self.bodies.items()}
        return _hash([self.kind, self.fields, self.free, self.shapes, inner])


@dataclass(eq=False)
class Form:
    """Items in an order in which they can be computed.

    Attributes:
        inputs: their types.
        outputs: the streams that come out.
        free: rates at which what comes in is dropped.
        alone: the name of the only node, which does not show in the logical names of what is in a slot.
    """

    inputs: list[str]
    items: list[Item]
    outputs: list[Token]
    free: dict[str, Any] = field(default_factory=dict)
    alone: str = ""

    @cached_property
    def digests(self) -> list[str]:
        return [_hash([item.digest, item.near(number)]) for number, item in enumerate(self.items)]

    @cached_property
    def digest(self) -> str:
        return _hash([self.inputs, self.digests, [self._end(token) for token in self.outputs], self.free])

    def _end(self, token: Token) -> list[Any]:
        return [token[0], token[1] - len(self.items) if token[0] == "item" else token[1], *token[2:]]

    def ends(self) -> list[list[Any]]:
        """The outputs, counted from the end."""
        return [self._end(token) for token in self.outputs]

    def named(self, prefix: str = "", without: str = "") -> Iterator[str]:
        """Logical names of the items and of those in their bodies, in one order for all specs of this form."""
        for item in self.items:
            own = item.name.removeprefix(without).lstrip(".") if without else item.name
            name = ".".join(part for part in (prefix, own) if part)
            yield name
            for slot, body in item.bodies.items():
                if item.kind == "sequence":
                    yield from body.named(name)
                elif slot.startswith("rounds."):
                    yield from body.named(f"{name}.{slot.removeprefix('rounds.')}")
                else:
                    yield from body.named(f"{name}.{slot}", body.alone)


@dataclass(frozen=True)
class Difference:
    """Where two forms differ.

    Attributes:
        path: kinds and slots from the outermost item, then the field.
        old, new: the values; None where there is none.
        what: a ``field``, a ``free`` one, a stream that is ``read``, a ``shape`` that follows from others, an item of
            another ``kind``, or an ``item`` that only one has.
        count: in how many places.
    """

    path: str
    old: Any
    new: Any
    what: str = "field"
    count: int = 1


def form(spec: Spec) -> Form:
    """The form of a spec."""
    made = _Reader().form(spec.graph)
    interface = spec.interface.model_dump(by_alias=True, exclude_none=True)
    free: dict[str, Any] = {
        name: interface.pop(name) for name in ("length", "source_length", "entries") if name in interface
    }
    free |= {f"init.{name}": value for name, value in spec.init.items()}
    head = Item("", spec.interface.name_, interface, free, {}, {}, {})
    return Form(made.inputs, [head, *(replace(item, reads={s: _moved(t, 1) for s, t in item.reads.items()})
                                      for item in made.items)],
                [_moved(token, 1) for token in made.outputs], made.free)  # fmt: skip


def _moved(token: Token, by: int) -> Token:
    return ("item", token[1] + by, *token[2:]) if token[0] == "item" else token


def _hash(content: Any) -> str:
    return blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()


class _Reader:
    """Graphs as forms; a graph that stands in several places is read once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Graph, Form]] = {}

    def form(self, graph: Graph) -> Form:
        known = self.known.get(id(graph))
        if known is None:
            known = self.known[id(graph)] = (graph, self._read(graph))
        return known[1]

    def _read(self, graph: Graph) -> Form:
        made = Form([stream.text for stream in graph.inputs.values()], [], [])
        streams: dict[tuple[str, str], Token] = {(name, ""): ("in", n) for n, name in enumerate(graph.inputs)}
        lent = {node.shares for node in graph.nodes} - {None}
        made.alone = graph.single.name if graph.single else ""
        for node in graph.nodes:
            whole = node.when == "always" and node.shares is None and node.name not in lent
            if whole and _rate(node):
                streams[node.name, ""] = token = _token(streams, node.inputs[0])
                free = made.items[token[1]].free if token[0] == "item" else made.free
                free[f"then.{node.kind.name_}"] = settled(node).get("rate", 0.0)
            elif whole and _listed(node):
                self._inlined(made, streams, node)
            else:
                self._item(made, streams, node)
        made.outputs = [_token(streams, ref) for name, ref in graph.outputs.items() if name not in graph.training]
        return made

    def _inlined(self, made: Form, streams: dict[tuple[str, str], Token], node: Node) -> None:
        tokens = [_token(streams, ref) for ref in node.inputs]
        outer = {word: _token(streams, ref) for word, ref in node.outer.items()}
        rounds = node.kind.name_ == "repeat"
        ports: dict[str, Token] = {"": tokens[0]} if tokens else {}
        for slot, body in node.bodies.items():
            inner, given, start = self.form(body), list(body.inputs)[: body.given], len(made.items)
            base = f"{node.name}.{slot.removeprefix('rounds.')}" if rounds else node.name
            read = [*tokens[: len(given)], *(outer[word] for word in body.outer)]

            def put(token: Token, read: list[Token] = read, start: int = start) -> Token:
                return _moved(token, start) if token[0] == "item" else (*read[token[1]], *token[2:])

            for item in inner.items:
                moved = {key: put(token) for key, token in item.reads.items()}
                made.items.append(replace(item, name=f"{base}.{item.name}", reads=moved, free=dict(item.free)))
            for key, value in inner.free.items():
                source = tokens[0]
                (made.items[source[1]].free if source[0] == "item" else made.free)[key] = value
            found = dict(zip([key for key in body.outputs if key not in body.training], inner.outputs, strict=True))
            ends = {key: put(token) for key, token in found.items()}
            ports = {"": next(iter(ends.values())), **ends}
            if rounds:
                streams[node.name, slot.removeprefix("rounds.")] = ports[""]
                if len(ends) == 1:
                    tokens = [ports[""], *tokens[1:]]
                else:
                    tokens = [ends.get(word, old) for word, old in zip(given, tokens, strict=True)]
        for port, token in ports.items():
            streams[node.name, port] = token

    def _item(self, made: Form, streams: dict[tuple[str, str], Token], node: Node) -> None:
        fields, kind = settled(node), node.kind
        if node.tied is not None:  # which embedding it is, not what it is called
            owner = streams.get((node.tied, ""))
            before = made.items[: owner[1]] if owner and owner[0] == "item" else None
            fields["tied"] = node.tied if before is None else sum(item.kind == "token_embedding" for item in before)
        if kind.family == "position" or fields.get("scaling"):  # its table has a row for each of so many tokens
            fields["tokens"] = node.types[0].most
        free = {key: fields.pop(key) for key in kind.free if isinstance(fields.get(key), (float, str))}
        reads = {f"from.{number}": _token(streams, ref) for number, ref in enumerate(node.inputs)}
        for slot, body in node.bodies.items():
            for number, word in enumerate(body.outer):
                if word in node.outer:
                    reads[f"{slot}.{number}"] = _token(streams, node.outer[word])
        reads |= {slot: _token(streams, node.outer[word]) for slot, word in node.streams.items()}
        if node.shares:
            reads["weights"] = streams[node.shares, ""]
        if node.when != "always":
            fields["when"] = node.when
        shapes: dict[str, Any] = {
            f"output.{port}": stream.text
            for port, stream in node.outputs.items()
            if port in {"", *node.reads} - {"loss"}
        }
        for role, (matrix, plan) in node.matrices.items():
            shapes[role] = [matrix.inputs, matrix.outputs]
            fields[f"{role}.bias"] = matrix.bias
            if plan is not None:
                fields[f"{role}.linear"] = {"kind": plan.kind.name_, **settled(plan)}
        bodies = {slot: self.form(body) for slot, body in node.bodies.items()}
        streams[node.name, ""] = ("item", len(made.items))
        made.items.append(Item(node.name, kind.name_, fields, free, reads, shapes, bodies))


def _rate(node: Node) -> bool:
    """Whether a node does nothing but at a rate in training."""
    return node.kind.plain == ("rate",) and not node.bodies


def _listed(node: Node) -> bool:
    """Whether a node is its bodies one after another."""
    kind: Any = node.kind
    if kind.name_ == "sequence":
        return len(node.bodies) == 1
    plain = kind.name_ == "repeat" and kind.history == "last" and kind.router is None and not kind.share
    return (
        plain and "each" not in node.reads and bool(node.bodies) and all(s.startswith("rounds.") for s in node.bodies)
    )


def _token(streams: dict[tuple[str, str], Token], ref: Ref) -> Token:
    known = streams.get((ref.node, ref.port))
    if known is None:
        known = (*streams[ref.node, ""], ref.port)
    return (*known, f":{ref.span}") if ref.span else known


def differences(old: Form, new: Form) -> list[Difference]:
    """All differences of two forms, equal ones counted."""
    counts: dict[str, Difference] = {}
    for one in _forms(old, new, ""):
        key = repr((one.path, one.old, one.new))
        known = counts.get(key)
        counts[key] = replace(one, count=known.count + 1) if known else one
    return list(counts.values())


def _forms(old: Form, new: Form, path: str) -> Iterator[Difference]:
    if old is new or old.digest == new.digest:
        return
    if old.inputs != new.inputs:
        yield Difference(_below(path, "inputs"), old.inputs, new.inputs, "shape")
    if old.ends() != new.ends():
        yield Difference(_below(path, "outputs"), old.ends(), new.ends())
    yield from _values(old.free, new.free, path, "free")
    for a, b in _paired(old, new):
        if a is None or b is None:
            one = (new.items[b] if b is not None else old.items[a]).label  # type: ignore[index]
            yield Difference(_below(path, one), None if a is None else one, None if b is None else one, "item")
            continue
        yield from _items(old.items[a], new.items[b], a, b, path)


def _paired(old: Form, new: Form) -> Iterator[tuple[int | None, int | None]]:
    """Places of items that correspond: first equal ones, between these such of one label, then such of one kind."""
    for what, a, b, c, d in SequenceMatcher(None, old.digests, new.digests, autojunk=False).get_opcodes():
        if what != "equal":
            yield from _alike(old, new, range(a, b), range(c, d), ("label", "kind"))


def _alike(
    old: Form, new: Form, left: range, right: range, ways: tuple[str, ...]
) -> Iterator[tuple[int | None, int | None]]:
    if not ways or not left or not right:
        both = min(len(left), len(right))
        yield from zip(left[:both], right[:both], strict=True)
        yield from ((number, None) for number in left[both:])
        yield from ((None, number) for number in right[both:])
        return
    before: list[str] = [getattr(old.items[n], ways[0]) for n in left]
    after: list[str] = [getattr(new.items[n], ways[0]) for n in right]
    for what, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what == "equal":
            yield from zip(left[a:b], right[c:d], strict=True)
        else:
            yield from _alike(old, new, left[a:b], right[c:d], ways[1:])


def _items(old: Item, new: Item, a: int, b: int, path: str) -> Iterator[Difference]:
    here = _below(path, old.kind)
    if old.kind != new.kind:
        yield Difference(_below(path, old.kind), old.label, new.label, "kind")
        return
    yield from _values(old.fields, new.fields, here, "field")
    yield from _values(old.free, new.free, here, "free")
    yield from _values(old.shapes, new.shapes, here, "shape")
    yield from _values(old.near(a), new.near(b), here, "read")
    for slot in dict.fromkeys((*old.bodies, *new.bodies)):
        before, after = old.bodies.get(slot), new.bodies.get(slot)
        place = _below(here, slot.partition(".")[0])
        if before is None or after is None:
            a_, b_ = (None if one is None else " → ".join(item.label for item in one.items) for one in (before, after))
            yield Difference(place, a_, b_, "kind")
        else:
            yield from _forms(before, after, place)


def _values(old: dict[str, Any], new: dict[str, Any], path: str, what: str) -> Iterator[Difference]:
    for key in dict.fromkeys((*old, *new)):
        a, b = old.get(key), new.get(key)
        if a == b and type(a) is not bool and type(b) is not bool or a is b:
            continue
        if isinstance(a or {}, dict) and isinstance(b or {}, dict) and (a or b):
            yield from _values(a or {}, b or {}, _below(path, key), what)
        elif a != b or type(a) is not type(b):
            yield Difference(_below(path, key), a, b, what)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
